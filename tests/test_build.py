"""The allow-list: what a configuration may name, and what is said of what it may not."""

from __future__ import annotations

import functools
import sys

import pytest
import torch

from scm_media.build import build, nearest, resolve
from scm_media.proposals import LogNormalProposal, UniformProposal
from scm_media.trigflow import TrigFlow


def test_builds_the_object_with_its_keys():
    flow = build({"_target_": "scm_media.trigflow.TrigFlow", "sigma_data": 0.25})
    assert flow == TrigFlow(0.25)


def test_keywords_of_the_caller_stand_above_the_configuration():
    assert build({"_target_": "scm_media.trigflow.TrigFlow", "sigma_data": 0.25}, sigma_data=2.0) == TrigFlow(2.0)


def test_partial_is_called_later():
    made = build({"_target_": "scm_media.proposals.LogNormalProposal", "_partial_": True, "mean": -1.0})
    assert isinstance(made, functools.partial)
    assert made(std=1.4) == LogNormalProposal(-1.0, 1.4)


@pytest.fixture
def own_package(tmp_path, monkeypatch):
    """A package of the user's own, importable but not ours, whose class takes anything."""
    (tmp_path / "own_parts.py").write_text(
        "class Part:\n    def __init__(self, inner=None, others=(), **more):\n"
        "        self.inner, self.others, self.more = inner, others, more\n"
        "import os\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_parts"
    sys.modules.pop("own_parts", None)


def test_inner_targets_are_built_in_mappings_and_lists(own_package, monkeypatch):
    monkeypatch.setenv("SCM_MEDIA_ALLOW", own_package)
    uniform = {"_target_": "scm_media.proposals.UniformProposal", "high": 1.0}
    part = build({"_target_": "own_parts.Part", "inner": {"plain": uniform}, "others": [uniform, 3]})
    assert part.inner == {"plain": UniformProposal(high=1.0)}
    assert part.others == [UniformProposal(high=1.0), 3]


def test_own_code_is_refused_before_it_is_imported_unless_it_is_allowed(own_package, monkeypatch):
    monkeypatch.delenv("SCM_MEDIA_ALLOW", raising=False)
    with pytest.raises(ValueError, match=r"own_parts\.Part is not on the allow-list.*SCM_MEDIA_ALLOW=own_parts"):
        build({"_target_": "own_parts.Part"})
    assert own_package not in sys.modules
    monkeypatch.setenv("SCM_MEDIA_ALLOW", f"something_else, {own_package}")
    assert build({"_target_": "own_parts.Part", "x": 1}).more == {"x": 1}


def test_an_allowed_package_does_not_lend_what_it_imports(own_package, monkeypatch):
    monkeypatch.setenv("SCM_MEDIA_ALLOW", own_package)
    with pytest.raises(ValueError, match="not on the allow-list"):
        resolve("own_parts.os.makedirs")


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "torch.load",
        "torch.hub.load",
        "torch.nn.Module",
        "torch.optim.RAdam.load_state_dict",
        "scm_media.build.os.system",
        "scm_media.cli.os.system",
        "scm_media.build.importlib.import_module",
        "scm_media.trigflow.torch.load",
        "scm_media.interfaces.Tensor",
        "modalities.image.modality.os.remove",
        "lightning.fabric.Fabric",
    ],
)
def test_foreign_objects_are_refused_by_name(name):
    with pytest.raises(ValueError, match=r"allow-list|neither a class nor a function") as error:
        build({"_target_": name})
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "scm_media.build.build",
        "scm_media.weights.save",
        "scm_media.recipe.compose",
        "scm_media.training.reporting.Reporter",
        "scm_media.evaluation.reference.Reference",
        "scm_media.pipeline.generation.Pipeline",
        "scm_media.cli.progress.Progress",
        "scm_media.testing.check_modality",
    ],
)
def test_functions_and_classes_that_act_are_no_parts(name):
    with pytest.raises(ValueError, match="something that acts"):
        build({"_target_": name, "path": "x", "state": {}, "config": {}, "name_or_path": "image/tiny"})


@pytest.mark.parametrize(
    "name",
    ["scm_media", "", None, 3, "scm_media..x", "scm_media.trigflow.TrigFlow.__init__", "scm_media.__main__.main"],
)
def test_names_that_are_no_dotted_names_are_refused(name):
    with pytest.raises(ValueError, match="_target_ must be a dotted name"):
        resolve(name)


@pytest.mark.parametrize("name", ["torch.optim.RAdam", "torch.optim.AdamW", "torch.nn.SiLU"])
def test_named_classes_of_torch_are_allowed(name):
    assert resolve(name).__name__ == name.rpartition(".")[2]


def test_named_optimiser_is_built_over_parameters():
    config = {"_target_": "torch.optim.RAdam", "lr": 1e-4, "betas": [0.9, 0.99]}
    optimizer = build(config, params=[torch.nn.Parameter(torch.zeros(2))])
    assert optimizer.defaults["lr"] == 1e-4


def test_unknown_class_names_the_nearest():
    with pytest.raises(ValueError, match=r"TrigFlw does not exist \(nearest: TrigFlow\)"):
        resolve("scm_media.trigflow.TrigFlw")


def test_method_of_an_allowed_class_is_refused_even_though_it_is_a_function():
    with pytest.raises(ValueError, match="is a method"):
        resolve("scm_media.trigflow.TrigFlow.denoise")


def test_unknown_key_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"takes no key 'sigma_dat' \(nearest: sigma_data\); it takes sigma_data"):
        build({"_target_": "scm_media.trigflow.TrigFlow", "sigma_dat": 0.5})


def test_missing_key_is_named():
    with pytest.raises(ValueError, match=r"LogNormalProposal needs the key 'std'; got mean"):
        build({"_target_": "scm_media.proposals.LogNormalProposal", "mean": -1.0})


def test_a_value_error_of_the_constructor_comes_through():
    with pytest.raises(ValueError, match="sigma_data must be positive, got -1"):
        build({"_target_": "scm_media.trigflow.TrigFlow", "sigma_data": -1})


def test_configuration_without_target_is_refused():
    with pytest.raises(ValueError, match="expected a mapping with the key _target_"):
        build({"sigma_data": 0.5})


def test_nearest_is_silent_when_nothing_is_near():
    assert nearest("zzz", ["student", "teacher"]) == ""
    assert nearest("studnt", ["student", "teacher"]) == " (nearest: student)"

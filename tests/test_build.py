"""A configuration may name parts of the expected role alone, and errors say so."""

from __future__ import annotations

import functools
import sys

import pytest
import torch

from scm_media.build import build, nearest, resolve
from scm_media.losses import DiffusionLoss
from scm_media.nn.transformer import Transformer
from scm_media.parts import ROLES, part
from scm_media.timesteps import LogNormalTimesteps, UniformTimesteps
from scm_media.trigflow import TrigFlow

FLOW = {"_target_": "scm_media.trigflow.TrigFlow"}


def test_builds_the_object_with_its_keys():
    assert build({**FLOW, "sigma_data": 0.25}, "flow") == TrigFlow(0.25)


def test_keywords_of_the_caller_stand_above_the_configuration():
    assert build({**FLOW, "sigma_data": 0.25}, "flow", sigma_data=2.0) == TrigFlow(2.0)


def test_a_loss_is_built_with_its_proposal():
    backbone = Transformer(1, rank=2, width=32, depth=1, num_heads=1, patch=4)
    timesteps = {"_target_": "scm_media.timesteps.UniformTimesteps", "high": 1.0}
    loss = build({"_target_": "scm_media.losses.DiffusionLoss", "timesteps": timesteps}, "loss",
                 backbone=backbone, flow=TrigFlow())  # fmt: skip
    assert isinstance(loss, DiffusionLoss) and loss.timesteps == UniformTimesteps(high=1.0)


@pytest.fixture
def own_package(tmp_path, monkeypatch):
    """A package of the user's own, importable but not ours, with a backbone, a function that labels, and others."""
    (tmp_path / "own_parts.py").write_text(
        "import os\n"
        "from scm_media.parts import part\n"
        "@part('backbone', inner='timesteps', others='timesteps')\n"
        "class Part:\n    def __init__(self, inner=None, others=(), **more):\n"
        "        self.inner, self.others, self.more = inner, others, more\n"
        "@part('label_function')\n"
        "def label(path, prefix=''):\n    return {'kind': prefix + path}\n"
        "class Unregistered:\n    pass\n"
        "def wipe(path):\n    os.remove(path)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_parts"
    sys.modules.pop("own_parts", None)


def test_inner_parts_are_built_alone_and_in_lists(own_package, monkeypatch):
    monkeypatch.setenv("SCM_MEDIA_ALLOW", own_package)
    uniform = {"_target_": "scm_media.timesteps.UniformTimesteps", "high": 1.0}
    made = build({"_target_": "own_parts.Part", "inner": uniform, "others": [uniform, 3]}, "backbone")
    assert made.inner == UniformTimesteps(high=1.0)
    assert made.others == [UniformTimesteps(high=1.0), 3]


def test_a_part_where_none_is_expected_is_refused(own_package, monkeypatch):
    monkeypatch.setenv("SCM_MEDIA_ALLOW", own_package)
    for value in (FLOW, [FLOW], {"deep": {"deeper": FLOW}}):
        with pytest.raises(ValueError, match=r"own_parts\.Part: other\S* takes no part"):
            build({"_target_": "own_parts.Part", "other": value}, "backbone")
    with pytest.raises(ValueError, match=r"TrigFlow is a flow, expected a distribution of training times"):
        build({"_target_": "own_parts.Part", "inner": FLOW}, "backbone")


def test_a_label_function_waits_for_its_file(own_package, monkeypatch):
    monkeypatch.setenv("SCM_MEDIA_ALLOW", own_package)
    made = build({"_target_": "own_parts.label", "_partial_": True, "prefix": "a "}, "label_function")
    assert isinstance(made, functools.partial)
    assert made("kick") == {"kind": "a kick"}


def test_own_code_is_refused_before_it_is_imported_unless_it_is_allowed(own_package, monkeypatch):
    monkeypatch.delenv("SCM_MEDIA_ALLOW", raising=False)
    with pytest.raises(ValueError, match=r"own_parts\.Part is not on the allow-list.*SCM_MEDIA_ALLOW=own_parts"):
        build({"_target_": "own_parts.Part"}, "backbone")
    assert own_package not in sys.modules
    monkeypatch.setenv("SCM_MEDIA_ALLOW", f"something_else, {own_package}")
    assert build({"_target_": "own_parts.Part", "x": 1}, "backbone").more == {"x": 1}


@pytest.mark.parametrize("name", ["Unregistered", "wipe", "os.makedirs", "os.path.join"])
def test_an_allowed_package_lends_what_it_registered_and_nothing_else(own_package, monkeypatch, name):
    monkeypatch.setenv("SCM_MEDIA_ALLOW", own_package)
    with pytest.raises(ValueError, match=r"is not registered as a part.*@scm_media\.part\('backbone'\)"):
        resolve(f"own_parts.{name}", "backbone")


@pytest.mark.parametrize("role", ROLES)
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
        "scm_media.plugins.os.system",
        "scm_media.weights.os.system",
        "scm_media.build.importlib.import_module",
        "scm_media.trigflow.torch.load",
        "scm_media.trigflow.TrigFlow.denoise",
        "scm_media.interfaces.Tensor",
        "scm_media.build.build",
        "scm_media.parts.part",
        "scm_media.weights.save",
        "scm_media.weights.write_whole",
        "scm_media.recipe.compose",
        "scm_media.latents.cache.write_shard",
        "scm_media.training.reporting.Reporter",
        "scm_media.evaluation.reference.Reference",
        "scm_media.pipeline.pipeline.Pipeline",
        "scm_media.testing.check_modality",
        "modalities.audio.writing.write_sound",
        "modalities.audio.writing.read_metadata",
        "modalities.audio.containers.ContainerRecording",
        "modalities.video.containers.ContainerFootage",
        "modalities.video.writing.write_video",
        "modalities.image.writing.os.remove",
        "lightning_fabric.Fabric",
    ],
)
def test_what_is_no_part_is_refused_in_every_role(name, role):
    with pytest.raises(ValueError, match=r"not on the allow-list|not registered as a part") as error:
        build({"_target_": name, "path": "x"}, role)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("lightning_fabric.loggers.CSVLogger", "flow"),
        ("torch.optim.Adam", "backbone"),
        ("scm_media.data.shards.ShardsDataset", "modality"),
        ("scm_media.nn.transformer.Transformer", "flow"),
    ],
)
def test_a_part_in_another_role_is_refused(name, role):
    with pytest.raises(ValueError, match=f"expected {ROLES[role]}"):
        build({"_target_": name}, role)


@pytest.mark.parametrize("address", ["s3://bucket/logs", "reference://::data:,x", "simplecache::file:///tmp/x"])
def test_a_logger_writes_to_a_folder_and_not_to_an_address(address):
    with pytest.raises(ValueError, match="root_dir must be a folder on this machine"):
        build({"_target_": "lightning_fabric.loggers.CSVLogger", "root_dir": address}, "logger")


@pytest.mark.parametrize(
    "name",
    [
        *("scm_media", "", None, 3, "scm_media..x", "scm_media.trigflow.TrigFlow.__init__", "scm_media.__main__.main"),
        *("scm_media.data.shards._entry", "scm_media.x y", "a." * 4000 + "b", ["scm_media.trigflow.TrigFlow"]),
    ],
)
def test_names_that_are_no_dotted_names_of_public_things_are_refused(name):
    with pytest.raises(ValueError, match="_target_ must be a dotted name") as error:
        resolve(name, "flow")
    assert len(str(error.value)) < 300


def test_a_part_registered_from_outside_is_built(monkeypatch):
    class Still:
        pass

    monkeypatch.setattr("scm_media.trigflow.Still", Still, raising=False)
    with pytest.raises(ValueError, match="not registered"):
        resolve("scm_media.trigflow.Still", "flow")
    part("flow")(Still)
    assert resolve("scm_media.trigflow.Still", "flow") is Still


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match="there is no role 'bakcbone'"):
        part("bakcbone")


def test_named_optimiser_is_built_over_parameters():
    config = {"_target_": "torch.optim.RAdam", "lr": 1e-4, "betas": [0.9, 0.99]}
    optimizer = build(config, "optimizer", params=[torch.nn.Parameter(torch.zeros(2))])
    assert optimizer.defaults["lr"] == 1e-4


def test_unknown_class_names_the_nearest():
    with pytest.raises(ValueError, match=r"TrigFlw does not exist \(nearest: TrigFlow\)"):
        resolve("scm_media.trigflow.TrigFlw", "flow")


def test_unknown_key_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"takes no key 'sigma_dat' \(nearest: sigma_data\); it takes sigma_data"):
        build({**FLOW, "sigma_dat": 0.5}, "flow")


def test_missing_key_is_named():
    with pytest.raises(ValueError, match=r"LogNormalTimesteps needs the key 'std'; got mean"):
        build({"_target_": "scm_media.timesteps.LogNormalTimesteps", "mean": -1.0}, "timesteps")


def test_a_value_error_of_the_constructor_comes_through():
    network = {"_target_": "scm_media.nn.transformer.Transformer", "in_channels": 1, "rank": 5, "patch": 1}
    with pytest.raises(ValueError, match="rank of the transformer must lie in 1 … 4, got 5"):
        build({**network, "width": 8, "depth": 1, "num_heads": 1}, "backbone")


def test_bounds_of_a_parameters_name_hold_for_a_models_parts_too():
    with pytest.raises(ValueError, match=r"flow\.sigma_data must be above 0, got -1"):
        build({**FLOW, "sigma_data": -1}, "flow")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0.5", "sigma_data must be a number, got '0.5'"),
        (True, "sigma_data must be a number, got true"),
        (None, "sigma_data must be a number, got null"),
        ([0.5], "sigma_data must be a number"),
        ({"x": 1}, "sigma_data must be a number"),
        (float("nan"), r"flow\.sigma_data must be finite, above 0, got nan"),
        (float("inf"), r"flow\.sigma_data must be finite, above 0, got inf"),
        (10**400, "sigma_data must be within ±9223372036854775807, got 10000"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(value, said):
    with pytest.raises(ValueError, match=said):
        build({**FLOW, "sigma_data": value}, "flow")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("size", 2.5, "size must be a whole number"),
        ("random_crop", 1, "random_crop must be true or false"),
        ("fit", ["pad"], "fit must be text"),
        ("buckets", "wide", "buckets must be a list with each entry a list with each entry a whole number or null"),
        ("buckets", [[8, "8"]], "buckets must be a list"),
    ],
)
def test_types_are_those_of_the_signature(key, value, said):
    with pytest.raises(ValueError, match=said):
        build({"_target_": "modalities.image.modality.ImageModality", key: value}, "modality")


@pytest.mark.parametrize("config", [{"sigma_data": 0.5}, None, "scm_media.trigflow.TrigFlow", 3, [FLOW]])
def test_configuration_without_target_is_refused(config):
    with pytest.raises(ValueError, match="expected a flow as a mapping with the key _target_"):
        build(config, "flow")


def test_a_proposal_keeps_its_keys():
    config = {"_target_": "scm_media.timesteps.LogNormalTimesteps", "mean": -1, "std": 1.4}
    assert build(config, "timesteps") == LogNormalTimesteps(-1, 1.4)


def test_nearest_is_silent_when_nothing_is_near():
    assert nearest("zzz", ["student", "teacher"]) == ""
    assert nearest("studnt", ["student", "teacher"]) == " (nearest: student)"

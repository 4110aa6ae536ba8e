"""A new sampler, mask type and loss are one function or class each: a package from outside runs all the way."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch

import scm_media
from scm_media import TrigFlow, sample_heun, teacher_times
from scm_media.cli import main
from scm_media.masks import MASK_TYPES, MaskSampler
from scm_media.samplers import SAMPLERS
from tests.oracles import Gaussian
from tests.training.small import SMALL, metrics

PACKAGE = "scm_media_extension"
RECIPE = (
    "sampler.teacher=euler",
    "conditioning.mask={types: [middle], probability: 1.0}",
    f"teacher.loss._target_={PACKAGE}.ScaledDiffusionLoss",
    "+teacher.loss.factor=3.0",
    "feature_extractor.max_steps=2",
)


@pytest.fixture(scope="module")
def extension():
    """The package may be imported, and is not yet; what it registers is forgotten afterwards."""
    registered = [(registry, dict(registry._entries)) for registry in (SAMPLERS, MASK_TYPES)]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent / "extension"))
        patch.setenv("SCM_MEDIA_ALLOW", PACKAGE)
        yield
    sys.modules.pop(PACKAGE, None)
    for registry, entries in registered:
        registry._entries = entries


@pytest.fixture(scope="module")
def run(extension, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    settings = [word for word in SMALL if not word.startswith("feature_extractor")]
    assert main(["train", "image/tiny", *settings, *RECIPE, f"run_dir={folder}"]) == 0
    return folder


@pytest.mark.slow
def test_a_run_trains_with_the_loss_and_the_masks_of_the_package(run):
    assert {line["factor"] for line in metrics(run / "teacher") if "factor" in line} == {3.0}
    description = json.loads((run / "model.json").read_text())
    assert description["mask"]["types"] == ["middle"]
    assert description["sampler"]["teacher"] == "euler"
    mask = MaskSampler(1.0, ["middle"], axis=-1).draw(torch.zeros(2, 1, 3, 8))
    assert mask.tolist() == [[[[0, 0, 1, 1, 1, 1, 0, 0]] * 3]] * 2


@pytest.mark.parametrize(("flags", "evaluations"), [((), 3), (("--sampler", "heun"), 5), (("--sampler", "euler"), 3)])
def test_the_model_is_sampled_by_the_sampler_of_the_package(run, tmp_path, capsys, flags, evaluations):
    assert main(["generate", str(run), "--teacher", "--steps", "3", *flags, "--out", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["evaluations"] == evaluations


def test_the_evaluation_has_a_row_of_the_sampler_and_counts_its_calls(run, tmp_path, capsys):
    words = ["--num-samples", "8", "--rows", "teacher:4", "2", "--batch-size", "8", "--out", str(tmp_path), "--json"]
    assert main(["evaluate", str(run), *words]) == 0
    found = json.loads(capsys.readouterr().out)
    teacher, student = found["rows"]
    assert (teacher["sampler"], teacher["steps"], teacher["evaluations"]) == ("euler", 4, 4)
    network, decode = found["network_seconds_per_sample"], found["decode_seconds_per_sample"]
    assert math.isclose(found["speedup_bound"], (4 * network + decode) / (2 * network + decode), rel_tol=1e-9)
    assert student["sampler"] == "consistency"


def test_the_decorated_function_has_the_defaults_of_all_samplers(extension):
    sample = SAMPLERS.find("euler", "sampler")
    oracle, flow = Gaussian.random((2, 6)), TrigFlow(0.5)
    seen: list[float] = []
    x0 = sample(oracle, flow, shape=(3, 2, 6), steps=400, seed=0, callback=lambda i, time, x0: seen.append(time))
    assert seen == list(teacher_times(400, flow)[:-1])
    exact = sample_heun(oracle, flow, shape=(3, 2, 6), steps=400, seed=0)
    assert 0 < (x0 - exact).abs().max() < 0.02, "of first order, so near but not equal"
    assert sample.__name__ == "sample_euler"
    assert sample.__doc__.startswith("Returns x at the last time by Euler's method")


def test_a_name_that_nobody_registered_is_refused_with_the_names_there_are(extension, monkeypatch):
    with pytest.raises(ValueError, match=r"sampler must be one of heun, dpm_solver, euler, got 'rk45'$"):
        SAMPLERS.find("rk45", "sampler")
    monkeypatch.setenv("SCM_MEDIA_ALLOW", f"{PACKAGE}, not_there")
    with pytest.raises(ValueError, match=r"; not_there could not be imported \(ModuleNotFoundError: No module named"):
        SAMPLERS.find("rk45", "sampler")


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ValueError, match="there is a sampler named 'heun' already: choose another name"):
        scm_media.sampler("heun", evaluations=lambda steps: steps)(lambda run, times, callback: run.noise(0))


@pytest.fixture(scope="module")
def pulses(tmp_path_factory):
    """A run of a recipe whose modality, dataset, autoencoder, backbone and feature network are all from outside."""
    folder = tmp_path_factory.mktemp("pulses")
    extension = Path(__file__).parent / "extension"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(extension))
        patch.setenv("SCM_MEDIA_ALLOW", "pulse_media")
        assert main(["train", str(extension / "pulses.yaml"), f"run_dir={folder}"]) == 0
        yield folder
    sys.modules.pop("pulse_media", None)


def test_a_modality_dataset_autoencoder_and_backbone_of_a_package_train_and_are_sampled(pulses, tmp_path):
    losses = [line["loss"] for line in metrics(pulses / "teacher") if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    pipeline = scm_media.load(pulses, "cpu")
    early, late = (pipeline(32, label=name, seed=1).samples for name in ("early", "late"))
    assert early.shape == (32, 1, 16)
    assert (early[..., :8].mean() - early[..., 8:].mean()) > 0.1 < (late[..., 8:].mean() - late[..., :8].mean())
    assert main(["generate", str(pulses), "-n", "2", "--label", "late", "--out", str(tmp_path), "--json"]) == 0
    files = sorted(tmp_path.glob("*.pulse"))
    assert len(files) == 2 and json.loads(files[0].read_text())["label"] == "late"


def test_it_is_evaluated_and_its_latents_are_refused_by_name_until_it_has_a_fingerprint(pulses, tmp_path, capsys):
    words = ["--num-samples", "64", "--rows", "2", "--batch-size", "32", "--out", str(tmp_path), "--json"]
    assert main(["evaluate", str(pulses), *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy_held_out"] > 0.9 and found["rows"][0]["accuracy"] > 0.8
    recipe = str(Path(__file__).parent / "extension" / "pulses.yaml")
    assert main(["encode", recipe, f"run_dir={pulses}"]) == 1
    assert "PulseDataset does not tell which examples it holds" in capsys.readouterr().err


def test_a_sampler_for_a_student_is_refused(run, tmp_path, capsys):
    assert main(["generate", str(run), "--sampler", "heun", "--out", str(tmp_path)]) == 1
    assert "sampler 'heun' is for the teacher, and the student is sampled: set teacher" in capsys.readouterr().err

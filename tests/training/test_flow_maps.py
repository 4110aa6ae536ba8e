"""Flow maps through real trainings: the loss, the student's new input, model.json and the sampler that it names."""

from __future__ import annotations

import inspect
import json
from types import SimpleNamespace

import pytest
import torch

import scm_media
from scm_media import recipe, weights
from scm_media.build import resolve
from scm_media.flow_map_sampler import sample_flow_map
from scm_media.pipeline.randomness import sample_noise
from scm_media.samplers import sample_consistency
from scm_media.training.context import prepare
from scm_media.training.stages.backbones import student_config
from scm_media.training.stages.student import check_gamma, student_task, warm_start_task
from tests.training.small import SMALL, state, train

LOSSES = {
    "mean_flow": "scd",
    "improved_mean_flow": "sct",
    "flow_map": "scd",
    "lagrangian_flow_map": "scd",
}


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A run with a teacher alone."""
    folder = tmp_path_factory.mktemp("taught")
    train(folder, "stage=autoencoder")
    return train(folder, "stage=teacher")


@pytest.mark.parametrize(("loss", "objective"), LOSSES.items())
def test_each_loss_trains_a_student_that_generates_at_any_number_of_steps(taught, loss, objective):
    run = taught / "student"
    for file in sorted(run.rglob("*"), reverse=True) if run.exists() else ():
        file.unlink() if file.is_file() else file.rmdir()
    more = (f"loss@student.loss={loss}", f"student.objective={objective}", "stage=student", "sampler.gamma=0.5")
    train(taught, *more)
    found = weights.read(run / "weights.safetensors")
    assert found.config["target"] is True and found.info["flow_map"] is True
    moved = [value.abs().max() for name, value in found.state.items() if name.startswith("target.second")]
    assert moved and all(each > 0 for each in moved), "its input has been trained"
    assert json.loads((taught / "model.json").read_text())["sampler"]["gamma"] == 0.5
    pipeline = scm_media.load(taught, "cpu")
    for steps in (1, 3):
        made = pipeline(2, steps=steps, seed=1)
        assert made.evaluations == steps and torch.isfinite(made.samples).all()


def test_the_pipeline_steps_as_the_description_says(taught, tmp_path):
    run = train(tmp_path, "loss@student.loss=mean_flow", "student.objective=sct")
    pipeline = scm_media.load(run, "cpu")
    assert pipeline.settings.gamma == 0.0, "a flow map is sampled without noise between its steps"
    network, flow, seen = pipeline.network("student"), pipeline.flow, []
    network.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[1][0].item(), inputs[2].target)))
    made = pipeline(2, steps=2, seed=3)
    times = [1.5645, 1.1]
    assert [time for time, _ in seen] == pytest.approx(times, abs=1e-3)
    assert [target[0].item() for _, target in seen] == pytest.approx([1.1, 0.0])
    cond = pipeline.conditioning(made.labels)
    shape = pipeline.latent_shape()

    def noise(step):
        return sample_noise(3, [0, 1], step, shape) * flow.sigma_data

    exact = (seen[0][0], seen[1][0])
    latent = sample_flow_map(network, flow, noise, exact, cond)
    torch.testing.assert_close(pipeline.decode(latent), made.samples, atol=1e-5, rtol=1e-5)
    consistency = sample_consistency(network, flow, noise, exact, cond)
    assert (consistency - latent).abs().max() > 1e-3


def test_a_student_starts_from_its_teacher(taught):
    config = recipe.compose("image/tiny", [*SMALL, f"run_dir={taught}", "loss@student.loss=flow_map"])
    teacher, student = state(taught, "teacher"), student_task(prepare(config)).model.state_dict()
    assert all(torch.equal(student[name], value) for name, value in teacher.items())
    assert {name.split(".")[0] for name in student.keys() - teacher.keys()} == {"target"}


def test_the_sheets_of_a_warm_start_have_consistency_steps(taught):
    words = (*SMALL, f"run_dir={taught}", "loss@student.loss=mean_flow")
    more = ("trajectories=default", "warm_start=regression", "trainer.compile=false")
    context = prepare(recipe.compose("image/tiny", [*words, *more]))
    assert student_task(prepare(recipe.compose("image/tiny", list(words)))).preview.flow_map
    assert not warm_start_task(context).preview.flow_map, "it learns to step to the data alone"


def test_a_gamma_without_a_flow_map_is_refused():
    config = recipe.compose("image/tiny", [*SMALL, "sampler.gamma=0.3"])
    with pytest.raises(ValueError, match=r"sampler\.gamma 0\.3 .* ConsistencyLoss trains none"):
        check_gamma(config)
    check_gamma(recipe.compose("image/tiny", [*SMALL, "sampler.gamma=0.3", "loss@student.loss=mean_flow"]))


def test_a_backbone_without_the_input_is_refused():
    config = recipe.compose("image/tiny", [*SMALL, "loss@student.loss=mean_flow"])
    config["backbone"]["_target_"] = "scm_media.adapters.backbone.diffusers_backbone"
    with pytest.raises(ValueError, match="needs a network with an input for the time that a flow map goes to"):
        student_config(SimpleNamespace(config=config))


@pytest.mark.parametrize("loss", [*LOSSES])
def test_the_groups_hold_the_defaults_of_the_classes(loss):
    settings = dict(recipe.compose("image/tiny", [f"loss@student.loss={loss}"])["student"]["loss"])
    changed = {"improved_mean_flow": {"improved": True}, "lagrangian_flow_map": {"direction": "lagrangian"}}
    parameters = inspect.signature(resolve(settings.pop("_target_"))).parameters
    timesteps = settings.pop("timesteps")
    assert (timesteps["mean"], timesteps["std"]) == (-1.0, 1.4)
    expected = {name: parameters[name].default for name in settings} | changed.get(loss, {}) | {"tangent_warmup": 20}
    assert settings == expected

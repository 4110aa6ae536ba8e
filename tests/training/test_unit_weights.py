"""Magnitude-preserving weights through a training: unit rows after each step, in what is resumed and used."""

from __future__ import annotations

import pytest
import torch

from scm_media import recipe, training, weights
from scm_media.build import build
from scm_media.training import checkpoints
from tests.training.small import SMALL, Slope, run_task, same, state

UNET = (
    *(entry for entry in SMALL if not entry.startswith("backbone.")),
    "backbone=unet",
    *(f"~backbone.{key}" for key in ("patch", "width", "depth", "num_heads")),
    "backbone.size=nano",
    "backbone.dropout=0.1",
    "modality.size=8",
    "teacher.batch_size=4",
    "teacher.ema_std=0.25",
    "teacher.optimizer.lr=0.03",
    "student.batch_size=4",
    "+student.backbone.dropout=0.2",
)


def train(run_dir, *overrides):
    training.run(recipe.compose("image/tiny", [*UNET, f"run_dir={run_dir}", *overrides]))
    return run_dir


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("trained"))


def rows(tensors):
    """Returns the root mean square of every row of every magnitude-preserving weight."""
    return torch.cat([w.flatten(1).square().mean(1).sqrt() for name, w in tensors.items() if w.ndim > 1])


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_rows_are_unit_after_each_step_and_in_a_network_that_takes_the_average(trained, stage):
    folder = trained / stage / "checkpoints"
    assert checkpoints.steps(folder) == [4, 6]
    for step in (4, 6):
        kept = checkpoints.load(folder, step)["loss"]
        unit = rows({name: value for name, value in kept.items() if name.startswith("backbone.")})
        assert (unit - 1).abs().max() < 2e-5
    component = weights.read(trained / stage / "weights.safetensors")
    if stage == "teacher":
        assert rows(component.state).min() < 1 - 1e-4, "the average is shorter than what it averages"
    network = build(component.config, "backbone")
    weights.load_into(network, component.state)
    assert (rows(network.state_dict()) - 1).abs().max() < 2e-5


@pytest.mark.slow
def test_a_run_is_resumed_to_the_bit(trained, tmp_path):
    train(tmp_path, "teacher.max_steps=4", "stage=autoencoder")
    train(tmp_path, "teacher.max_steps=4", "stage=teacher")
    train(tmp_path, "stage=teacher")
    train(tmp_path, "stage=student", "student.max_steps=2")
    train(tmp_path, "stage=student")
    assert all(same(state(trained, stage), state(tmp_path, stage)) for stage in ("teacher", "student"))


def test_the_student_has_the_keys_of_its_own_backbone(trained):
    dropouts = [weights.read(trained / s / "weights.safetensors").config["dropout"] for s in ("teacher", "student")]
    assert dropouts == [0.1, 0.2]


def test_other_networks_step_as_before(tmp_path):
    after = run_task(tmp_path, Slope((1.0, 2.0)), 3)
    assert after["net.weight"].abs().max() > 2, "plain weights are left as long as the steps make them"


@pytest.mark.slow
def test_a_run_whose_gains_were_saved_without_a_dimension_goes_on(tmp_path):
    words = ("student.max_steps=0", "trainer.checkpoint_every=2")
    straight = train(tmp_path / "straight", *words, "teacher.max_steps=4")
    old = train(tmp_path / "old", *words, "teacher.max_steps=2")

    def without(tree):
        if isinstance(tree, torch.Tensor):
            return tree.reshape(()) if tree.shape == (1,) else tree
        if isinstance(tree, dict):
            return {name: without(value) for name, value in tree.items()}
        return [without(value) for value in tree] if isinstance(tree, list) else tree

    folder = old / "teacher" / "checkpoints"
    saved = checkpoints.load(folder, 2)
    _, fingerprint = checkpoints.load_training_fingerprint(folder)
    checkpoints.save(folder, 2, without(saved), 2, fingerprint)
    assert checkpoints.load(folder, 2)["ema"]["out_gain"].ndim == 0
    train(old, *words, "teacher.max_steps=4")
    assert same(state(straight, "teacher"), state(old, "teacher"))

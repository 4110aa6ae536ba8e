"""Training with conditioning masks: networks learn from them, resume to the bit, and are described with them."""

from __future__ import annotations

import json

import pytest
import torch

import scm_media
from scm_media import recipe, weights
from scm_media.recipe.cost import count_parameters
from scm_media.training.context import Context
from scm_media.training.stages.backbones import LatentInputs, backbone_config
from tests.training.small import SMALL, same, state, train

KNOWN = (
    "conditioning.mask={probability: 0.7, types: [start, box], axis: -1, fraction: [0.2, 0.6]}",
    "teacher.loss.label_dropout=0.1",
    "student.loss.label_dropout=0.1",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("known"), *KNOWN)


def test_networks_learn_from_the_given_latent_and_its_mask(run, tmp_path):
    fresh = train(tmp_path, *KNOWN, "teacher.max_steps=0", "student.max_steps=0")
    for stage, start in (("teacher", fresh), ("student", run)):
        component = weights.read(run / stage / "weights.safetensors")
        assert component.config["num_cond_channels"] == 2
        assert component.info["mask"]["types"] == ["start", "box"]
        moved = component.state["patch_in.weight"] - state(start, "teacher")["patch_in.weight"]
        assert moved.reshape(16, 3, -1).abs().amax((0, 2)).min() > 0, "channels of zeros have no gradient"
    description = json.loads((run / "model.json").read_text())
    assert description["mask"] == {"probability": 0.7, "types": ["start", "box"], "axis": -1, "fraction": [0.2, 0.6]}


def test_the_given_region_changes_the_rest_of_the_sample(run):
    pipeline = scm_media.load(run, "cpu")
    picture = torch.linspace(-1, 1, 256).reshape(1, 16, 16)
    clips = pipeline.edit("inpaint", picture, 2, region=[8, 16, 0, 16])
    assert clips.evaluations == 2, "no more steps than without"
    assert clips.labels == [{}, {}], "the network did without its label now and then"
    assert torch.equal(clips.samples[..., :8, :], picture[:, :8].expand(2, 1, 8, 16))
    inverted = pipeline.edit("inpaint", -picture, 2, region=[8, 16, 0, 16], steps=1)
    same_noise = pipeline.edit("inpaint", picture, 2, region=[8, 16, 0, 16], steps=1)
    assert (inverted.samples - same_noise.samples)[..., 8:, :].abs().max() > 1e-4, "even one step knows what is kept"


def test_a_resumed_training_draws_the_same_masks(run, tmp_path):
    train(tmp_path, *KNOWN, "teacher.max_steps=2", "student.max_steps=0")
    train(tmp_path, *KNOWN)
    for stage in ("teacher", "student"):
        assert same(state(run, stage), state(tmp_path, stage))


def test_a_run_does_not_go_on_with_other_masks(run):
    other = KNOWN[0].replace("0.7", "0.5")
    with pytest.raises(ValueError, match=r"conditioning.mask: \{'probability': 0.7, .* → \{'probability': 0.5"):
        train(run, other, *KNOWN[1:], "student.max_steps=9")


def test_without_masks_nothing_is_drawn_and_nothing_concatenated(tmp_path):
    train(tmp_path, "student.max_steps=0", "teacher.max_steps=1")
    config = recipe.compose("image/tiny", [*SMALL, f"run_dir={tmp_path}"])
    component = weights.read(tmp_path / "teacher" / "weights.safetensors")
    assert "num_cond_channels" not in component.config
    from scm_media.data import batches
    from scm_media.training.context import prepare

    context = prepare(config)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    _, cond = LatentInputs(context, context.load_trained("autoencoder"))(next(batches(context.data, 4, 0, 1, 0)))
    assert torch.equal(torch.get_rng_state(), before)
    assert cond.concat is None
    assert cond.mask is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("conditioning.mask={types: [middle]}", r"image/tiny: conditioning.mask: types must be one of start, end"),
        ("conditioning.mask={type: [start]}", r"unknown key 'conditioning.mask.type' \(nearest: types\)"),
        ("conditioning.mask={probability: often}", "conditioning.mask.probability must be a number, got 'often'"),
        ("conditioning.mask=start", "conditioning.mask must be a mapping of keys or null, got 'start'"),
        ("conditioning.mask={axis: 0}", r"axis is counted from the end \(-1: the last\), got 0"),
    ],
)
def test_a_section_that_cannot_be_is_refused_with_the_recipe(override, message):
    with pytest.raises(ValueError, match=message):
        recipe.compose("image/tiny", [override])


def test_an_axis_that_the_latents_lack_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ValueError, match=r"conditioning.mask.axis is -3, but latents have 2 axes"):
        train(tmp_path, "conditioning.mask={axis: -3}")
    assert not (tmp_path / "model.json").exists()


def test_a_backbone_with_too_few_channels_for_it_is_refused(tmp_path):
    config = recipe.compose("image/tiny", [*SMALL, "conditioning.mask={}", "+backbone.num_cond_channels=1"])
    from scm_media.training.context import prepare

    context: Context = prepare(config)
    with pytest.raises(ValueError, match=r"backbone.num_cond_channels must be at least 2 .*got 1: leave it out"):
        backbone_config(context)


def test_the_cost_counts_the_channels_of_the_mask():
    plain, known = (recipe.compose("image/tiny", list(words)) for words in ((), ("conditioning.mask={}",)))
    assert count_parameters(known) - count_parameters(plain) == 2 * 16 * 48

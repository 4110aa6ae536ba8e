"""Training with actions: every network takes them, and runs resume and are cached to the bit."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import scm_media
from scm_media import weights
from scm_media.data import batches
from scm_media.evaluation.speed import Bench
from scm_media.training.context import prepare
from scm_media.training.stages.backbones import LatentInputs, backbone_config
from tests.data.strips import PLACES
from tests.training.small import same, state
from tests.training.strips import compose, keep_latents, train, write_moves

pytestmark = pytest.mark.usefixtures("allowed")
KNOWN = "conditioning.mask={probability: 0.6, types: [start], axis: -2, fraction: [0.2, 0.6]}"
GUIDED = ("guide={backbone: {width: 8}, max_steps: 4}", "sampler.guidance=1.5")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_moves(tmp_path_factory.mktemp("strips"))


@pytest.fixture(scope="module")
def run(manifest, tmp_path_factory, allowed):
    return train(manifest, tmp_path_factory.mktemp("run"), KNOWN, *GUIDED)


def test_every_network_learns_from_actions_and_masks(run, manifest, tmp_path):
    untrained = ("guide={backbone: {width: 8}, max_steps: 0}", GUIDED[1], "teacher.max_steps=0", "student.max_steps=0")
    fresh = train(manifest, tmp_path, KNOWN, *untrained)
    for stage in ("teacher", "guide", "student"):
        component = weights.read(run / stage / "weights.safetensors")
        assert component.config["num_cond_channels"] == 2 + 2, "the given latent, its mask, two numbers a frame"
        start = state(run, "teacher") if stage == "student" else state(fresh, stage)
        moved = component.state["patch_in.weight"] - start["patch_in.weight"]
        moved = moved.reshape(component.config["width"], 1 + 4, -1).abs().amax((0, 2))
        # Four steps of a student move its weights by a rounding error where nothing but the mask is at stake.
        assert moved[3 if stage == "student" else 0 :].min() > 0, "channels of zeros have no gradient"
    description = json.loads((run / "model.json").read_text())
    assert description["actions"] == ["left", "right"]
    assert weights.read(run / "action_bank.safetensors").state["actions"].shape == (19, 2, PLACES)


def test_the_channels_of_a_batch_are_the_mask_and_then_its_actions(manifest, run):
    context = prepare(compose(manifest, run, KNOWN, *GUIDED))
    batch = next(batches(context.data, 4, 0, 1, seed=0))
    latents, cond = LatentInputs(context, context.load_trained("autoencoder"))(batch)
    assert cond.concat.shape == (4, 4, *latents.shape[2:])
    assert torch.equal(cond.concat[:, 2:, :, 3], batch.actions)
    assert torch.equal(cond.concat[:, 1:2], cond.mask)


@pytest.mark.slow
def test_a_resumed_training_is_the_undisturbed_one(manifest, run, tmp_path):
    short = ("guide={backbone: {width: 8}, max_steps: 2}", GUIDED[1], "teacher.max_steps=2", "student.max_steps=0")
    train(manifest, tmp_path, KNOWN, *short)
    train(manifest, tmp_path, KNOWN, *GUIDED, "student.max_steps=2")
    train(manifest, tmp_path, KNOWN, *GUIDED)
    for stage in ("teacher", "guide", "student"):
        assert same(state(run, stage), state(tmp_path, stage)), stage


def test_kept_latents_train_the_same_networks_to_the_bit(manifest, run, tmp_path):
    shutil.copytree(run / "autoencoder", tmp_path / "autoencoder")
    assert keep_latents(manifest, tmp_path) == 24
    train(manifest, tmp_path, KNOWN, *GUIDED)
    for stage in ("teacher", "guide", "student"):
        assert same(state(run, stage), state(tmp_path, stage)), stage


def test_other_actions_make_other_networks(manifest, run, tmp_path):
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for line in lines:
        line["moves"] = [[right, left] for left, right in line["moves"]]
        line["path"] = str(manifest.parent / line["path"])
    (tmp_path / "turned.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    train(tmp_path / "turned.jsonl", tmp_path / "run", KNOWN, *GUIDED, "stage=autoencoder")
    train(tmp_path / "turned.jsonl", tmp_path / "run", KNOWN, *GUIDED, "stage=teacher")
    assert not same(state(run, "teacher"), state(tmp_path / "run", "teacher"))


def test_a_training_with_actions_starts_from_a_model_without(manifest, tmp_path):
    plain = train(manifest, tmp_path / "plain", actions=None)
    again = train(manifest, tmp_path / "told", f"init_from={plain}", "teacher.max_steps=0", "student.max_steps=0")
    before, after = state(plain, "teacher"), state(again, "teacher")
    assert after["patch_in.weight"].shape[1] == before["patch_in.weight"].shape[1] * 3
    assert after["patch_in.weight"][:, before["patch_in.weight"].shape[1] :].abs().max() == 0
    assert all(torch.equal(after[name], before[name]) for name in before if name != "patch_in.weight")
    one, other = (scm_media.load(folder, "cpu")(2, label="dim", teacher=True, steps=2) for folder in (plain, again))
    torch.testing.assert_close(one.samples, other.samples, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"wrong shape: .*patch_in.weight"):
        train(manifest, tmp_path / "less", f"init_from={again}", "student.max_steps=0", actions=None)


def test_a_run_does_not_go_on_without_its_actions(manifest, run):
    with pytest.raises(ValueError, match=r"other data \(.*data\.action_names: \['left', 'right'\] → None\)"):
        train(manifest, run, KNOWN, *GUIDED, actions=None)


def test_a_backbone_with_too_few_channels_is_refused(manifest, tmp_path):
    context = prepare(compose(manifest, tmp_path, "+backbone.num_cond_channels=1"))
    with pytest.raises(ValueError, match=r"must be at least 2 for data.actions: the numbers of 1 frames; got 1"):
        backbone_config(context)


def test_steps_are_timed_with_actions_too(manifest, tmp_path):
    context = prepare(compose(manifest, tmp_path, KNOWN))
    bench = Bench(context, torch.device("cpu"), 2)
    assert bench.cond.concat.shape[1] == context.num_cond_channels == 4
    bench.jobs()["sCD step"]()
    assert bench.measure_feeding(1, [1.0])["examples"] == len(context.data)

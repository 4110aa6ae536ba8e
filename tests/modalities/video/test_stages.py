"""Every stage on clips in latents of the causal autoencoder, with pictures among them, kept latents and edits."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import scm_media
from scm_media import recipe, training
from scm_media.pipeline.loaded_model import decode_to_cpu
from scm_media.training.encoding import encode
from tests.training.small import SMALL, metrics, state

pytestmark = pytest.mark.usefixtures("allowed")
VIDEO = (
    "autoencoder=video_kl",
    "backbone=spacetime",
    "autoencoder.network={space_factor: 4, time_factor: 3, latent_channels: 2, width: 8, finest: 2, chunk: 1}",
    "autoencoder.network.linear_residual=true",
    "backbone.patch=[1,2,2]",
    "autoencoder.max_steps=4",
    "autoencoder.batch_size=4",
    "autoencoder.warmup_steps=1",
    "autoencoder.optimizer.lr=3.0e-3",
    "teacher.loss.label_dropout=0.1",
    "student.loss.label_dropout=0.1",
    "conditioning.mask={probability: 0.6, types: [first, start, both], axis: -3}",
)


def train(run_dir, *overrides, pictures=False, encoded=False):
    config = recipe.compose("image/tiny", [*SMALL, *VIDEO, f"run_dir={run_dir}", *overrides])
    config["modality"] = {"_target_": "tests.modalities.video.clips.ClipModality"}
    config["data"] = {"_target_": "tests.modalities.video.clips.MovingBars", "pictures": pictures}
    if encoded:
        return encode(config)
    training.run(config)
    return run_dir


@pytest.fixture(scope="module")
def run(tmp_path_factory, allowed):
    return train(tmp_path_factory.mktemp("clips"))


def test_every_stage_is_trained_in_the_latents_of_clips(run):
    description = json.loads((run / "model.json").read_text())
    assert description["sample_shape"] == [1, 7, 16, 16]
    assert description["latent_shape"] == [2, 3, 4, 4]
    assert json.loads((run / "autoencoder" / "metrics.json").read_text())["psnr"] > 0
    clips = scm_media.load(run, "cpu")(2, seed=1)
    assert clips.samples.shape == (2, 1, 7, 16, 16)
    assert torch.isfinite(clips.samples).all()


def test_clips_are_decoded_in_pieces_which_are_the_whole(run):
    pipeline = scm_media.load(run, "cpu")
    network = pipeline.network("autoencoder")
    latent = torch.randn(2, 2, 3, 4, 4)
    assert [chunk.shape[2] for chunk in network.decode_in_chunks(latent)] == [1, 3, 3]
    with torch.inference_mode():
        whole = network.synthesize(network.scale.denormalize(latent)).clamp(-1, 1)
    torch.testing.assert_close(decode_to_cpu(network, latent), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(pipeline.decode(latent), whole, rtol=0, atol=1e-5)


def test_a_first_frame_is_set_in_motion_and_a_clip_goes_on(run):
    pipeline = scm_media.load(run, "cpu")
    bars = torch.where(torch.arange(16) % 8 < 4, 0.8, -0.8).expand(1, 7, 16, 16).contiguous()
    told = []
    student = pipeline.network("student")
    student.register_forward_pre_hook(lambda module, inputs: told.append(inputs[2]))
    clips = pipeline.edit("animate", bars[:, :1], 2)
    assert torch.equal(clips.samples[:, :, :1], bars[:, :1].expand(2, 1, 1, 16, 16))
    assert told[0].mask.flatten(3).mean(-1)[0].flatten().tolist() == [1, 0, 0]
    picture = pipeline.network("autoencoder").encode(bars[None, :, :1])
    given = told[0].concat[:, :2, :1] * 0.5
    torch.testing.assert_close(given, picture.expand_as(given), rtol=0, atol=1e-6)
    longer = pipeline.edit("continue", bars, 1, keep=4, frames=10)
    assert longer.samples.shape == (1, 1, 10, 16, 16)
    assert torch.equal(longer.samples[0, :, :4], bars[:, 3:])


def test_kept_latents_train_the_same_teacher(run, tmp_path):
    shutil.copytree(run / "autoencoder", tmp_path / "autoencoder")
    assert train(tmp_path, "latents.dtype=float32", encoded=True)["examples"] == 32 + 8
    train(tmp_path, "latents.dtype=float32", "student.max_steps=0")
    straight, kept = state(run, "teacher"), state(tmp_path, "teacher")
    for name, tensor in straight.items():
        torch.testing.assert_close(kept[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_pictures_are_clips_of_one_frame_among_the_others(tmp_path):
    mixed = train(tmp_path, "conditioning.mask=null", "teacher.max_steps=4", "student.max_steps=2", pictures=True)
    for stage in ("autoencoder", "teacher", "student"):
        losses = [line["loss"] for line in metrics(mixed / stage) if "loss" in line]
        assert losses and all(loss == loss for loss in losses)
    assert scm_media.load(mixed, "cpu")(1).samples.shape == (1, 1, 7, 16, 16)

"""Videos that are set in motion, continued and filled in: real files, pixels, an untrained network of rank 3."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

import scm_media
from modalities.video import VideoModality, read_metadata
from scm_media import weights
from scm_media.build import build
from scm_media.cli import main
from scm_media.networks import ROLES
from tests.modalities.video.files import moving, write_frames

MODALITY = {
    "_target_": "modalities.video.modality.VideoModality",
    "num_frames": 8,
    "frame_rate": 10.0,
    "size": 16,
}
NETWORKS = {
    "autoencoder": {"_target_": "modalities.image.autoencoder.PixelAutoencoder", "channels": 3},
    "student": {
        "_target_": "scm_media.nn.transformer.Transformer",
        "in_channels": 3,
        "rank": 3,
        "patch": [2, 8, 8],
        "width": 16,
        "depth": 1,
        "num_heads": 2,
        "labels": {"fps": 0},
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder: pixels measured on a pattern, a network of random weights that is told the rate of frames."""
    folder = tmp_path_factory.mktemp("videos")
    generator = torch.Generator().manual_seed(0)
    for name, config in NETWORKS.items():
        network = build(config, ROLES[name])
        for parameter in network.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
        if name == "autoencoder":
            network.fit([moving(8, 16)[None]])
        weights.save(folder / f"{name}.safetensors", network.state_dict(), config)
    description = {
        "format": 2,
        "name": "test/videos",
        "modality": MODALITY,
        "flow": {"_target_": "scm_media.trigflow.TrigFlow", "sigma_data": 0.5},
        "sampler": {"steps": 2},
        "labels": {"fps": []},
        "label_counts": {"fps": []},
        "label_quantiles": {"fps": [4.0, 10.0, 20.0]},
        "student_label_dropout": 0.1,
        "sample_shape": [3, 8, 16, 16],
        "latent_shape": [3, 8, 16, 16],
    }
    (folder / "model.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def video(tmp_path):
    """Twelve frames of 24 × 16 pixels, ten a second."""
    pixels = ((moving(12, 24)[..., :16, :] + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()
    return write_frames(tmp_path / "given.mkv", list(pixels), codec=("ffv1", "bgra", {}))


def report_of(capsys, *words):
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_video_goes_on_where_it_ends_beyond_what_is_drawn_at_once(model, video):
    pipeline = scm_media.load(model, "cpu")
    given = pipeline.modality.read_whole(video)
    assert given.shape == (3, 12, 16, 16)
    clips = pipeline.edit("continue", video, 2, keep=3, steps=2, frames=20)
    assert clips.samples.shape == (2, 3, 20, 16, 16)
    assert torch.equal(clips.samples[:, :, :3], given[:, -3:].expand(2, -1, -1, -1, -1))
    assert not torch.equal(clips.samples[0, :, 3:], clips.samples[1, :, 3:])
    before = pipeline.edit("prepend", video, 1, steps=2).samples[0]
    assert torch.equal(before[:, -4:], given[:, :4])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif"])
def test_a_picture_is_set_in_motion(model, tmp_path, suffix):
    Image.fromarray(((moving(1, 16)[:, 0] + 1) * 127.5).byte().permute(1, 2, 0).numpy()).save(tmp_path / f"a{suffix}")
    pipeline = scm_media.load(model, "cpu")
    samples = pipeline.edit("animate", tmp_path / f"a{suffix}", 1, steps=2).samples[0]
    assert samples.shape == (3, 8, 16, 16)
    assert torch.equal(samples[:, :1], pipeline.modality.read_whole(tmp_path / f"a{suffix}"))
    assert samples.diff(dim=1).abs().mean() > 0.01


def test_what_lies_between_two_pictures_is_made(model, tmp_path):
    (tmp_path / "ends").mkdir()
    for name, frame in zip(("a", "b"), moving(4, 16).movedim(1, 0)[::2], strict=True):
        pixels = ((frame + 1) * 127.5).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / "ends" / f"{name}.png")
    pipeline = scm_media.load(model, "cpu")
    samples = pipeline.edit("interpolate", tmp_path / "ends", 1, steps=2).samples[0]
    ends = pipeline.modality.read_whole(tmp_path / "ends")
    assert torch.equal(samples[:, [0, -1]], ends) and not torch.equal(ends[:, 0], ends[:, 1])
    assert not torch.equal(samples[:, 1], ends[:, 0]) and not torch.equal(samples[:, -2], ends[:, 1])


def test_the_edit_command_writes_videos_that_keep_what_was_given(model, video, tmp_path, capsys):
    for task, kept, suffix in (("continue", 4, "mp4"), ("animate", 1, "webm"), ("interpolate", 2, "gif")):
        words = ("--task", task, "--input", video, "--steps", 2, "--format", suffix, "--out", tmp_path / "out")
        (clip,) = report_of(capsys, "edit", model, *words)["samples"]
        found = VideoModality(num_frames=8, frame_rate=10, size=16).read(clip["path"])
        assert found.shape == (3, 8, 16, 16)
        told = read_metadata(clip["path"])
        assert (told["task"], told["input"], told["recipe"], told["seed"]) == (task, video.name, "test/videos", 0)
        given = scm_media.load(model, "cpu").modality.read_whole(video)
        first = given[:, -4:] if task == "continue" else given[:, :kept]
        assert (found[:, :kept] - first).abs().mean() < 0.15
    (clip,) = report_of(
        capsys, "edit", model, "--task", "continue", "--input", video, "--frames", 14, "--steps", 2, "--out", tmp_path
    )["samples"]
    assert VideoModality(frame_rate=10).read(clip["path"]).shape[1] == 14


def test_generate_takes_frames_and_their_rate_which_is_a_label_too(model, tmp_path, capsys):
    words = ("generate", model, "--frames", 12, "--steps", 2)
    clips = []
    for number, more in enumerate((("--fps", 5), ("--label", "fps=5"), ("--label", "fps=20"))):
        report = report_of(capsys, *words, *more, "--out", tmp_path / str(number))
        clips.append(report["samples"][0])
    rates = [5, 5, 20]
    for clip, rate in zip(clips, rates, strict=True):
        assert clip["label"] == f"{float(rate)}"
        found = VideoModality(frame_rate=None).measure(clip["path"])
        assert (found["fps"], found["seconds"]) == (pytest.approx(rate), pytest.approx(12 / rate))
        assert read_metadata(clip["path"])["fps"] == rate
    samples = [VideoModality(frame_rate=None).read(clip["path"]) for clip in clips]
    assert torch.equal(samples[0], samples[1]) and not torch.equal(samples[0], samples[2])


def test_a_mistake_is_said_in_one_line(model, video, capsys):
    assert main(["edit", str(model), "--task", "continue", "--input", str(video), "--keep", "9"]) == 1
    assert "keep must be above 0 and at most 7 frames" in capsys.readouterr().err
    assert main(["generate", str(model), "--frames", "1.5"]) == 1
    assert "frames must be a whole number" in capsys.readouterr().err

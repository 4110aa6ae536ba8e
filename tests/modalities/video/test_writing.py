"""Written videos are read again as they were, with how they were made inside; any sizes, any rate."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import av
import pytest
import torch
import yaml

from modalities.video import VideoModality, read_metadata
from scm_media.build import build
from scm_media.testing import check_modality
from tests.modalities.video.files import moving, numbers, write_numbered

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("suffix", "tolerance"), [(".mp4", 0.06), (".webm", 0.03), (".gif", 0.07)])
@pytest.mark.parametrize("channels", [1, 3])
def test_conforms_in_every_format(tmp_path, suffix, tolerance, channels):
    modality = VideoModality(num_frames=8, frame_rate=8.75, size=32, channels=channels)
    check_modality(modality, tmp_path, moving(8)[:channels], suffix, tolerance)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
@pytest.mark.parametrize("rate", [8.75, 24000 / 1001, 30.0])
def test_frames_come_back_at_their_rate_with_their_metadata(tmp_path, suffix, rate):
    given = {
        "recipe": "video/scenes",
        "model": "runs/ä",
        "seed": 3,
        "label": 'class="x" {y}',
        "nested": {"a": [1, None]},
    }
    source = VideoModality(num_frames=24, frame_rate=10, size=[32, 56]).read(write_numbered(tmp_path / "a.avi", 24))
    modality = VideoModality(num_frames=24, frame_rate=rate, size=[32, 56])
    assert modality.write(tmp_path / f"b{suffix}", source, given) is None
    assert read_metadata(tmp_path / f"b{suffix}") == given
    assert numbers(modality.read(tmp_path / f"b{suffix}")) == list(range(24))
    assert modality.measure(tmp_path / f"b{suffix}")["seconds"] == pytest.approx(24 / rate, abs=0.02)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.avi", f"b{suffix}"]
    modality.write(tmp_path / f"c{suffix}", source, {"fps": 5})
    assert modality.measure(tmp_path / f"c{suffix}")["seconds"] == pytest.approx(24 / 5, abs=0.02)


def test_mp4_is_what_browsers_play(tmp_path):
    VideoModality(num_frames=8, size=32).write(tmp_path / "a.mp4", moving(8), {})
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.frames) == ("h264", "yuv420p", 8)
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
@pytest.mark.parametrize(("height", "width"), [(31, 33), (32, 33), (1, 1), (8, 8)])
def test_odd_and_small_sizes_are_written(tmp_path, suffix, height, width):
    sample = moving(6, 34)[..., :height, :width]
    remark = VideoModality().write(tmp_path / f"a{suffix}", sample, {})
    odd = suffix == ".mp4" and (height % 2 or width % 2)
    assert bool(remark) == bool(odd)
    found = VideoModality(frame_rate=8).read(tmp_path / f"a{suffix}")
    grown = (height + height % 2, width + width % 2) if odd else (height, width)
    assert tuple(found.shape) == (3, 6, *grown)
    if height > 8:
        assert (found[..., :height, :width] - sample).abs().mean() < 0.06
    if odd:
        assert f"written as {grown[1]}×{grown[0]}" in remark


def test_what_cannot_be_written_is_refused_and_nothing_is_left(tmp_path):
    modality, sample = VideoModality(), moving(4)
    bad = sample.clone()
    bad[0, 1, 2, 3] = math.nan
    for name, given, metadata, words in (
        ("a.mp4", bad, {}, "not finite"),
        ("a.avi", sample, {}, r"written as \.mp4, \.webm, \.gif"),
        ("a.mp4", sample[:2], {}, r"a video is \(3, T, H, W\) or \(1, T, H, W\), got \(2, 4, 32, 32\)"),
        ("a.mp4", sample, {"fps": 0}, "above 0 and at most 240"),
        ("a.gif", sample, {"fps": 60}, "at most 50 frames/s, got 60"),
    ):
        with pytest.raises(ValueError, match=words):
            modality.write(tmp_path / name, given, metadata)
    assert not list(tmp_path.iterdir())
    (tmp_path / "b.mp4").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match=r"b\.mp4 cannot be read as a video"):
        read_metadata(tmp_path / "b.mp4")
    assert read_metadata(write_numbered(tmp_path / "c.mp4", 3)) == {}


def test_the_configuration_names_every_key_with_its_default():
    config = yaml.safe_load((ROOT / "configs" / "modality" / "video.yaml").read_text(encoding="utf-8"))
    defaults = {key: each.default for key, each in inspect.signature(VideoModality).parameters.items()}
    assert config == {"_target_": "modalities.video.modality.VideoModality", **defaults}
    assert build(config, "modality").shape() == (3, 16, 64, 64)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"num_frames": 0}, "num_frames must be at least 1"),
        ({"frame_rate": 0}, "frame_rate must be a positive number"),
        ({"size": [3, 4, 5]}, r"size must be pixels, at least 1, or \[height, width\]"),
        ({"channels": 4}, "channels must be 1"),
        ({"window": "end"}, "window must be one of random, start, centre, got 'end'"),
        ({"padding": "zero"}, "padding must be one of refuse, hold, masked"),
        ({"background": 2}, "background must lie in"),
        ({"quality": 52}, "quality must lie in"),
    ],
)
def test_keys_that_cannot_be_are_refused(keys, words):
    with pytest.raises(ValueError, match=words):
        VideoModality(**keys)


def test_extents_and_shapes():
    modality = VideoModality(num_frames=16, frame_rate=8.75, size=[48, 64])
    assert modality.shape() == (3, 16, 48, 64) and modality.shape(frames=31, fps=5) == (3, 31, 48, 64)
    frames, rate = modality.size_options["frames"], modality.size_options["fps"]
    assert (frames.longest, frames.axis, frames.rate, frames.default) == (16, -3, 1, 16)
    assert (rate.default, rate.axis) == (8.75, None)
    for sizes, words in (({"frames": 1.5}, "whole number"), ({"fps": 0}, "positive"), ({"size": 3}, "have no size")):
        with pytest.raises(ValueError, match=words):
            modality.shape(**sizes)


def test_conform_cuts_and_flips_by_the_generator_alone():
    modality = VideoModality(num_frames=4, size=16, crop="random", flip=True)
    sample = moving(9, 20)[..., :16, :]
    seen = {
        tuple(modality.transform(sample, torch.Generator().manual_seed(seed)).flatten().tolist()) for seed in range(30)
    }
    assert len(seen) > 20
    assert torch.equal(modality.transform(sample), sample[:, 2:6, :, 2:18])
    with pytest.raises(ValueError, match="3 frames is too short for clips of 4"):
        modality.transform(sample[:, :3])

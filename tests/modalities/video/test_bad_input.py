"""A video's fault is said in one line, and counted by reason where a dataset is opened; never a hang."""

from __future__ import annotations

import re

import av
import numpy as np
import pytest
import torch
from PIL import Image

from modalities.video import VideoModality
from scm_media.cli import main
from scm_media.data import FolderDataset, ManifestDataset
from tests.modalities.video.files import (
    CONTAINERS,
    damaged,
    numbered,
    numbers,
    rotated,
    write_folder,
    write_frames,
    write_numbered,
    write_webp,
)

MODALITY = {"num_frames": 6, "frame_rate": 10, "size": [32, 56], "window": "start"}


def sound(path):
    """An MP4 with a sound and nothing to see."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for place in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1024 * place
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def cut(path, fraction=0.6):
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])


def different_sizes(path):
    write_folder(path, 8)
    Image.fromarray(numbered(3, 30, 50)).save(path / "frame-3.png")


def broken_frame(path):
    write_folder(path, 8)
    cut(path / "frame-5.png", 0.5)


def noise(path, num=20):
    rng = np.random.default_rng(0)
    write_frames(
        path, [np.kron(rng.integers(0, 255, (4, 7, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(num)]
    )


def cut_mkv(path):
    noise(path, 40)
    cut(path)


def bad_packets(path):
    noise(path.with_name("sound.mp4"), 30)
    damaged(path.with_name("sound.mp4"), path, (14, 15))
    path.with_name("sound.mp4").unlink()


def bad_avi(path):
    noise(path.with_name("sound.avi"), 30)
    damaged(path.with_name("sound.avi"), path, (14, 15))
    path.with_name("sound.avi").unlink()


BAD = {
    "sound-only.mp4": (sound, "no video stream", "has no video in it, only audio"),
    "text.mp4": (lambda path: path.write_bytes(b"no such thing" * 99), "not a video", "cannot be decoded as a video"),
    "text.webp": (lambda path: path.write_bytes(b"no such thing" * 99), "not a video", "as an animated WebP"),
    "text.gif": (lambda path: path.write_bytes(b"no such thing" * 99), "no frames", "before its first frame"),
    "list.mp4": (lambda path: path.write_bytes(b"#EXTM3U\n#EXTINF:10,\n/etc/hostname\n"), "not a video", "cannot be"),
    "wide.webp": (lambda path: wide(path), "not a video", r"claims \d+×32 pixels, a WebP has 16383 a side at most"),
    "nothing.webm": (lambda path: path.write_bytes(b""), "empty", r"is empty \(0 bytes\)"),
    "no-frames.mkv": (lambda path: no_frames(path), "no frames", "ends before its first frame"),
    "one.mp4": (lambda path: write_numbered(path, 1, 1), "one frame", "is a single picture"),
    "one.webp": (lambda path: write_webp(path, 1, [0]), "one frame", "is a single picture"),
    "one.gif": (lambda path: Image.new("RGB", (8, 8)).save(path), "one frame", "is a single picture"),
    "short.webm": (
        lambda path: write_numbered(path, 5),
        "too short",
        "has 5 frames at 10 a second .*expected at least 6",
    ),
    "bad-packets.mp4": (bad_packets, "damaged", r"is damaged at 1\.\d+ s .*data\.cut"),
    "bad-packets.avi": (bad_avi, "damaged", r"is damaged at 1\.\d+ s"),
    "cut.mkv": (cut_mkv, "cut short", r"its header promises 4\.00 s, its frames end at 2\.\d+ s"),
    "cut.mp4": (lambda path: (noise(path), cut(path)), "not a video", "cannot be decoded as a video"),
    "different": (different_sizes, "frames of different sizes", r"frame-0\.png is 56×32, frame-3\.png 50×30"),
    "broken": (broken_frame, "damaged", r"a frame that cannot be decoded, frame-5\.png"),
}


def wide(path):
    """An animated WebP whose header claims a million pixels a row."""
    write_webp(path, 8, [100] * 8)
    content = bytearray(path.read_bytes())
    at = content.index(b"VP8X") + 8 + 4
    content[at : at + 3] = (1_000_000).to_bytes(3, "little")
    path.write_bytes(content)


def no_frames(path):
    """A file that has a stream of video and not one frame of it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.codec_context.open()
        container.start_encoding()


@pytest.mark.parametrize("name", BAD)
def test_each_is_refused_in_one_line_that_names_it(tmp_path, name):
    make, reason, words = BAD[name]
    make(tmp_path / name)
    with pytest.raises(ValueError, match=words) as caught:
        VideoModality(**MODALITY).validate(tmp_path / name)
    assert caught.value.reason == reason
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["bad-packets.mp4", "bad-packets.avi", "different", "broken", "cut.mkv"])
def test_a_clip_that_would_hold_damage_is_refused_and_one_beside_it_is_not(tmp_path, name):
    BAD[name][0](tmp_path / name)
    folder = (tmp_path / name).is_dir()
    modality = VideoModality(**{**MODALITY, "num_frames": 2})
    assert modality.read_transformed(tmp_path / name)[0].shape == (3, 2, 32, 56)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        modality.read(tmp_path / name)
    reach = 39 if name == "cut.mkv" else 19
    if not folder:
        with pytest.raises(ValueError, match=r"is (damaged|cut short)"):
            VideoModality(**{**MODALITY, "num_frames": reach}).read_transformed(tmp_path / name)


def test_a_dataset_counts_them_by_reason_and_check_names_them(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clips = tmp_path / "data" / "stripes"
    clips.mkdir(parents=True)
    for number, suffix in enumerate(CONTAINERS):
        write_numbered(clips / f"{number}{suffix}", 8)
    write_folder(clips / "frames", 8)
    for name in BAD:
        BAD[name][0](clips / name)
    (clips / "notes.txt").write_text("no video")
    dataset = FolderDataset(VideoModality(**MODALITY), tmp_path / "data", held_out=0.1)
    assert dataset.rejects == {
        "of another kind": 1,
        "no video stream": 1,
        "not a video": 5,
        "empty": 1,
        "no frames": 2,
        "one frame": 3,
        "too short": 1,
        "damaged": 3,
        "cut short": 1,
        "frames of different sizes": 1,
    }
    assert len(dataset) == len(CONTAINERS)  # and one held out
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "defaults: [/base, /modality: video, /data: folder, /autoencoder: pixel, /backbone: transformer, _self_]\n"
        "recipe: mine\nmodality: {num_frames: 6, frame_rate: 10, size: 32}\nbackbone: {rank: 3}\n"
        f"data: {{root: {tmp_path / 'data'}}}\n"
    )
    assert main(["check", str(recipe)]) == 0
    told = capsys.readouterr().out
    assert "3 damaged" in told and "1 frames of different sizes" in told and "shape: 3×6×32×32" in told
    with Image.open(tmp_path / "runs" / "mine" / "main" / "preview.png") as picture:
        assert picture.width > 6 * 64


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_what_is_to_be_turned_is_read_upright(tmp_path, clockwise):
    pixels = np.full((32, 48, 3), 128, np.uint8)
    pixels[:8, :12] = 255  # the stored picture's upper left corner
    pixels[-8:, :12] = 0
    path = rotated(write_frames(tmp_path / "a.mp4", [pixels] * 8), clockwise)
    clip = VideoModality(num_frames=8, frame_rate=10).read(path)
    expected = torch.from_numpy(np.rot90(pixels, -clockwise // 90).copy()).permute(2, 0, 1) / 127.5 - 1
    assert clip.shape[-2:] == expected.shape[-2:]
    assert (clip[:, 3] - expected).abs().mean() < 0.03


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.webm", ("libvpx-vp9", "yuva420p", {"lossless": "1"})),
        ("b.webm", ("libvpx", "yuva420p", {"crf": "4", "b": "4M", "auto-alt-ref": "0"})),
        ("a.mkv", ("ffv1", "bgra", {})),
        ("a.mov", ("qtrle", "argb", {})),
    ],
)
def test_what_is_transparent_shows_the_background(tmp_path, name, codec):
    pixels = np.zeros((32, 48, 4), np.uint8)
    pixels[..., 0], pixels[:, :24, 3] = 255, 255  # red, its right half transparent
    write_frames(tmp_path / name, [pixels] * 8, codec=codec)
    for background in (-1.0, 1.0):
        clip = VideoModality(num_frames=8, frame_rate=10, background=background).read(tmp_path / name)
        assert (clip[:, :, :, 28:] - background).abs().max() < 0.05
        assert clip[0, :, :, :20].mean() > 0.9 and clip[1:, :, :, :20].mean() < -0.9


def test_ten_bits_are_brought_to_eight_and_odd_sizes_kept(tmp_path):
    frames = [numbered(number, 33, 57) for number in range(8)]
    ten = write_frames(tmp_path / "a.mkv", frames, codec=("ffv1", "yuv444p10le", {}))
    clip = VideoModality(num_frames=8, frame_rate=10).read(ten)
    expected = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2) / 127.5 - 1
    assert clip.shape == (3, 8, 33, 57) and (clip - expected).abs().max() <= 2 / 127.5
    high = write_frames(tmp_path / "b.mp4", [numbered(k) for k in range(8)], codec=("libx264", "yuv420p10le", {}))
    assert numbers(VideoModality(num_frames=8, frame_rate=10).read(high)) == list(range(8))


def test_wide_pixels_are_shown_as_wide_as_they_are(tmp_path):
    path = write_numbered(tmp_path / "a.mkv", 8, codec=("libx264", "yuv420p", {"aspect": "1"}))
    with av.open(str(tmp_path / "b.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 56, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for number in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
        container.mux(stream.encode(None))
    modality = VideoModality(num_frames=8, frame_rate=10)
    assert modality.read(path).shape[-2:] == (32, 56)
    assert modality.read(tmp_path / "b.mp4").shape[-2:] == (32, 112)


def test_short_files_are_held_or_masked_where_that_is_wanted(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 4)
    for padding in ("hold", "masked"):
        modality = VideoModality(**{**MODALITY, "padding": padding})
        modality.validate(path)
        clip, valid = modality.read_transformed(path)
        assert numbers(clip) == [0, 1, 2, 3, 3, 3]
        assert (valid is None) == (padding == "hold")
    assert valid.shape == (1, 6, 32, 56) and valid.mean((0, 2, 3)).tolist() == [1, 1, 1, 1, 0, 0]


def test_cuts_of_one_video_are_all_trained_on_or_all_held_out(tmp_path):
    for name in "abc":
        write_numbered(tmp_path / f"{name}.mp4", 60)
    rows = [f"{name}.mp4,{start},{start + 1}" for name in "abc" for start in range(5)]
    (tmp_path / "list.csv").write_text("path,start,stop\n" + "\n".join(rows))
    modality, files = VideoModality(**{**MODALITY, "num_frames": 5}), {}
    for split in ("train", "held_out"):
        data = ManifestDataset(modality, tmp_path / "list.csv", cut=["start", "stop"], split=split, held_out=0.3)
        files[split] = {data[index].source.partition(" (")[0] for index in range(len(data))}
    assert len(files["held_out"]) == 1 and len(files["train"]) == 2
    assert not files["held_out"] & files["train"]


def test_a_manifest_cuts_a_long_video_and_counts_cuts_that_are_none(tmp_path):
    write_numbered(tmp_path / "long.mp4", 90)
    write_numbered(tmp_path / "other.mp4", 20)
    rows = ["long.mp4,0,2,a", "long.mp4,2,4,b", "long.mp4,8.5,,a", "long.mp4,4,3,a", "long.mp4,0,2,a", "long.mp4,x,2,a"]
    rows += ["long.mp4,9.5,12,a", "long.mp4,5,5.3,a", "long.mp4,5,7,c", "other.mp4,,,b"]
    (tmp_path / "list.csv").write_text("path,start,stop,scene\n" + "\n".join(rows))
    modality = VideoModality(**{**MODALITY, "num_frames": 5})
    parts = [
        ManifestDataset(modality, tmp_path / "list.csv", cut=["start", "stop"], split=split, held_out=0.4)
        for split in ("train", "held_out")
    ]
    assert {reason: count for reason, count in parts[0].rejects.items()} == {
        "cut that ends before it begins": 1,
        "duplicate": 1,
        "cut that is no number of seconds": 1,
        "part beyond the file's end": 1,
        "too short": 1,
    }
    assert parts[0].label_names == {"scene": ("a", "b", "c")}
    assert sorted(map(len, parts)) == [1, 4]  # of one file all parts, of the other the rest
    begun = {}
    for dataset in parts:
        for place in range(len(dataset)):
            example = dataset[place]
            begun[re.sub(".*/", "", example.source)] = numbers(example.sample)[0]
    assert begun == {
        "long.mp4 (0 to 2 s)": 0,
        "long.mp4 (2 to 4 s)": 20,
        "long.mp4 (8.5 to its end)": 85,
        "long.mp4 (5 to 7 s)": 50,
        "other.mp4 (0 to its end)": 0,
    }
    assert parts[0].fingerprint() != parts[1].fingerprint()


def test_a_missing_video_is_named_and_a_folder_of_folders_is_no_video(tmp_path):
    modality = VideoModality()
    with pytest.raises(ValueError, match=r"gone\.mp4 is no file"):
        modality.read(tmp_path / "gone.mp4")
    write_folder(tmp_path / "a" / "b", 3)
    assert modality.is_sample_dir(tmp_path / "a" / "b") and not modality.is_sample_dir(tmp_path / "a")
    write_numbered(tmp_path / "a" / "b" / "c.mp4", 3)
    assert not modality.is_sample_dir(tmp_path / "a" / "b")

"""Frames are read at the times at which they are shown, though containers round, delay or leave out time stamps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from modalities.video import VideoModality, read_metadata
from modalities.video.clock import Clock, standard_rate
from modalities.video.reading import open_footage
from scm_media.modality import Segment
from tests.modalities.video.files import moving, numbered, numbers, write_numbered

RATES = (24, 25, Fraction(30000, 1001), 30, 50, Fraction(60000, 1001), 60)
SOME = (25, Fraction(30000, 1001), 60)
RECIPE_RATES = (8, 10, 12, 15, 24, 25, 30, 50, 60)
NUM = 61


def modality(rate, **keys):
    return VideoModality(num_frames=6, frame_rate=rate, size=[32, 56], **keys)


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "source",
    [rate if rate in SOME else pytest.param(rate, marks=pytest.mark.slow) for rate in RATES],
    ids=lambda rate: f"{float(rate):.2f}",
)
def test_matroska_and_webm_give_the_frames_of_mp4_at_every_rate(tmp_path, source):
    rate = float(source)
    paths = [write_numbered(tmp_path / f"a{suffix}", NUM, rate) for suffix in (".mp4", ".mkv", ".webm", ".avi")]
    rates = set()
    for path in paths:
        with open_footage(path, 8) as footage:
            rates.add(footage.rate)
            assert [time for time, _, _ in footage.frames(0.0)] == pytest.approx([k / rate for k in range(NUM)])
    assert len(rates) == 1 and rates.pop() == pytest.approx(rate, rel=1e-9)
    for wanted in RECIPE_RATES:
        found = [numbers(modality(wanted).read(path)) for path in paths]
        # The last frame that begins no later than half a frame (the file's, or the recipe's) after its time.
        late = Fraction(1, 2) / max(source, wanted)
        num = len(found[0])
        exact = [int((Fraction(place, wanted) + late) * source) for place in range(num)]
        assert found == [exact] * len(paths), f"{rate:.2f} at {wanted}"
        for seed in range(3):
            drawn = [modality(wanted, padding="hold").read_transformed(path, generator(seed)) for path in paths]
            assert len({tuple(numbers(clip)) for clip, _ in drawn}) == 1


def test_a_variable_rate_keeps_its_times():
    clock = Clock(begin=0.067, step=0.001, rate=30.0)
    assert clock.seconds(0.067 + 0.033) == 1 / 30 and clock.seconds(0.067 + 0.0675) == 2 / 30
    assert clock.seconds(0.067 + 0.0365) == pytest.approx(0.0365)  # 3 ms from a whole frame
    coarse = Clock(begin=0.0, step=0.01, rate=100.0)
    assert coarse.seconds(0.034) == pytest.approx(0.034)  # a step is a frame: nothing to be told from rounding


@pytest.mark.parametrize(
    ("rate", "length", "step", "found"),
    [
        (19001 / 317, 1.068, 0.001, 60000 / 1001),
        (29.976, 2.135, 1 / 600, 30000 / 1001),
        (23.976, 5.0, 0.001, 24000 / 1001),
        (12.5, 10.0, 0.001, 12.5),
        (29.9, 10.0, 0.001, 29.9),
        (24.999, 600.0, 0.001, 24.999),
    ],
)
def test_rates_are_standard_only_within_what_rounding_may_change(rate, length, step, found):
    assert standard_rate(rate, length, step) == pytest.approx(found, rel=1e-12)


def gif(path: Path, durations: list[int]) -> Path:
    """Writes frames 0, 1, 2 … as a GIF or a WebP, by the name, each shown for so many milliseconds."""
    first, *rest = [Image.fromarray(numbered(number)) for number in range(len(durations))]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0, **options)
    return path


@pytest.mark.parametrize("delay", [0, 10])
def test_a_gif_that_browsers_slow_down_is_read_as_slowly(tmp_path, delay):
    path = gif(tmp_path / "a.gif", [delay] * 12)
    found = modality(None).measure(path)
    assert found["seconds"] == pytest.approx(1.2) and found["fps"] == pytest.approx(10.0)
    assert numbers(modality(10).read(path)) == list(range(12))
    assert numbers(modality(5).read(path)) == list(range(0, 12, 2))


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_delays_of_a_gif_are_each_as_a_browser_has_it(tmp_path, suffix):
    path = gif(tmp_path / f"a{suffix}", [20, 10, 50, 0, 300, 20, 10])
    with open_footage(path, 10) as footage:
        assert [begin for begin, _, _ in footage.frames(0.0)] == pytest.approx([0, 0.02, 0.12, 0.17, 0.27, 0.57, 0.59])
        assert footage.duration == pytest.approx(0.69) and footage.num_frames == 7
        assert footage.rate == pytest.approx(7 / 0.69)


@pytest.mark.parametrize(
    "rate", [1, 12, 30, *(pytest.param(rate, marks=pytest.mark.slow) for rate in (5, 8, 10, 15, 24, 25, 50))]
)
def test_a_gif_comes_back_at_the_rate_it_was_written_at(tmp_path, rate):
    num = 24
    VideoModality(frame_rate=rate).write(tmp_path / "a.gif", moving(num), {})
    seconds = round(100 * num / rate) / 100
    own = VideoModality(num_frames=num, frame_rate=None, size=32)
    found = own.measure(tmp_path / "a.gif")
    assert found == pytest.approx({"fps": num / seconds, "seconds": seconds})
    assert found["fps"] == pytest.approx(rate, rel=0.005 / seconds + 1e-9)  # half a hundredth in all
    for reader in (own, VideoModality(num_frames=num, frame_rate=rate, size=32)):
        assert (reader.read(tmp_path / "a.gif") - moving(num)).abs().mean() < 0.07


@pytest.mark.parametrize("held", [1, 12, 24])
def test_a_gif_in_which_nothing_moves_for_a_while_has_all_its_frames(tmp_path, held):
    clip = moving(24)
    clip[:, 24 - held :] = clip[:, 24 - held : 25 - held]
    VideoModality(frame_rate=8).write(tmp_path / "a.gif", clip, {"label": "x" * 700})
    reader = VideoModality(num_frames=24, frame_rate=None, size=32)
    reader.validate(tmp_path / "a.gif")
    assert reader.measure(tmp_path / "a.gif") == pytest.approx({"fps": 8, "seconds": 3})
    assert (reader.read(tmp_path / "a.gif") - clip).abs().mean() < 0.07
    assert read_metadata(tmp_path / "a.gif") == {"label": "x" * 700}
    with Image.open(tmp_path / "a.gif") as picture:  # as another reader has it
        assert (picture.n_frames, picture.info["loop"]) == (24, 0)


def hevc_in_avi(path: Path, num: int, options: dict[str, str]) -> Path:
    """Writes frames 0 … num − 1 as HEVC in AVI, which FFmpeg reads and does not write: it is muxed as H.264."""
    encoder = av.CodecContext.create("libx265", "w")
    encoder.height, encoder.width, encoder.pix_fmt = 32, 56, "yuv420p"
    encoder.time_base, encoder.framerate, encoder.options = Fraction(1, 10), Fraction(10), options
    packets = []
    for number in range(num):
        frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 10)
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 56, "yuv420p"
        container.start_encoding()
        for place, packet in enumerate(packets):
            packet.stream, packet.dts, packet.pts, packet.time_base = stream, place, None, Fraction(1, 10)
            container.mux(packet)
    path.write_bytes(path.read_bytes().replace(b"H264", b"HEVC"))
    return path


@pytest.mark.parametrize("open_groups", [False, True])
@pytest.mark.parametrize("name", ["libx264", "libx265", "mpeg1video"])
def test_frames_without_time_stamps_are_all_read_in_their_places(tmp_path, name, open_groups):
    path, num, rate = tmp_path / "a.avi", 50, 25 if name == "mpeg1video" else 10
    groups = f"keyint=12:bframes=3:b-adapt=0:scenecut=0:open-gop={int(open_groups)}"
    if name == "libx265":
        hevc_in_avi(path, num, {"x265-params": f"{groups}:log-level=none"})
    elif name == "libx264":
        write_numbered(path, num, codec=(name, "yuv420p", {"x264-params": groups}))
    else:
        flags = {} if open_groups else {"flags": "+cgop", "sc_threshold": "1000000000"}
        write_numbered(path, num, rate, codec=(name, "yuv420p", {"g": "12", "bf": "2", **flags}))
    with av.open(str(path)) as container:
        stamps = [frame.pts for frame in container.decode(container.streams.video[0])]
    assert len(stamps) == num
    assert stamps != list(range(stamps[0], stamps[0] + num))  # else the file would not show the fault
    reader = modality(rate, window="start")
    assert numbers(reader.read(path)) == list(range(num))
    for first in range(0, num - 6, 5):
        clip, _ = reader.read_transformed(Segment(path, first / rate))
        assert numbers(clip) == list(range(first, first + 6))
    reader.validate(path)
    assert reader.measure(path) == pytest.approx({"fps": rate, "seconds": num / rate})

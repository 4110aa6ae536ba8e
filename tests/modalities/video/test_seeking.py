"""The frames of a clip are those shown at its times: every container, any start, any rate, variable rates, parts."""

from __future__ import annotations

import io

import pytest
import torch

from modalities.video import VideoModality
from modalities.video.reading import open_footage
from modalities.video.timing import find_span, select_frames
from scm_media.modality import Segment
from tests.modalities.video.files import CONTAINERS, numbers, write_folder, write_numbered, write_webp


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=[*CONTAINERS, ".webp", "folder"])
def video(request, tmp_path_factory):
    """Sixty frames that carry their numbers, ten a second."""
    folder = tmp_path_factory.mktemp("videos")
    if request.param == "folder":
        return write_folder(folder / "frames", 60)
    if request.param == ".webp":
        return write_webp(folder / "a.webp", 60, [100] * 60)
    return write_numbered(folder / f"a{request.param}", 60)


def test_a_random_window_is_consecutive_frames_from_any_start(video):
    modality = VideoModality(num_frames=6, frame_rate=10, size=[32, 56])
    begun = set()
    for seed in range(25):
        clip, valid = modality.read_transformed(video, generator(seed))
        assert clip.shape == (3, 6, 32, 56) and valid is None
        found = numbers(clip)
        assert found == list(range(found[0], found[0] + 6))
        begun.add(found[0])
    assert min(begun) < 10 and max(begun) > 44 and len(begun) > 12
    assert max(begun) <= 54


def test_all_of_it_is_read_in_order_and_windows_lie_where_they_are_wanted(video):
    whole = VideoModality(num_frames=6, frame_rate=10, size=[32, 56])
    assert numbers(whole.read(video)) == numbers(whole.read_whole(video)) == list(range(60))
    assert numbers(whole.read_transformed(video)[0]) == list(range(27, 33))
    start = VideoModality(num_frames=6, frame_rate=10, size=[32, 56], window="start")
    assert numbers(start.read_transformed(video, generator())[0]) == list(range(6))
    found = start.measure(video)
    assert found["fps"] == pytest.approx(10, rel=0.01)
    assert found["seconds"] == pytest.approx(6, abs=0.011)


def test_other_rates_take_the_frames_that_are_shown_then(video):
    slower = VideoModality(num_frames=8, frame_rate=2.5, size=[32, 56], window="start", folder_rate=10)
    assert numbers(slower.read_transformed(video)[0]) == list(range(0, 32, 4))
    faster = VideoModality(num_frames=8, frame_rate=20, size=[32, 56], window="start", folder_rate=10)
    found = numbers(faster.read_transformed(video)[0])
    assert found == sorted(found) and set(found) == {0, 1, 2, 3, 4} - ({4} if found[-1] == 3 else set())
    assert faster.measure(video)["fps"] == pytest.approx(10, rel=0.01)
    own = VideoModality(num_frames=5, frame_rate=None, size=[32, 56], folder_rate=10)
    assert numbers(own.read_transformed(video)[0]) == list(range(27, 32))


def test_a_part_holds_no_frame_of_another(video):
    modality = VideoModality(num_frames=6, frame_rate=10, size=[32, 56])
    part = Segment(video, 2.0, 3.0)
    seen = set()
    for seed in range(12):
        seen |= set(numbers(modality.read_transformed(part, generator(seed))[0]))
    assert seen == set(range(20, 30))
    modality.validate(part)
    assert modality.measure(part)["seconds"] == 1
    assert numbers(modality.read_transformed(Segment(video, 5.4), generator())[0]) == list(range(54, 60))
    with pytest.raises(ValueError, match=r"has 5 frames at 10 a second .*expected at least 6") as caught:
        modality.validate(Segment(video, 2.0, 2.5))
    assert caught.value.reason == "too short"
    for start, stop in ((7, 8), (5, 9)):
        with pytest.raises(ValueError, match=r"is not within the file, which ends after (6\.00|5\.99)") as caught:
            modality.read_transformed(Segment(video, start, stop))
        assert caught.value.reason == "part beyond the file's end"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".webp"])
def test_variable_rates_are_read_by_their_time_stamps(tmp_path, suffix):
    lengths = [0.04, 0.5, 0.04, 0.04, 1.0, 0.1, 0.1, 0.3, 0.04, 0.7, 0.2, 0.04] * 4
    begins = [round(sum(lengths[:place]), 3) for place in range(len(lengths))]
    path = tmp_path / f"a{suffix}"
    if suffix == ".webp":
        write_webp(path, len(lengths), [round(1000 * length) for length in lengths])
    else:
        write_numbered(path, len(lengths), 25, times=begins)

    def shown(time):
        return max(place for place, begin in enumerate(begins) if begin <= time + 1e-6)

    with open_footage(path, 8) as footage:
        span = find_span(footage, 8)
        assert span.stop == pytest.approx(sum(lengths), abs=0.2)
        for first in (0.0, 1.3, 2.75, 6.0, 9.125):
            times = span.times(first, 12)
            pictures = select_frames(footage, times, span.tolerance)
            clip = [
                torch.from_numpy(picture.pixels(32, 56, 3, -1.0).copy())
                for num, picture in pictures
                for _ in range(num)
            ]
            found = numbers(torch.stack(clip).permute(3, 0, 1, 2).float() / 127.5 - 1)
            assert found == [shown(time + span.tolerance) for time in times]


def test_what_lies_in_memory_is_read_as_what_lies_on_a_disk(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 30)
    content = io.BytesIO(path.read_bytes())
    content.name = "shard.tar#a.mp4"
    modality = VideoModality(num_frames=6, frame_rate=10, size=32)
    assert torch.equal(
        modality.read_transformed(content, generator(3))[0], modality.read_transformed(path, generator(3))[0]
    )
    assert torch.equal(modality.decode(path.read_bytes(), "a.mp4"), modality.read(path))
    with pytest.raises(ValueError, match=r"shard\.tar#b\.mp4 cannot be decoded as a video"):
        modality.decode(b"nothing of the kind" * 99, "shard.tar#b.mp4")

"""What a proposal takes from the lengths of videos: clips that would be too short are not left out in numbers."""

from __future__ import annotations

import pytest

from modalities.video import VideoModality
from tests.modalities.video.files import write_numbered


@pytest.mark.parametrize(
    ("lengths", "padding"),
    [([40] * 10, "refuse"), ([40] * 10 + [4], "refuse"), ([40] * 6 + [4] * 2, "hold"), ([8] * 4, "hold")],
)
def test_short_videos_are_held_where_there_are_more_than_a_few(tmp_path, lengths, padding):
    paths = [write_numbered(tmp_path / f"{number}.avi", num) for number, num in enumerate(lengths)]
    keys, seen = VideoModality.suggest_config(paths)
    assert keys["padding"] == padding
    short = sum(num / 10 * keys["frame_rate"] < 15.5 for num in lengths)
    assert (f"; {short} are shorter than a clip, and repeat their last frame" in seen) == (padding == "hold")

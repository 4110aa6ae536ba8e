"""Where windows lie: they cover what is unknown, know enough of what was made, and never leave the clip."""

from __future__ import annotations

import pytest
import torch

from scm_media.pipeline.edits import InpaintingInput
from scm_media.pipeline.windows import empty_input, overlap_length, plan_windows, window_length, window_starts
from tests.pipeline.waves import WINDOW, WaveModality

WAVES = WaveModality()


def unknown(size: int, *spans: tuple[int, int]) -> torch.Tensor:
    flags = torch.zeros(size, dtype=torch.bool)
    for first, last in spans:
        flags[first:last] = True
    return flags


@pytest.mark.parametrize("size", [33, 56, 57, 100, 1000])
@pytest.mark.parametrize("kept", [0, 5, 31])
def test_windows_over_a_long_stretch_cover_it_and_know_the_overlap(size, kept):
    starts = window_starts(unknown(size, (kept, size)), window=32, overlap=8)
    made = kept
    for start in starts:
        assert 0 <= start <= size - 32
        assert start == 0 or made - start >= min(8, made), "at least the overlap is known"
        assert start + 32 > made, "every window makes something"
        made = start + 32
    assert made == size
    assert len(starts) <= -(-(size - 32) // 24) + 1, "and there are no more of them than it takes"


def test_a_short_gap_lies_in_the_middle_of_one_window():
    assert window_starts(unknown(100, (50, 60)), window=32, overlap=8) == [39]
    assert window_starts(unknown(100, (0, 10)), window=32, overlap=8) == [0]
    assert window_starts(unknown(100, (95, 100)), window=32, overlap=8) == [68]
    assert window_starts(unknown(20, (4, 9)), window=32, overlap=8) == [0], "a clip shorter than a window"


def test_a_long_gap_ends_in_what_is_known_after_it():
    starts = window_starts(unknown(200, (60, 140)), window=32, overlap=8)
    assert starts[0] == 52
    assert starts[-1] + 32 == 148


def test_only_what_is_longer_than_a_window_is_drawn_in_several():
    assert window_length(WAVES, {}) == WINDOW
    assert empty_input(WAVES, {"duration": 2.0}) is None
    given = empty_input(WAVES, {"duration": 5.0})
    assert given is not None
    assert (given.sample.shape, given.mask.sum(), given.axis) == ((1, 80), 0, -1)
    assert empty_input(WaveModality(longest=None), {"duration": 50.0}) is None
    assert plan_windows(InpaintingInput.empty((1, 80), -1), WaveModality(longest=None), None, {}) is None


def test_the_overlap_is_a_quarter_of_a_window_unless_told():
    assert overlap_length(WAVES, WINDOW, None) == 8
    assert overlap_length(WAVES, WINDOW, 0.25) == 4
    for wrong in (0.0, 1.5, -1.0):
        with pytest.raises(ValueError, match=rf"overlap must be above 0 and at most 1 s, .*got {wrong:g}"):
            overlap_length(WAVES, WINDOW, wrong)
    for modality, sizes in ((WAVES, {}), (WaveModality(longest=None), {"duration": 9.0})):
        with pytest.raises(ValueError, match=r"overlap 0.5 joins nothing.*leave it out"):
            plan_windows(empty_input(modality, sizes), modality, 0.5, sizes)

"""Joining what is kept and what was made, and what stands in for what is not known: against arithmetic by hand."""

from __future__ import annotations

import pytest
import torch

from scm_media.pipeline.blending import crossfade, fill_missing, find_runs
from tests.pipeline.waves import FadingWaveModality, WaveModality


def line(*values: float) -> torch.Tensor:
    return torch.tensor([[values]], dtype=torch.float32)


def test_runs_are_stretches_of_true():
    assert find_runs(torch.tensor([1, 1, 0, 0, 1]).bool()) == [(0, 2), (4, 5)]
    assert find_runs(torch.zeros(3).bool()) == []


def test_without_a_blend_of_its_own_each_place_is_the_one_or_the_other():
    known, made, mask = line(1, 2, 3, 4), line(5, 6, 7, 8), line(1, 0, 0, 1)
    assert WaveModality().blend(known, made, mask).tolist() == [[[1, 6, 7, 4]]]
    assert FadingWaveModality().blend(known, made, line(1, 1, 1, 1)).tolist() == known.tolist()


def test_a_cross_fade_keeps_all_but_the_last_places_before_a_border():
    known, made = torch.ones(1, 2, 8), torch.zeros(1, 2, 8)
    faded = crossfade(known, made, line(1, 1, 1, 1, 1, 0, 0, 0), length=3)
    assert torch.allclose(faded[0, 1], torch.tensor([1, 1, 0.75, 0.5, 0.25, 0, 0, 0]))
    both = crossfade(known, made, line(1, 1, 1, 0, 0, 1, 1, 1), length=1)
    assert torch.allclose(both[0, 0], torch.tensor([1, 1, 0.5, 0, 0, 0.5, 1, 1]))
    assert torch.equal(crossfade(known, made, line(*[1] * 8), length=3), known), "the clip's own ends are no borders"
    assert torch.equal(crossfade(known, made, line(*[0] * 8), length=3), made)
    with pytest.raises(ValueError, match="at least 0"):
        crossfade(known, made, line(*[1] * 8), length=-1)


def test_a_cross_fade_runs_along_the_axis_that_it_is_told():
    mask = torch.zeros(1, 1, 4, 2)
    mask[:, :, :2] = 1
    faded = crossfade(torch.ones(1, 1, 4, 2), torch.zeros(1, 1, 4, 2), mask, length=1, axis=-2)
    assert faded[0, 0].tolist() == [[1, 1], [0.5, 0.5], [0, 0], [0, 0]]


def test_equal_signals_stay_as_they_are_in_a_cross_fade():
    wave = torch.sin(torch.arange(16.0))[None, None]
    mask = (torch.arange(16) < 9).float()[None, None]
    assert torch.allclose(crossfade(wave, wave, mask, length=5), wave, atol=1e-7)


def test_what_is_known_is_mirrored_at_its_borders():
    sample = line(1, 2, 3, 0, 0, 0, 0, 0, 8, 9)
    mask = line(1, 1, 1, 0, 0, 0, 0, 0, 1, 1)
    assert fill_missing(sample, mask, axis=-1).tolist() == line(1, 2, 3, 2, 1, 2, 8, 9, 8, 9).tolist()
    assert fill_missing(line(0, 0, 5), line(0, 0, 1), axis=-1).tolist() == line(5, 5, 5).tolist()


def test_without_one_axis_it_is_surrounded_by_its_mean():
    sample = torch.arange(8.0).reshape(1, 2, 2, 2)
    mask = torch.tensor([[1.0, 0.0], [1.0, 1.0]])[None, None]
    for axis in (None, -1):
        around = fill_missing(sample, mask, axis)
        assert around[0, :, 0, 1].tolist() == pytest.approx([(0 + 2 + 3) / 3, (4 + 6 + 7) / 3])
        assert torch.equal(torch.where(mask > 0, around, 0), torch.where(mask > 0, sample, 0))

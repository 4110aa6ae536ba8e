"""The tasks of an edit: where the kept part lies, in positions; and what is refused, in the user's unit."""

from __future__ import annotations

import pytest
import torch

from scm_media.modality import SizeOption
from scm_media.pipeline import EditRequest
from scm_media.pipeline.edit_inputs import prepare_input, read_source
from scm_media.pipeline.edits import TASKS, EditPlan, find_task
from tests.pipeline.waves import WaveModality

WAVES = WaveModality()
RAMP = torch.arange(1.0, 41.0)[None] / 100
"""A wave (1, 40) whose value number k, counted from 1, is k / 100."""


def prepare(task, source, **arguments):
    """Returns the input of an edit of waves."""
    return prepare_input(WAVES, EditRequest.from_arguments(task, source, 1, None, arguments))


def kept_values(given) -> dict[int, float]:
    """Returns position to the value that is given there."""
    positions = torch.nonzero(given.mask[0]).flatten().tolist()
    return {position: round(100 * given.sample[0, position].item()) for position in positions}


@pytest.mark.parametrize(
    ("task", "keep", "expected"),
    [
        ("continue", 0.25, {0: 37, 1: 38, 2: 39, 3: 40}),
        ("prepend", 0.25, {28: 1, 29: 2, 30: 3, 31: 4}),
        ("interpolate", 0.125, {0: 1, 1: 2, 30: 39, 31: 40}),
    ],
)
def test_what_is_kept_lies_where_the_task_has_it(task, keep, expected):
    given = prepare(task, RAMP, keep=keep)
    assert given.sample.shape == (1, 32)
    assert kept_values(given) == expected
    assert given.axis == -1


@pytest.mark.parametrize(("task", "kept"), [("continue", 16), ("prepend", 16), ("interpolate", 2 * 8)])
def test_without_a_word_half_of_the_clip_is_kept(task, kept):
    assert prepare(task, RAMP).mask.sum() == kept
    assert prepare(task, RAMP[:, :3]).mask.sum() == (3 if task != "interpolate" else 2)


def test_a_clip_may_be_as_long_as_it_is_asked_for():
    given = prepare("continue", RAMP, keep=2.5, duration=6)
    assert given.sample.shape == (1, 96)
    assert torch.equal(given.sample[:, :40], RAMP)


def test_one_frame_is_set_in_motion():
    frames = SizeOption(8, "frames", "how many", axis=-3)
    clip = torch.randn(3, 5, 4, 4)
    given = TASKS["animate"](clip, EditPlan(frames, own_length=8))
    assert given.sample.shape == (3, 8, 4, 4)
    assert torch.equal(given.sample[:, 0], clip[:, 0])
    assert given.mask[0, :, 0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert TASKS["animate"](clip, EditPlan(frames, own_length=8, keep=2)).mask[0, :, 0, 0].sum() == 2
    with pytest.raises(ValueError, match="this modality has no frames; use --task continue"):
        prepare("animate", RAMP)


def test_a_window_along_the_extent_or_along_every_axis_is_made_anew():
    given = prepare("inpaint", RAMP, region=[0.5, 1.0])
    assert torch.nonzero(given.mask[0] == 0).flatten().tolist() == list(range(8, 16))
    assert torch.equal(given.sample, RAMP)
    frames = SizeOption(8, "frames", "how many", axis=-3)
    plan = EditPlan(frames, own_length=8, region=((2, 3), (0, 2), (1, 4)))
    mask = TASKS["inpaint"](torch.randn(3, 5, 4, 4), plan).mask
    assert mask.shape == (1, 5, 4, 4)
    assert (mask == 0).sum() == 1 * 2 * 3
    assert mask[0, 2, :2, 1:].sum() == 0


def test_a_mask_marks_what_is_made_anew():
    marked = torch.full((1, 40), -1.0)
    marked[:, 10:12] = 1.0
    given = prepare("inpaint", RAMP, mask=marked)
    assert torch.nonzero(given.mask[0] == 0).flatten().tolist() == [10, 11]


def test_a_measure_that_ends_a_place_past_the_end_by_rounding_ends_there():
    sample = torch.zeros(1, 25)
    assert prepare("inpaint", sample, region=[1.0, 1.6]).mask.sum() == 16
    with pytest.raises(ValueError, match=r"FIRST LAST with 0 ≤ FIRST < LAST ≤ 25 positions.*got 16 27"):
        prepare("inpaint", sample, region=[1.0, 1.7])


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("contine", {}, r"no task 'contine'; there are: continue, prepend, interpolate, animate, inpaint"),
        ("continue", {"keep": 0.0}, r"keep must be above 0 and at most 1.9375 s, so that .* something new; got 0 s"),
        ("continue", {"keep": -1.0}, "got -1 s"),
        ("continue", {"keep": 2.0}, r"at most 1.9375 s, so that the sample has something new; got 2 s"),
        ("continue", {"keep": 3.0, "duration": 6}, r"at most 2.5 s, all that the input has; got 3 s"),
        ("continue", {"keep": float("nan")}, "keep must be a number of s, got nan"),
        ("interpolate", {"keep": 1.0}, r"at most 0.9375 s at each end"),
        ("continue", {"region": [0.0, 1.0]}, "a region goes with inpaint"),
        ("continue", {"mask": RAMP}, "a mask goes with inpaint"),
        ("continue", {"size": 3}, "waves have no size"),
        ("inpaint", {}, "give --region or --mask, and not both"),
        ("inpaint", {"region": [0.0, 1.0], "mask": RAMP}, "and not both"),
        ("inpaint", {"region": [1.0, 0.5]}, r"with 0 ≤ FIRST < LAST ≤ 40 positions of the input, got 16 8"),
        ("inpaint", {"region": [1.0]}, r"two numbers in s, or first and last index along each axis \(2 numbers"),
        ("inpaint", {"region": [1.0, 2.0, 3.0, 4.0]}, "got 4"),
        ("inpaint", {"region": [0.0, 1.0], "keep": 0.5}, "inpaint keeps all of the input but"),
        ("inpaint", {"region": [0.0, 1.0], "duration": 2}, "inpaint keeps all of the input but"),
        ("inpaint", {"mask": torch.full((1, 40), -1.0)}, "marks nothing to be made anew"),
        ("inpaint", {"mask": torch.ones(1, 30)}, r"the mask is 30 and the input 40: give a mask of the input's size"),
    ],
)
def test_what_a_task_cannot_do_is_refused(task, arguments, message):
    with pytest.raises(ValueError, match=message):
        prepare(task, RAMP, **arguments)


def test_every_task_of_the_list_is_found():
    assert [find_task(name) for name in TASKS] == list(TASKS.values())


class Resampling(WaveModality):
    """A modality whose files are to be read in a way of their own for edits."""

    def read_whole(self, path):
        return self.read(path)[:, ::2]


def test_files_are_read_whole_as_the_modality_has_it(tmp_path):
    path = tmp_path / "ramp.txt"
    WAVES.write(path, RAMP, {})
    assert torch.allclose(read_source(WAVES, path), RAMP), "not cut to the model's length"
    assert torch.allclose(read_source(Resampling(), path), RAMP[:, ::2])


def test_samples_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the given sample is a sample of 2×40, but the model takes 1×40"):
        read_source(WAVES, torch.zeros(2, 40))
    with pytest.raises(ValueError, match=r"the given sample is a sample of 40, but the model takes 1×32"):
        read_source(WAVES, torch.zeros(40))
    with pytest.raises(ValueError, match="the given sample is empty"):
        read_source(WAVES, torch.zeros(1, 0))
    with pytest.raises(ValueError, match="not finite"):
        read_source(WAVES, torch.full((1, 8), torch.nan))
    with pytest.raises(ValueError, match=r"missing.txt: expected one number a line"):
        read_source(WAVES, tmp_path / "missing.txt")

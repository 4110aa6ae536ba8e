"""Labels: as users write them, and drawn."""

from __future__ import annotations

import math

import pytest
import torch

from scm_media.pipeline.labels import LabelSet

NOTES = LabelSet({"family": ("guitar", "bass drum"), "pitch": ()}, {"family": (3, 1)})


def test_draws_follow_the_counts_in_every_run_of_clips():
    labels = LabelSet({"class": ("a", "b", "c")}, {"class": (6, 3, 1)})
    for first in (0, 137):
        drawn = [labels.resolve(None, 5, first + k)["class"] for k in range(1000)]
        for name, expected in zip("abc", (600, 300, 100), strict=True):
            assert abs(drawn.count(name) - expected) <= 5
    assert drawn == [labels.resolve(None, 5, 137 + k)["class"] for k in range(1000)]


def test_draws_of_two_labels_are_independent():
    labels = LabelSet({"x": ("a", "b"), "y": ("c", "d")}, {"x": (1, 1), "y": (1, 1)})
    drawn = [tuple(labels.resolve(None, 0, k).values()) for k in range(2000)]
    assert all(abs(drawn.count(pair) - 500) < 60 for pair in set(drawn))
    assert len(set(drawn)) == 4


@pytest.mark.parametrize(
    "written", ["family=bass drum pitch=60", "pitch = 60, family=Bass Drum", {"family": "bass drum", "pitch": 60}]
)
def test_pairs_are_understood_in_any_order(written):
    assert NOTES.resolve(written, 0, 0) == {"family": "bass drum", "pitch": 60.0}


def test_what_is_not_given_is_drawn_or_left_out():
    assert NOTES.resolve("bass drum", 0, 0) == {"family": "bass drum"}
    assert NOTES.resolve("pitch=60", 0, 0)["pitch"] == 60
    cond = NOTES.conditioning([{"family": "bass drum"}, {"family": "guitar", "pitch": 61.5}])
    assert cond.labels["family"].tolist() == [1, 0]
    assert math.isnan(cond.labels["pitch"][0])
    assert cond.labels["pitch"].dtype == torch.float32


def test_unknown_labels_tell_what_is_known():
    with pytest.raises(ValueError, match=r"no label 'piano'; it knows family: guitar, bass drum; pitch: a number"):
        NOTES.parse("piano")
    with pytest.raises(ValueError, match="label pitch is a number, got 'high'"):
        NOTES.parse("pitch=high")
    with pytest.raises(ValueError, match="trained without labels, got label 'Bag'"):
        LabelSet({}, {}).parse("Bag")

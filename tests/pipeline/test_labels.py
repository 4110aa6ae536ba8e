"""Labels: as users write them, and drawn."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import pytest
import torch

from scm_media.pipeline.labels import LabelSet, SampleLabels, format_combinations
from tests.pipeline.tiny import DESCRIPTION

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


def test_classes_are_drawn_as_the_data_have_them_together():
    names = {"family": ("bass", "pipe"), "pitch": ("28", "60", "96"), "velocity": ()}
    labels = LabelSet(
        names,
        {"family": (4, 4), "pitch": (3, 2, 3)},
        combinations={(0, 0): 3, (0, 1): 1, (1, 1): 1, (1, 2): 3},
        quantiles={"velocity": (32.0, 80.0, 128.0)},
    )
    drawn = [labels.resolve(None, 2, k) for k in range(800)]
    pairs = [(found["family"], found["pitch"]) for found in drawn]
    assert {pair: round(pairs.count(pair) / 100) for pair in set(pairs)} == {
        ("bass", "28"): 3,
        ("bass", "60"): 1,
        ("pipe", "60"): 1,
        ("pipe", "96"): 3,
    }
    velocities = sorted(found["velocity"] for found in drawn)
    assert velocities[0] == pytest.approx(32, abs=1)
    assert velocities[400] == pytest.approx(80, abs=1)
    assert velocities[-1] == pytest.approx(128, abs=1)
    of_pipes = [labels.resolve("pipe", 2, k)["pitch"] for k in range(400)]
    assert of_pipes.count("28") == 0
    assert of_pipes.count("96") == pytest.approx(300, abs=4)
    # A combination that the data never have is made as it is asked for.
    never = labels.resolve("family=pipe pitch=28 velocity=100", 2, 0)
    assert never == {"family": "pipe", "pitch": "28", "velocity": 100.0}


def test_a_number_outside_of_what_was_learned_is_refused():
    labels = LabelSet({"velocity": ()}, {}, quantiles={"velocity": (32.0, 127.0)})
    assert labels.parse("velocity=127") == {"velocity": 127.0}
    with pytest.raises(
        ValueError, match=r"label velocity must lie in 32 … 127, what the model was trained on; got 500"
    ):
        labels.parse("velocity=500")


def test_labels_have_the_combinations_and_quantiles_of_the_description():
    combinations = {(1, 0): 2, (0, 12): 5}
    assert format_combinations(combinations) == ["0 12 5", "1 0 2"]
    description = replace(
        DESCRIPTION,
        labels={"a": ["x", "y"], "b": [], "c": [str(number) for number in range(13)]},
        label_counts={},
        label_combinations=format_combinations(combinations),
        label_quantiles={"b": [0.0, 1.0]},
    )
    labels = LabelSet.from_description(description)
    assert labels.combinations == combinations
    assert labels.quantiles == {"b": [0.0, 1.0]}


def test_unknown_labels_tell_what_is_known():
    with pytest.raises(ValueError, match=r"no label 'piano'; it knows family: guitar, bass drum; pitch: a number"):
        NOTES.parse("piano")
    with pytest.raises(ValueError, match="label pitch is a number, got 'high'"):
        NOTES.parse("pitch=high")
    with pytest.raises(ValueError, match="trained without labels, got label 'Bag'"):
        LabelSet({}, {}).parse("Bag")


CASES = LabelSet({"animal": ("Cat", "cat", "Dog", "DOG", "emu")}, {})


def test_a_class_as_it_is_written_comes_before_one_in_other_letters():
    assert CASES.parse("cat") == {"animal": "cat"}
    assert CASES.parse("Cat") == {"animal": "Cat"}
    assert CASES.parse("animal=DOG") == {"animal": "DOG"}
    assert CASES.parse({"animal": "EMU"}) == {"animal": "emu"}


@pytest.mark.parametrize("written", ["CAT", "animal=CAT", {"animal": "CAT"}])
def test_a_class_that_could_be_several_is_refused_by_name(written):
    with pytest.raises(ValueError, match=r"label animal=CAT could be Cat or cat: write it as it is spelled there"):
        CASES.parse(written)


def test_a_class_of_two_labels_is_refused_by_name():
    labels = LabelSet({"near": ("yes", "no"), "loud": ("no", "Yes")}, {})
    with pytest.raises(ValueError, match=r"'no' is a class of near and of loud: say which, for example near=no"):
        labels.parse("no")
    assert labels.parse("yes") == {"near": "yes"}, "as it is written"
    assert labels.parse({"loud": "no", "near": True} | {"near": "no"}) == {"loud": "no", "near": "no"}


@pytest.mark.parametrize("known", ["caf\u00e9", "cafe\u0301"])
def test_both_forms_of_unicode_mean_one_class(known):
    labels = LabelSet({"kind": (known, "tea")}, {})
    for written in ("caf\u00e9", "cafe\u0301", "CAFE\u0301", "kind=cafe\u0301"):
        assert labels.parse(written) == {"kind": known}


def test_names_that_are_not_utf_8_are_found_as_bytes_and_as_they_are_printed():
    labels = LabelSet({"kind": (r"caf\xe9", "tea")}, {})
    for written in (os.fsdecode(b"caf\xe9"), r"caf\xe9"):
        assert labels.parse(written) == {"kind": r"caf\xe9"}


def test_values_that_are_no_words_mean_the_class_that_data_make_of_them():
    labels = LabelSet({"on": ("false", "true"), "size": ("1", "2")}, {})
    assert labels.parse({"on": True, "size": 1.0}) == {"on": "true", "size": "1"}


def test_a_number_is_one_label_for_all_samples():
    labels = LabelSet({"size": ("1", "2")}, {})
    assert SampleLabels(labels, 2, 0, range(3), draw=False)[:] == [{"size": "2"}] * 3
    assert SampleLabels(labels, [2, 1], 0, range(2), draw=False)[:] == [{"size": "2"}, {"size": "1"}]
    with pytest.raises(ValueError, match="3"):
        SampleLabels(labels, 3, 0, range(2), draw=False)

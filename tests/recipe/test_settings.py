"""Settings: a value of another type or out of its bounds is refused by its key, with what was expected."""

from __future__ import annotations

import copy
import functools
import math
import operator
from dataclasses import is_dataclass

import pytest

from scm_media import recipe
from scm_media.bounds import Bounds
from scm_media.build import PartOf
from scm_media.parts import PARAMETERS
from scm_media.settings import Recipe, check
from scm_media.typed import hints_of, metadata, unwrap

WRONG = [
    (f"seed={2**64}", "seed must be at most 9223372036854775807, got 18446744073709551616"),
    ("seed=-1", "seed must be at least 0, got -1"),
    ("seed=1.5", "seed must be a whole number, got 1.5"),
    ("teacher.optimizer.lr=high", "teacher.optimizer.lr must be a number, got 'high'"),
    (f"teacher.optimizer.lr={10**400}", "teacher.optimizer.lr must be at most 1000, got 1000000"),
    ("teacher.optimizer.lr=-1", "teacher.optimizer.lr must be at least 0, got -1"),
    ("teacher.optimizer.lr=nan", "teacher.optimizer.lr must be finite, at least 0"),
    ("student.optimizer.lr=inf", "student.optimizer.lr must be finite"),
    ("teacher.optimizer.betas=[0.9,2]", "teacher.optimizer.betas must be below 1, got 2"),
    ("feature_extractor.optimizer.lr=x", "feature_extractor.optimizer.lr must be a number"),
    ("backbone.width=high", "backbone.width must be a whole number, got 'high'"),
    ("backbone.depth=-1", "backbone.depth must be at least 0, got -1"),
    ("modality.size=nan", "modality.size must be a whole number, got nan"),
    ("modality.size=1000000000", "modality.size must be at most 65536"),
    ("modality.flip=maybe", "modality.flip must be true or false, got 'maybe'"),
    ("modality.channels=null", "modality.channels must be a whole number, got null"),
    ("data.held_out=2", "data.held_out must be below 1, got 2"),
    ("data.num=x", "data.num must be a whole number, got 'x'"),
    ("flow.sigma_data=nan", "flow.sigma_data must be finite, above 0"),
    ("flow.sigma_data=wide", "flow.sigma_data must be a number, got 'wide'"),
    ("student.loss.label_dropout=2", "student.loss.label_dropout must be at most 1"),
    ("student.loss.timesteps.std=0", "student.loss.timesteps.std must be above 0"),
    ("student.loss.tangent_method=foo", "must be one of one_pass, forward, finite_difference, got 'foo'"),
    ("trainer.gradient_clip=nan", "trainer.gradient_clip must be finite"),
    ("trainer.num_workers=-1", "trainer.num_workers must be at least 0"),
    ("trainer.sample_early=[1,x]", "trainer.sample_early must be a list with each entry a whole number"),
    ("trainer.sample_early=5", "trainer.sample_early must be a list with each entry a whole number, got 5"),
    ("teacher.ema_std=3", "teacher.ema_std must be at most 0.2887, got 3"),
    ("teacher.decay_steps=x", "teacher.decay_steps must be a whole number or null, got 'x'"),
    ("teacher.max_steps=1000000000000", "teacher.max_steps must be at most 1000000000"),
    ("sampler.steps=1000000000", "sampler.steps must be at most 10000"),
    ("sampler.sigma_max=inf", "sampler.sigma_max must be finite"),
    ("sampler.times=[1]", "sampler.times must be steps to as many times in radians"),
    ("+student.loss.timesteps.shift=nan", "student.loss.timesteps.shift must be a finite number, got nan"),
]


@pytest.mark.parametrize(("override", "expected"), WRONG, ids=[override for override, _ in WRONG])
def test_a_value_of_another_kind_or_out_of_its_range_is_named_with_what_was_expected(override, expected):
    with pytest.raises(ValueError) as error:
        recipe.compose("image/tiny", [override])
    assert expected in str(error.value)


def test_the_largest_seed_and_null_where_training_fills_in_are_taken():
    config = recipe.compose("image/tiny", [f"seed={2**63 - 1}"])
    assert config["seed"] == 2**63 - 1
    assert config["backbone"]["in_channels"] is None


@pytest.mark.parametrize("name", ["audio/tiny", "video/scenes-actions", "image/imagenet64-s", "audio/fullband"])
def test_shipped_recipes_lie_within_the_ranges(name):
    assert recipe.compose(name, ["++data.root=x"])["recipe"] == name


def test_every_number_of_a_known_name_is_looked_at_in_every_part():
    bounded = {name: extra[0] for name, extra in PARAMETERS.items() if isinstance(extra[0], Bounds)}
    for name, bounds in bounded.items():
        wrong = bounds.low - 1 if bounds.low > -float("inf") else float("nan")
        assert PartOf("data").problem({"b": {name: [wrong]}}, "a").startswith(f"a.b.{name} must be ")


def outside(bounds: Bounds) -> list[tuple[float, str]]:
    """Returns the nearest number beyond each end, or an open end itself, with what is expected instead."""
    low = (bounds.low, "above") if bounds.open_low else (bounds.low - 1, "at least")
    high = (bounds.high, "below") if bounds.open_high else (bounds.high + 1, "at most")
    return [end for end in (low, high) if math.isfinite(end[0])]


def test_every_setting_with_bounds_refuses_what_lies_outside():
    """Each bound of the dataclasses is reached from a whole recipe."""
    config, seen = recipe.compose("image/fashion-latent"), set()

    def walk(section, values, path):
        for key, hint in hints_of(section).items():
            kind = unwrap(hint)[1]
            if is_dataclass(kind):
                walk(kind, values[key], (*path, key))
            for bounds, (wrong, expected) in ((each, end) for each in metadata(hint, Bounds) for end in outside(each)):
                value = {2: [wrong]} if key == "times" else [wrong] if "Sequence" in str(kind) else wrong
                broken = copy.deepcopy(config)
                functools.reduce(operator.getitem, path, broken)[key] = value
                with pytest.raises(ValueError, match=rf"^{'.'.join((*path, key))}\S* must be {expected}"):
                    check(broken)
                seen.add((*path, key, expected))
                assert bounds.complaint(wrong)

    walk(Recipe, config, ())
    assert len(seen) >= 70


def test_a_part_is_checked_in_parts_and_lists_and_targets_that_are_not_allowed_are_left_to_the_builder():
    part = {"_target_": "scm_media.timesteps.LogNormalTimesteps", "mean": 0.0, "std": "wide"}
    found = PartOf("loss").problem({"loss": [{"inner": part}]}, "teacher")
    assert found == "teacher.loss[0].inner.std must be a number, got 'wide'"
    assert PartOf("loss").problem({"_target_": "os.system", "command": 5}, "teacher") is None

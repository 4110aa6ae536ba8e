"""The order of examples: a pure function that leaves none out."""

from __future__ import annotations

from collections import Counter

import pytest

from scm_media.data.order import Division, select
from scm_media.seeds import mix


def part(step: int, batch_size: int, place: int = 0, num_places: int = 1) -> range:
    """Returns the part of the order that a place has in a step."""
    own = Division(place, num_places).part(batch_size, 0)
    return range(step * batch_size + own.start, step * batch_size + own.stop)


def indices(*arguments, **keywords):
    return [index for _, index in select(*arguments, **keywords)]


@pytest.mark.parametrize(("batch_size", "world"), [(1, 1), (4, 2), (7, 3), (40, 1)])
def test_each_epoch_shows_every_example_once(batch_size, world):
    num, num_steps = 17, 60
    seen = [
        pair
        for step in range(num_steps)
        for place in range(world)
        for pair in select(part(step, batch_size * world, place, world), num, seed=3)
    ]
    epochs = [seen[start : start + num] for start in range(0, len(seen) - num, num)]
    assert len(epochs) >= 3
    for number, epoch in enumerate(epochs):
        assert {pair[0] for pair in epoch} == {number}
        assert sorted(index for _, index in epoch) == list(range(num))
    orders = {tuple(index for _, index in epoch) for epoch in epochs}
    assert len(orders) == len(epochs), "epochs must differ in order"


def test_ranks_of_an_epoch_are_disjoint():
    first, second = (
        [index for step in range(5) for index in indices(part(step, 20, place, 2), 100, seed=0)] for place in (0, 1)
    )
    assert not set(first) & set(second)
    assert len(set(first) | set(second)) == 100


def test_two_ranks_share_the_batch_that_one_rank_of_twice_the_size_has():
    for step in (0, 3, 11):
        halves = [indices(part(step, 16, place, 2), 50, seed=1) for place in (0, 1)]
        assert halves[0] + halves[1] == indices(part(step, 16), 50, seed=1)


def test_order_depends_on_the_seed_and_on_nothing_else():
    assert indices(part(4, 32), 1000, seed=5) == indices(part(4, 32), 1000, seed=5)
    assert indices(part(4, 32), 1000, seed=5) != indices(part(4, 32), 1000, seed=6)


def test_first_places_are_spread_evenly():
    counts = Counter(indices(range(1), 4, seed)[0] for seed in range(2000))
    assert all(abs(counts[index] - 500) < 100 for index in range(4))


def test_mix_keeps_its_numbers_apart():
    seeds = {mix(a, b, c) for a in range(20) for b in range(20) for c in range(20)}
    assert len(seeds) == 8000
    assert mix(1, 2) != mix(2, 1)
    assert all(0 <= seed < 1 << 63 for seed in seeds)


def test_an_order_of_nothing_is_refused():
    with pytest.raises(ValueError, match="the data have no example to train on: scm-media check RECIPE"):
        indices(range(4), 0, seed=0)
    with pytest.raises(ValueError, match="batch_size 0 must be a multiple"):
        Division().part(0, 0)


@pytest.mark.parametrize(("num_places", "passes"), [(1, 1), (3, 1), (1, 4), (2, 3)])
def test_the_parts_of_a_batch_follow_one_another(num_places, passes):
    parts = [
        Division(place, num_places, passes).part(24, number) for number in range(passes) for place in range(num_places)
    ]
    assert [sample for each in parts for sample in each] == list(range(24))
    assert len({len(each) for each in parts}) == 1


def test_batches_that_cannot_be_divided_and_places_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"batch_size 10 must be a multiple of 2 parts .* x trainer.accumulate 3: set"):
        Division(0, 2, 3).part(10, 0)
    for wrong in ((2, 2, 1), (-1, 2, 1), (0, 1, 0)):
        with pytest.raises(ValueError, match="place must lie in"):
            Division(*wrong)

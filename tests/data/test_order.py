"""The order of examples: a pure function that leaves none out."""

from __future__ import annotations

from collections import Counter

import pytest

from scm_media.data.order import select
from scm_media.seeds import mix


def indices(*arguments, **keywords):
    return [index for _, index in select(*arguments, **keywords)]


@pytest.mark.parametrize(("batch_size", "world"), [(1, 1), (4, 2), (7, 3), (40, 1)])
def test_each_epoch_shows_every_example_once(batch_size, world):
    num, num_steps = 17, 60
    seen = [
        pair
        for step in range(num_steps)
        for rank in range(world)
        for pair in select(step, batch_size, rank, world, num, seed=3)
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
        [index for step in range(5) for index in indices(step, 10, rank, 2, 100, seed=0)] for rank in (0, 1)
    )
    assert not set(first) & set(second)
    assert len(set(first) | set(second)) == 100


def test_two_ranks_share_the_batch_that_one_rank_of_twice_the_size_has():
    for step in (0, 3, 11):
        halves = indices(step, 8, 0, 2, 50, seed=1) + indices(step, 8, 1, 2, 50, seed=1)
        assert halves == indices(step, 16, 0, 1, 50, seed=1)


def test_order_depends_on_the_seed_and_on_nothing_else():
    assert indices(4, 32, 0, 1, 1000, seed=5) == indices(4, 32, 0, 1, 1000, seed=5)
    assert indices(4, 32, 0, 1, 1000, seed=5) != indices(4, 32, 0, 1, 1000, seed=6)


def test_first_places_are_spread_evenly():
    counts = Counter(indices(0, 1, 0, 1, 4, seed)[0] for seed in range(2000))
    assert all(abs(counts[index] - 500) < 100 for index in range(4))


def test_mix_keeps_its_numbers_apart():
    seeds = {mix(a, b, c) for a in range(20) for b in range(20) for c in range(20)}
    assert len(seeds) == 8000
    assert mix(1, 2) != mix(2, 1)
    assert all(0 <= seed < 1 << 63 for seed in seeds)


@pytest.mark.parametrize(
    ("arguments", "said"), [((0, 4, 0, 1, 0), "0"), ((0, 0, 0, 1, 9), "batch_size"), ((0, 4, 2, 2, 9), "rank")]
)
def test_impossible_orders_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        indices(*arguments, seed=0)

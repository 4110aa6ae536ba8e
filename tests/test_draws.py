"""A sample's random numbers are the same however its batch is divided."""

from __future__ import annotations

import pytest
import torch

from scm_media import draws
from scm_media.masks import MaskSampler
from scm_media.timesteps import LogNormalTimesteps

TOTAL = 40
DIVISIONS = ([40], [20, 20], [8] * 5, [1] * 40, [7, 33], [39, 1])


def drawn(first: int, num: int, seed: int = 3) -> list[torch.Tensor]:
    """Returns what a pass draws for its part of the batch, in several ways one after the other."""
    x = torch.zeros(num, 2, 3)
    with draws.draw_by_sample(seed, first, TOTAL):
        order, total = draws.places(num)
        assert total == TOTAL
        return [
            draws.randn_like(x),
            draws.randn_like(x.double()),
            draws.rand(num),
            draws.randn(num, 5),
            order,
            LogNormalTimesteps(0.0, 2.0, stratified=True).sample(num, 0.5),
            MaskSampler(types=["start", "box"]).draw(torch.zeros(num, 1, 8)),
            draws.randn_like(x),
        ]


@pytest.mark.parametrize("division", DIVISIONS)
def test_numbers_of_a_sample_do_not_depend_on_the_division(division):
    whole, parts, first = drawn(0, TOTAL), [], 0
    for num in division:
        parts.append(drawn(first, num))
        first += num
    for number, value in enumerate(whole):
        assert torch.equal(torch.cat([part[number] for part in parts]), value)


def test_draws_and_seeds_and_samples_differ():
    first, *_, last = drawn(0, TOTAL)
    assert (first != last).all() and (first != drawn(0, TOTAL, seed=4)[0]).all()
    assert len(first.flatten().unique()) > 0.99 * first.numel()
    assert abs(first.mean()) < 0.2 and abs(first.std() - 1) < 0.2


def test_stratified_times_spread_over_the_whole_batch():
    times = torch.cat([drawn(20 * part, 20)[5] for part in range(2)])
    normal = (torch.log(torch.tan(times) * 0.5)) / 2.0
    quantiles = torch.special.ndtr(normal).sort().values
    assert (quantiles * TOTAL).floor().tolist() == list(range(TOTAL))


def test_outside_the_block_numbers_come_from_the_global_state_or_a_generator():
    torch.manual_seed(5)
    expected = [torch.randn(4, 2), torch.rand(4), torch.randn(4), torch.randperm(4)]
    torch.manual_seed(5)
    found = [draws.randn_like(torch.zeros(4, 2)), draws.rand(4), draws.randn(4), draws.places(4)[0]]
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    with draws.draw_by_sample(0, 0, 8):
        given = [draws.rand(4, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*given)


def test_a_part_beyond_the_batch_still_gets_numbers():
    with draws.draw_by_sample(0, 6, 8):
        assert draws.randn_like(torch.zeros(5, 2)).shape == (5, 2)
        assert sorted(draws.places(5)[0].tolist()) == list(range(5))


def test_dropout_draws_as_after_manual_seed():
    torch.manual_seed(5)
    expected = torch.rand(3)
    draws.seed_dropout(5, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected), "runs that began with torch.manual_seed go on to the bit"

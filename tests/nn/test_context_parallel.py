"""Two processes that share the tokens of each sample compute what one process computes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from scm_media.nn.context_parallel import TokenSplit, check_splits, context_parallel, current_group
from scm_media.nn.dual import DualTensor
from scm_media.nn.unet import UNet
from scm_media.teachers import RectifiedFlow
from tests.nn.context_ranks import CASES, NUM, VARIANTS, compute, line

LENGTHS = {
    "even": 4,
    "odd": 3,
    "one token": 1,
    "full": 5,
    "clip": 4,
    "odd clip": 6,
    "one frame": 3,
    "checkpointed": 3,
}
"""The tokens that each rank has in its blocks, where one process has 8, 5, 1, 9, 8, 9, 3 and 5."""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Returns what each rank found; the two start once for all tests."""
    folder = tmp_path_factory.mktemp("ranks")
    words = [sys.executable, "-m", "tests.nn.context_ranks", str(folder)]
    started = [subprocess.Popen([*words, str(rank)], stderr=subprocess.PIPE, text=True) for rank in range(NUM)]
    try:
        for each in started:
            errors = each.communicate(timeout=600)[1]
            assert each.returncode == 0, errors
    finally:
        for each in started:
            each.kill()
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(NUM)]


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def assert_same(found, expected):
    """Asserts that each rank's value and tangent, and the averaged gradients, are the expected ones."""
    for each in found:
        assert_close(each["value"], expected["value"])
        assert_close(each["tangent"], expected["tangent"])
    for name, gradient in expected["gradients"].items():
        assert_close(sum(each["gradients"][name] for each in found) / NUM, gradient)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_value_tangent_and_averaged_gradients_are_those_of_one_process(ranks, name):
    assert_same([each["networks"][name] for each in ranks], compute(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_they_are_so_by_other_tangents_and_in_wrappers(ranks, name):
    """Data parallelism (DDP, FSDP2) averages by itself: it leaves each rank with the gradients of one process."""
    method = name if name in ("forward", "finite_difference") else "one_pass"
    expected = compute("odd, masked", method=method)
    assert_same([each["networks"][name] for each in ranks], expected)
    if name in ("data parallel", "sharded"):
        for rank in ranks:
            own = {key: each for key, each in rank["networks"][name]["gradients"].items() if key != "u"}
            assert_close(own, {key: expected["gradients"][key] for key in own})


@pytest.mark.slow
def test_the_average_is_the_gradient_of_the_average_of_unlike_losses(ranks):
    """The losses of the two ranks have the weights 1 and 2."""
    assert_same([each["networks"]["unlike losses"] for each in ranks], compute("odd, masked", weight=1.5))


@pytest.mark.slow
def test_no_rank_has_the_gradients_of_one_process_before_they_are_averaged(ranks):
    expected = compute("odd, masked")["gradients"]
    assert all(gradient.abs().max() > 0 for gradient in expected.values())
    for rank in ranks:
        own = rank["networks"]["odd, masked"]["gradients"]
        assert max((own[name] - expected[name]).norm() / expected[name].norm() for name in own) > 0.1


@pytest.mark.slow
def test_each_rank_computes_on_its_part_of_the_tokens(ranks):
    for rank in ranks:
        assert {name: rank["networks"][name]["length"] for name in LENGTHS} == LENGTHS
    assert [compute(name)["length"] for name in ("even", "odd", "odd clip")] == [8, 5, 9]


@pytest.mark.slow
def test_tokens_are_split_exchanged_and_gathered_in_order(ranks):
    whole = torch.arange(30.0, dtype=torch.float64).reshape(2, 5, 3)
    filled = torch.nn.functional.pad(whole, (0, 1, 0, 1))
    in_units = torch.nn.functional.pad(whole, (0, 0, 0, 3))
    for rank, found in enumerate(each["collectives"] for each in ranks):
        expected = {
            "rows": filled[:, 3 * rank : 3 * rank + 3, :3],
            "columns": filled[:, :5, 2 * rank : 2 * rank + 2],
            "back": filled[:, 3 * rank : 3 * rank + 3, :3],
            "whole": whole,
            "units": in_units[:, 4 * rank : 4 * rank + 4],
        }
        for name, value in expected.items():
            assert torch.equal(found[name][0], value), name
            assert torch.equal(found[name][1], -value), name


@pytest.mark.slow
def test_heads_that_the_ranks_cannot_share_are_refused(ranks):
    for rank in ranks:
        assert "num_heads 3, and 2 ranks" in rank["refused"]
        assert "take a group of 1 or 3 ranks" in rank["refused"]


def test_without_a_group_tokens_stay_as_they_are():
    x = DualTensor(torch.randn(2, 5, 3), torch.randn(2, 5, 3))
    alone = TokenSplit(None, 5)
    assert alone.part(x) is x
    assert alone.whole(x) is x
    with context_parallel(None):
        assert current_group() is None


def test_networks_that_share_no_tokens_are_refused():
    check_splits(line())
    check_splits(RectifiedFlow(line(), 0.5))
    with pytest.raises(ValueError, match="UNet cannot share its tokens among ranks"):
        check_splits(UNet(2, 1, 8, (1, 2), 1, (1,), head_width=8))

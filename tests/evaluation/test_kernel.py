"""The kernel distance against brute force, and its being unbiased."""

from __future__ import annotations

import pytest
import torch

from scm_media.evaluation import kernel, kernel_distance
from scm_media.evaluation.kernel import KernelTerms


def _brute_force(a: torch.Tensor, b: torch.Tensor) -> float:
    def k(x, y):
        return (float(x @ y) / len(x) + 1) ** 3

    within_a = [k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j]
    within_b = [k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j]
    across = [k(x, y) for x in a for y in b]
    return sum(within_a) / len(within_a) + sum(within_b) / len(within_b) - 2 * sum(across) / len(across)


def test_equals_brute_force(monkeypatch):
    monkeypatch.setattr(kernel, "CHUNK", 5)
    a, b = torch.randn(13, 4).double(), torch.randn(9, 4).double() + 0.5
    assert kernel_distance(a, b) == pytest.approx(_brute_force(a, b), rel=1e-10)


def test_unbiased_for_equal_distributions():
    values = torch.tensor([kernel_distance(torch.randn(20, 3), torch.randn(30, 3)) for _ in range(400)])
    assert abs(values.mean()) < 3 * values.std() / 20
    assert (values < 0).any()
    assert kernel_distance(torch.randn(200, 3), torch.randn(200, 3) + 1) > 5 * values.std()


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match="at least 2 samples"):
        kernel_distance(torch.randn(1, 3), torch.randn(5, 3))


def test_terms_give_the_same_distance_and_that_of_samples_repeated():
    a, b = torch.randn(13, 4), torch.randn(9, 4) + 0.5
    terms = KernelTerms.of(a, b)
    assert terms.distance() == pytest.approx(kernel_distance(a, b), rel=1e-9)
    counts = torch.randint(0, 3, (5, 13)).float()
    counts[:, 0] = 2
    for count, found in zip(counts, terms.resample(counts), strict=True):
        origin = torch.arange(13).repeat_interleave(count.long())
        drawn = a[origin].double()
        k = (drawn @ drawn.T / 4 + 1) ** 3
        pairs = k[origin[:, None] != origin].mean()  # a sample and its own copy are no pair
        expected = pairs + terms.within - 2 * ((drawn @ b.double().T / 4 + 1) ** 3).mean()
        assert float(found) == pytest.approx(float(expected), rel=1e-9)
    with pytest.raises(ValueError, match="at least 2 samples"):
        KernelTerms.of(a[:1], b)

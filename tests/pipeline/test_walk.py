"""A walk from the noise of one seed to that of another."""

from __future__ import annotations

import math

import pytest
import torch

from scm_media.pipeline import load
from scm_media.pipeline.batch_sampler import BatchSampler
from scm_media.pipeline.requests import SamplingRequest


@pytest.fixture(scope="module")
def pipeline():
    return load("image/fashion", "cpu")


def test_a_walk_begins_and_ends_at_the_samples_of_its_seeds(pipeline) -> None:
    start, end = (pipeline(2, label="Bag", seed=seed, steps=2).samples for seed in (3, 8))
    assert torch.equal(pipeline(2, label="Bag", seed=3, steps=2, walk=(8, 0.0)).samples, start)
    assert torch.allclose(pipeline(2, label="Bag", seed=3, steps=2, walk=(8, 1.0)).samples, end, atol=1e-5)
    between = pipeline(2, label="Bag", seed=3, steps=2, walk=(8, 0.5)).samples
    assert float((between - start).abs().mean()) > 0.01 and float((between - end).abs().mean()) > 0.01


def test_noise_keeps_its_variance_on_the_way(pipeline) -> None:
    request = SamplingRequest(seed=3)
    method = pipeline.method(request)
    ends = [BatchSampler(pipeline, method, seed, [0], [{}], None)._noise(0, (1, 200, 200), 0) for seed in (3, 8)]
    for fraction in (0.25, 0.5):
        noise = BatchSampler(pipeline, method, 3, [0], [{}], None, (8, fraction))._noise(0, (1, 200, 200), 0)
        angle = fraction * math.pi / 2
        assert torch.allclose(noise, math.cos(angle) * ends[0] + math.sin(angle) * ends[1])
        assert float(noise.var()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    ("walk", "message"), [((8, 1.5), "fraction of a walk must lie in 0 … 1, got 1.5"), ((-1, 0.5), "seed must be")]
)
def test_walks_that_lead_nowhere_are_refused(walk, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingRequest(walk=walk)

"""Each seed, clip, step and window has randomness of its own; what would share another's is refused by name."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import scm_media
from scm_media.pipeline.randomness import sample_noise, sample_uniform, seed_offset

LAST_SEED, LAST_CLIP = 2**63 - 1, 2**48 - 1


@pytest.fixture(scope="module")
def pipeline(tiny_model):
    return scm_media.load(tiny_model, device="cpu")


def test_seeds_clips_steps_and_windows_at_the_ends_of_their_ranges_have_noise_of_their_own():
    places = list(itertools.product((0, 1, LAST_SEED), (0, 1, LAST_CLIP), (0, 1, 2**15 - 1), (0, 1, 2**64 - 1)))
    drawn = {tuple(sample_noise(seed, [clip], step, (4,), w)[0].tolist()) for seed, clip, step, w in places}
    assert len(drawn) == len(places)


def test_offsets_of_seeds_and_draws_of_clips_are_no_ones_elses():
    draws = [sample_uniform(0, 0, stream) for stream in (2**15, 2**15 + 1, 2**16 - 2**10 - 1)]
    draws += [seed_offset(0, stream) for stream in (0, 1, 2**10 - 1)]
    assert len(set(draws)) == len(draws)
    for refused in (2**15 - 1, 2**16 - 2**10):
        with pytest.raises(AssertionError):
            sample_uniform(0, 0, refused)
    for refused in (-1, 2**10):
        with pytest.raises(AssertionError):
            seed_offset(0, refused)


def test_noise_and_draws_are_those_of_files_that_were_made_before():
    noise = sample_noise(7, [0, 13], 1, (3,))
    expected = [[1.3204108, 1.8837345, -0.1083152], [0.6653073, 1.3229513, 1.1704086]]
    torch.testing.assert_close(noise, torch.tensor(expected))
    torch.testing.assert_close(sample_noise(7, [13], 1, (3,), 2)[0], torch.tensor([0.0166999, -0.4913329, -0.0696382]))
    assert seed_offset(7, 3) == pytest.approx(0.536269126493458)
    assert sample_uniform(7, 13, 2**15) == pytest.approx(0.6897408224468772)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64 - 1, 2**64, 1.0, float("nan"), "1", None, True])
def test_a_seed_that_would_be_anothers_is_refused(pipeline, seed):
    message = r"seed must be a whole number from 0 to 9223372036854775807 \(2\^63 - 1\), got "
    with pytest.raises(ValueError, match=message):
        pipeline(1, seed=seed)
    with pytest.raises(ValueError, match=message):
        pipeline.edit("inpaint", torch.zeros(1, 16, 16), region=(4, 8, 4, 8), seed=seed)
    with pytest.raises(ValueError, match=message):
        sample_noise(seed, [0], 0, (1,))
    with pytest.raises(ValueError, match=message):
        seed_offset(seed, 0)


@pytest.mark.parametrize("first", [-1, 2**48 - 1, 0.5])
def test_clips_that_would_be_others_are_refused(pipeline, first):
    message = (
        r"first, the index of the first sample, must be a whole number from 0 to 281474976710654 for 2 samples, got"
    )
    with pytest.raises(ValueError, match=message):
        pipeline(2, first=first)
    with pytest.raises(ValueError, match=message):
        pipeline.edit("inpaint", torch.zeros(1, 16, 16), 2, region=(4, 8, 4, 8), first=first)


@pytest.mark.parametrize("index", [-1, 2**48])
def test_noise_of_a_clip_that_would_be_anothers_is_refused(index):
    with pytest.raises(ValueError, match="first, the index of the first sample"):
        sample_noise(0, [0, index], 0, (1,))


def test_more_steps_than_there_are_streams_are_refused():
    with pytest.raises(ValueError, match="noise for up to 32768 steps, got step 32768: ask for fewer"):
        sample_noise(0, [0], 2**15, (1,))


def test_the_last_seed_and_clip_and_numbers_of_numpy_are_taken(pipeline):
    last = pipeline(2, seed=LAST_SEED, first=LAST_CLIP - 1)
    assert last.indices == [LAST_CLIP - 1, LAST_CLIP]
    assert not torch.allclose(last.samples[0], last.samples[1], atol=1e-3)
    same = pipeline(1, label="circle", seed=np.uint64(3), first=np.int64(2))
    assert torch.equal(same.samples, pipeline(1, label="circle", seed=3, first=2).samples)

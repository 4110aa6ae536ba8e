from __future__ import annotations

import pytest
import torch

from scm_media.conditioning import NO_LABEL, Conditioning


@pytest.fixture
def cond() -> Conditioning:
    return Conditioning(
        labels={"class": torch.tensor([3, 1]), "pitch": torch.tensor([60.0, 72.0])},
        tokens=torch.arange(12.0).reshape(2, 3, 2),
        concat=torch.ones(2, 1, 4),
        guidance=torch.tensor([1.0, 2.0]),
    )


def test_drop_takes_labels_and_text_away_and_keeps_the_rest(cond):
    dropped = cond.drop(torch.tensor([True, False]))
    assert dropped.labels["class"].tolist() == [NO_LABEL, 1]
    assert dropped.labels["class"].dtype == torch.int64
    assert torch.isnan(dropped.labels["pitch"]).tolist() == [True, False]
    assert dropped.token_mask.tolist() == [[False] * 3, [True] * 3]
    assert torch.equal(dropped.concat, cond.concat)
    assert torch.equal(dropped.guidance, cond.guidance)
    assert cond.labels["class"].tolist() == [3, 1], "drop must leave the original alone"


def test_drop_respects_a_token_mask():
    mask = torch.tensor([[True, False], [True, True]])
    dropped = Conditioning(tokens=torch.ones(2, 2, 1), token_mask=mask).drop(torch.tensor([False, True]))
    assert dropped.token_mask.tolist() == [[True, False], [False, False]]


def test_repeat_is_block_after_block(cond):
    repeated = cond.repeat(2)
    assert repeated.labels["class"].tolist() == [3, 1, 3, 1]
    assert repeated.tokens.shape == (4, 3, 2)
    assert repeated.token_mask is None


@pytest.mark.parametrize("index", [slice(1, 2), torch.tensor([1]), torch.tensor([False, True])])
def test_indexing_stays_batch_first(cond, index):
    second = cond[index]
    assert second.labels["class"].tolist() == [1]
    assert second.concat.shape == (1, 1, 4)
    assert second.guidance.tolist() == [2.0]


def test_an_integer_index_is_refused(cond):
    with pytest.raises(TypeError, match="batch first"):
        cond[0]


def test_to_moves_every_field(cond):
    moved = cond.to("meta")
    assert moved.labels["pitch"].device.type == "meta"
    assert moved.concat.device.type == "meta"


def test_networks_get_the_logarithm_of_the_scale_and_zero_without_one(cond):
    t = torch.zeros(2, dtype=torch.float64)
    assert cond.log_guidance(t).tolist() == [0.0, torch.tensor(2.0, dtype=torch.float64).log().item()]
    assert Conditioning().log_guidance(t).tolist() == [0.0, 0.0]
    assert cond.log_guidance(t).dtype == torch.float64


def test_channels_are_zeros_where_nothing_is_concatenated(cond):
    latent = torch.ones(2, 3, 4)
    assert torch.equal(cond.channels(1, latent), cond.concat)
    assert torch.equal(Conditioning().channels(5, latent), torch.zeros(2, 5, 4))

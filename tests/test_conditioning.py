"""Rows beside a latent: which places a latent place stands for, against what is worked out by hand; any rank."""

from __future__ import annotations

import pytest
import torch

from modalities.image.autoencoder import PixelAutoencoder
from scm_media.conditioning import (
    Conditioning,
    ConditioningLayout,
    FrameGrouping,
    condition_on_actions,
    condition_on_empty_mask,
    condition_on_mask,
)
from scm_media.nn.kl_autoencoder import KLAutoencoder


def autoencoder(rank, step, causal=False):
    return KLAutoencoder(1, 2, rank, strides=[(step, *[2] * (rank - 1))], widths=(8,), causal=causal)


class Merged:
    """Four places to three of the latent: no groups."""

    def latent_shape(self, sample_shape):
        return (1, 3)

    def latent_mask(self, mask):
        return mask[..., :3]


@pytest.mark.parametrize(
    ("network", "shape", "size", "alone"),
    [
        (autoencoder(3, 3, causal=True), (1, 7, 8, 8), 3, True),
        (autoencoder(3, 3, causal=True), (1, 4, 8, 8), 3, True),  # four places are two of the latent either way
        (autoencoder(3, 2), (1, 4, 8, 8), 2, False),
        (autoencoder(2, 4), (1, 12, 6), 4, False),
        (autoencoder(1, 2), (1, 10), 2, False),
        (autoencoder(3, 2), (1, 2, 8, 8), 2, False),  # one group alone
        (PixelAutoencoder(1), (1, 5, 6), 1, True),
    ],
)
def test_the_grouping_is_found_by_shapes_and_masks(network, shape, size, alone):
    assert FrameGrouping.of(network, shape) == FrameGrouping(size, alone)
    latent = network.latent_shape(shape)
    rows = torch.arange(2 * 3 * shape[1]).reshape(2, 3, shape[1]).float()
    assert FrameGrouping.of(network, shape).lay_out(rows, latent[1:]).shape == (2, 3 * size, *latent[1:])


def test_latents_that_are_no_groups_are_refused():
    with pytest.raises(ValueError, match=r"Merged turns 4 positions .* into 3, .* set data.actions=null"):
        FrameGrouping.of(Merged(), (1, 4))


def test_a_causal_latent_is_told_the_rows_of_its_group_and_the_first_its_own():
    rows = torch.tensor([[[1.0, 2, 3, 4, 5, 6, 7], [10.0, 20, 30, 40, 50, 60, 70]]])
    laid = FrameGrouping(3, causal_first=True).lay_out(rows, (3, 2, 2))
    expected = [
        [0, 0, 0, 0, 1, 10],
        [2, 20, 3, 30, 4, 40],
        [5, 50, 6, 60, 7, 70],
    ]
    assert laid.shape == (1, 6, 3, 2, 2)
    for across in (laid[0, :, :, 0, 0], laid[0, :, :, 1, 0], laid[0, :, :, 1, 1]):
        assert across.T.tolist() == expected


def test_equal_groups_and_single_places_are_told_theirs():
    rows = torch.tensor([[[1.0, 2, 3, 4], [10.0, 20, 30, 40]]])
    assert FrameGrouping(2, causal_first=False).lay_out(rows, (2,))[0].T.tolist() == [[1, 10, 2, 20], [3, 30, 4, 40]]
    assert torch.equal(FrameGrouping(1, causal_first=True).lay_out(rows, (4,)), rows)
    assert torch.equal(FrameGrouping(1, causal_first=True).lay_out(rows, (4, 5))[..., 3], rows)


def test_the_grouping_holds_for_clips_of_other_lengths():
    grouping = FrameGrouping.of(autoencoder(3, 3, causal=True), (1, 16, 8, 8))
    assert grouping.lay_out(torch.ones(1, 2, 1), (1, 4, 4))[0, :, 0, 0, 0].tolist() == [0, 0, 0, 0, 1, 1]
    with pytest.raises(
        ValueError, match="actions of 8 positions for a latent of 3, each of which stands for 3 but the"
    ):
        grouping.lay_out(torch.ones(1, 2, 8), (3, 4, 4))


@pytest.mark.parametrize("places", [(3,), (3, 2), (3, 2, 2)])
def test_what_is_known_comes_first_and_where_nothing_is_there_are_zeros(places):
    rows, latent = torch.rand(2, 4, 3), torch.randn(2, 5, *places)
    told = condition_on_actions(Conditioning(), rows, FrameGrouping(1, True), places)
    known = condition_on_mask(told, latent, torch.ones(2, 1, *places), 0.5)
    nothing = condition_on_empty_mask(told, 6)
    assert known.concat.shape == nothing.concat.shape == (2, 10, *places)
    assert torch.equal(known.concat[:, 6:], told.concat)
    assert torch.equal(nothing.concat[:, 6:], told.concat)
    assert nothing.concat[:, :6].abs().max() == 0
    assert nothing.mask is None
    dropped = told.drop(torch.tensor([True, False]))
    assert torch.equal(dropped.concat, told.concat), "guidance is by labels: rows stay"


def test_without_rows_nothing_changes():
    cond = Conditioning()
    assert condition_on_actions(cond, None, FrameGrouping(1, True), (3,)) is cond
    assert condition_on_actions(cond, torch.ones(1, 1, 3), None, (3,)) is cond
    assert condition_on_empty_mask(cond, 6) is cond


def test_one_call_assembles_actions_and_mask_for_networks_with_and_without_them():
    latent, mask, actions = torch.randn(2, 5, 3), torch.tensor([[[1.0, 0, 0]]]), torch.rand(2, 4, 3)
    cond = Conditioning(labels={"class": torch.tensor([1, 2])}, guidance=torch.ones(2))
    grouping = FrameGrouping(1, True)
    both = ConditioningLayout(0.5, 6, grouping)
    assert both.num_channels(4) == 10
    given = both.assemble(cond, (3,), actions, latent, mask)
    assert torch.equal(given.concat[:, :5, :1], latent[..., :1] / 0.5)
    assert given.concat[:, :5, 1:].abs().max() == 0
    assert torch.equal(given.concat[:, 5:6], mask.expand(2, 1, 3))
    assert torch.equal(given.concat[:, 6:], actions)
    assert torch.equal(given.mask, mask.expand(2, 1, 3))
    assert given.labels is cond.labels
    empty = both.assemble(cond, (3,), actions)
    assert empty.concat[:, :6].abs().max() == 0
    assert torch.equal(empty.concat[:, 6:], actions)
    assert empty.mask is None
    no_mask = ConditioningLayout(0.5, 0, grouping).assemble(cond, (3,), actions, latent, mask)
    assert torch.equal(no_mask.concat, actions)
    assert no_mask.mask is None, "a network that takes no mask is trained on all of the latent"
    assert ConditioningLayout(0.5).assemble(cond, (3,), actions, latent, mask) is cond

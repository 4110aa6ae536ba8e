"""Regions that training gives to a network, how it is told of them, and that losses leave them out."""

from __future__ import annotations

import pytest
import torch

from scm_media.conditioning import Conditioning, condition_on_mask
from scm_media.losses import ConsistencyLoss, DiffusionLoss
from scm_media.masks import MASK_TYPES, MaskSampler
from scm_media.nn.dual import jvp_op
from scm_media.timesteps import LogNormalTimesteps
from scm_media.trigflow import TrigFlow
from tests.oracles import Gaussian

FLOW = TrigFlow(0.5)
SHAPES = [(16,), (6, 10), (8, 4, 6)]


def drawn(kind: str, shape, num: int = 400, **settings) -> torch.Tensor:
    regions = MaskSampler(probability=1.0, types=[kind], axis=-len(shape), **settings)
    return regions.draw(torch.zeros(num, 2, *shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", list(MASK_TYPES))
def test_every_kind_leaves_something_known_and_something_not(kind, shape):
    masks = drawn(kind, shape)
    assert masks.shape == (400, 1, *shape)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    fraction = masks.flatten(1).mean(1)
    assert fraction.min() > 0 or kind == "box"
    assert fraction.max() < 1
    if kind != "first":
        assert len(fraction.unique()) > 3


@pytest.mark.parametrize("shape", SHAPES)
def test_kinds_along_an_axis_are_what_they_are_called(shape):
    size = shape[0]
    for kind in ("start", "end", "both"):
        masks = drawn(kind, shape)
        lines = masks.flatten(3)[:, 0] if masks.ndim > 3 else masks[:, 0, :, None]
        assert torch.equal(lines, lines[..., :1].expand_as(lines)), "the same all across"
        line = lines[..., 0]
        falls, rises = (line.diff() < 0).sum(1), (line.diff() > 0).sum(1)
        if kind == "start":
            assert bool((line[:, 0] == 1).all() and (rises == 0).all() and (line[:, -1] == 0).all())
        if kind == "end":
            assert bool((line[:, -1] == 1).all() and (falls == 0).all() and (line[:, 0] == 0).all())
        if kind == "both":
            assert bool((rises <= 1).all() and (falls <= 1).all())
            assert ((falls == 1) & (rises == 1)).float().mean() > 0.5
    first = drawn("first", shape)
    assert torch.equal(first.sum(), torch.tensor(400.0 * torch.zeros(shape[1:]).numel()))
    assert bool((first[:, :, 0] == 1).all())
    assert bool((drawn("first", (1, *shape[1:])) == 0).all()), f"a clip of one place of {size} has nothing to follow"


def test_a_box_is_whole_and_its_share_is_what_is_not_known():
    masks = drawn("box", (20, 20), fraction=[0.5, 0.5])
    unknown = masks[:, 0] == 0
    high, wide = unknown.any(2).sum(1), unknown.any(1).sum(1)
    assert bool((unknown.flatten(1).sum(1) == high * wide).all())
    assert set(high.tolist()) == set(wide.tolist()) == {14}, "√½ of 20"
    assert len({tuple(row.nonzero()[0].tolist()) for row in unknown}) > 20


def test_shares_probability_and_kinds_are_as_asked():
    regions = MaskSampler(probability=0.25, types=["start", "end"], fraction=[0.25, 0.5])
    masks = regions.draw(torch.zeros(4000, 1, 32))[:, 0]
    known = masks.sum(1)
    assert abs((known > 0).float().mean().item() - 0.25) < 0.03
    assert known[known > 0].min() == 8
    assert known.max() == 16
    starts, ends = (masks[:, 0] == 1).sum().item(), (masks[:, -1] == 1).sum().item()
    assert abs(starts - ends) < 120
    assert (starts + ends) == (known > 0).sum()


def test_the_draw_follows_from_the_random_state():
    regions = MaskSampler(types=list(MASK_TYPES))
    latent = torch.zeros(64, 2, 4, 6)
    torch.manual_seed(5)
    first = regions.draw(latent)
    torch.manual_seed(5)
    assert torch.equal(regions.draw(latent), first)
    assert not torch.equal(regions.draw(latent), first)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probability": 0.0}, r"probability must lie in \(0, 1\], got 0.0; for none set mask=null"),
        ({"probability": 1.5}, "got 1.5"),
        ({"types": ["middle"]}, "types must be one of start, end, both, first, box, got .middle."),
        ({"types": []}, "types must name one of start, .* or more, got none"),
        ({"axis": 1}, r"axis is counted from the end \(-1: the last\), got 1"),
        ({"fraction": [0.5, 0.2]}, r"fraction must be \[least, largest\] within \(0, 1\), got \[0.5, 0.2\]"),
        ({"fraction": [0.5]}, r"got \[0.5\]"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MaskSampler(**settings)


def test_an_axis_that_latents_do_not_have_is_refused():
    with pytest.raises(ValueError, match=r"conditioning.mask.axis is -3, but latents have 1 axes: -1 … -1"):
        MaskSampler(axis=-3).draw(torch.zeros(2, 1, 8))


def test_the_network_is_told_the_known_latent_and_its_mask():
    latent, mask = torch.randn(2, 3, 4), torch.tensor([[[1.0, 1, 0, 0]], [[0.0, 0, 0, 0]]])
    cond = condition_on_mask(Conditioning(labels={"class": torch.tensor([1, 2])}), latent, mask, 0.5)
    assert cond.concat.shape == (2, 4, 4)
    assert torch.equal(cond.concat[0, :3, :2], latent[0, :, :2] / 0.5)
    assert cond.concat[0, :3, 2:].abs().max() == cond.concat[1].abs().max() == 0
    assert torch.equal(cond.concat[:, 3:], mask)
    actions = torch.randn(2, 5, 4)
    more = condition_on_mask(Conditioning(concat=actions), latent, mask, 0.5)
    assert torch.equal(more.concat[:, 4:], actions)
    assert torch.equal(more[1:].mask, mask[1:])


def test_what_counts_is_neither_padding_nor_given():
    known, valid = torch.tensor([[[1.0, 0, 0, 1]]]), torch.tensor([[[1.0, 1, 0, 0]]])
    assert Conditioning().loss_mask is None
    assert torch.equal(Conditioning(padding_mask=valid).loss_mask, valid)
    assert Conditioning(mask=known).loss_mask.tolist() == [[[0, 1, 1, 0]]]
    assert Conditioning(mask=known, padding_mask=valid).loss_mask.tolist() == [[[0, 1, 0, 0]]]


class Junk(torch.nn.Module):
    """An oracle where nothing is known, and noise where it is."""

    def __init__(self, oracle, known: torch.Tensor, junk: float) -> None:
        super().__init__()
        self.oracle, self.known, self.junk = oracle, known, junk
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, u, t, cond):
        def spoilt(u_, t_):
            F = self.oracle._evaluate(u_, t_)
            return torch.where(self.known > 0, self.junk * torch.sin(7 * u_ + t_.reshape(-1, 1, 1)), F) + self.weight

        return jvp_op(spoilt, u, t)


@pytest.mark.parametrize("objective", ["teacher", "scd", "sct", "scd, l2"])
def test_losses_do_not_hang_on_what_a_network_makes_of_known_places(objective):
    oracle = Gaussian.random((2, 6))
    known = torch.tensor([[[1.0, 1, 1, 0, 0, 0]]], dtype=torch.float64)
    x0 = oracle.sample(64, torch.Generator().manual_seed(1))

    def loss(junk: float, told: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        backbone, teacher = Junk(oracle.consistency, known, junk), Junk(oracle, known, -3 * junk)
        timesteps = LogNormalTimesteps(-1.0, 1.0)
        if objective == "teacher":
            module = DiffusionLoss(teacher, FLOW, timesteps, weight="none", label_dropout=0.0)
        else:
            module = ConsistencyLoss(
                backbone,
                FLOW,
                timesteps,
                teacher=teacher if objective != "sct" else None,
                norm="l2" if "l2" in objective else "rms",
                tangent_warmup=0,
            )
        torch.manual_seed(0)
        cond = condition_on_mask(Conditioning(), x0, known.expand(64, 1, 6), 0.5) if told else Conditioning()
        value, terms = module(x0, cond, torch.tensor(100.0))
        (gradient,) = torch.autograd.grad(value, module.backbone.weight)
        return value, torch.cat([gradient[None], terms["loss"]])

    for clean, spoilt in zip(loss(0.0), loss(1.0), strict=True):
        assert torch.allclose(clean, spoilt, rtol=1e-9)
    assert not torch.allclose(loss(0.0, told=False)[0], loss(1.0, told=False)[0], rtol=1e-2)


def test_at_known_places_trajectories_follow_the_data():
    oracle = Gaussian.random((1, 4))
    known = torch.tensor([[[1.0, 0, 0, 1]]], dtype=torch.float64)
    teacher = Junk(oracle, torch.zeros_like(known), 0.0)
    module = ConsistencyLoss(Junk(oracle, known, 0.0), FLOW, LogNormalTimesteps(-1.0, 1.0), teacher=teacher)
    x0 = oracle.sample(3, torch.Generator().manual_seed(0))
    z, t = torch.randn_like(x0), torch.tensor([0.2, 0.8, 1.4], dtype=torch.float64)
    x_t = FLOW.interpolate(x0, z, t)
    cond = condition_on_mask(Conditioning(), x0, known.expand(3, 1, 4), 0.5)
    free, told = (module.trajectory_velocity(x0, z, x_t, t, each) for each in (Conditioning(), cond))
    velocity = FLOW.velocity(x0, z, t)
    assert torch.equal(told[..., [0, 3]], velocity[..., [0, 3]])
    assert torch.equal(told[..., 1:3], free[..., 1:3])
    assert not torch.allclose(free, velocity)
    # One small step along it keeps the known places on the path of what they are.
    dt = 1e-4
    ahead = FLOW.interpolate(x0, z, t + dt)
    assert torch.allclose((x_t + dt * told)[..., 0], ahead[..., 0], atol=1e-7)


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_at_least_one_position_is_given_and_one_is_not(fraction):
    given = drawn("start", (3,), fraction=[fraction, fraction]).sum((1, 2))
    assert set(given.tolist()) == {1.0 if fraction < 0.5 else 2.0}

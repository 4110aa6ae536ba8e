from __future__ import annotations

import pytest
import torch

from scm_media.interfaces import NO_LABEL, Conditioning
from scm_media.nn.pair import Pair
from scm_media.nn.unet import CosineAttention, UNet, UNetBlock
from scm_media.testing import check_backbone
from scm_media.training.compiling import compile_backbone
from tests.nn.test_pair import by_differences, check, pair

LATENTS = {1: (2, 8), 2: (2, 4, 6), 3: (2, 4, 2, 6)}
RANKS = list(LATENTS)


def make(rank, dtype=torch.float64, **options):
    """A small network whose every weight counts (a fresh one gives 0)."""
    torch.manual_seed(0)
    net = UNet(2, rank, 8, (1, 2), 1, (1,), head_width=8, labels={"class": 4, "pitch": 0}, **options)
    for parameter in net.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape) + (0.5 if parameter.ndim == 0 else 0.0)
    return net.to(dtype)


def inputs(rank):
    generator = torch.Generator().manual_seed(1)
    u, du = (torch.randn(3, *LATENTS[rank], generator=generator, dtype=torch.float64) for _ in range(2))
    t, dt = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    pitch = torch.tensor([0.2, torch.nan, 1.0], dtype=torch.float64)
    return Pair(u, du), Pair(t, dt), Conditioning(labels={"class": torch.tensor([0, 3, NO_LABEL]), "pitch": pitch})


def aligned_and_masked(rank, cond):
    valid = torch.ones(3, 1, *LATENTS[rank][1:], dtype=torch.float64)
    valid[1, ..., 3:] = 0
    aligned = torch.full((3, 1, *LATENTS[rank][1:]), 0.3, dtype=torch.float64)
    scale = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    return Conditioning(labels=cond.labels, aligned=aligned, valid=valid, guidance=scale)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("conditioned", [False, True])
def test_the_tangent_is_the_derivative(conditioned, rank):
    net = make(rank, aligned_channels=int(conditioned), guidance=conditioned)
    u, t, cond = inputs(rank)
    cond = aligned_and_masked(rank, cond) if conditioned else cond
    out = net(u, t, cond)
    value, tangent = by_differences(lambda x, s: net(x, s, cond), u, t, h=2e-4)
    assert out.value.shape == u.value.shape
    torch.testing.assert_close(out.value, value)
    assert (out.tangent - tangent).norm() < 1e-9 * tangent.norm()


@pytest.mark.parametrize("rank", RANKS)
def test_gradients_through_the_pair_are_those_of_two_passes(rank):
    net = make(rank)
    u, t, cond = inputs(rank)

    def gradients(F, tangent):
        loss = (F - F.detach() - tangent / (tangent.norm() + 0.1)).square().mean()
        return torch.autograd.grad(loss, list(net.parameters()))

    pair_ = net(u, t, cond)
    ours = gradients(pair_.value, pair_.tangent)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), torch.no_grad():
        forward = torch.func.jvp(lambda x, s: net(x, s, cond), (u.value, t.value), (u.tangent, t.tangent))[1]
    theirs = gradients(net(u.value, t.value, cond), forward)
    assert all(gradient.abs().max() > 0 for gradient in ours)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rank", RANKS)
def test_it_conforms_to_the_contract_of_a_backbone(rank):
    check_backbone(make(rank), LATENTS[rank], inputs(rank)[2])


def test_dropout_is_one_mask_in_value_and_tangent_and_acts_from_its_level_down():
    net = make(2, dropout=0.4, dropout_from=1).train()
    u, t, cond = inputs(2)

    def seeded(x, s):
        torch.manual_seed(5)
        return net(x, s, cond)

    out = seeded(u, t)
    value, tangent = by_differences(seeded, u, t, h=2e-4)
    torch.testing.assert_close(out.value, value)
    assert (out.tangent - tangent).norm() < 1e-9 * tangent.norm()
    assert (out.value - net.eval()(u.value, t.value, cond)).norm() > 0.01
    rates = [[block.dropout.rate for block in blocks] for blocks in (*net.encoder, net.middle, *net.decoder)]
    assert rates == [[0.0], [0.4, 0.4], [0.4, 0.4], [0.4, 0.4], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("rank", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_it_is_captured_whole_by_the_compiler(rank):
    net = make(rank)
    u, t, cond = inputs(rank)
    captured = torch.compile(net, backend="eager", fullgraph=True)
    expected, got = net(u, t, cond), captured(u, t, cond)
    torch.testing.assert_close(got.value, expected.value)
    torch.testing.assert_close(got.tangent, expected.tangent)


def unit(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("decodes", "direction", "channels"),
    [(False, "same", (32, 64)), (False, "same", (64, 64)), (True, "same", (96, 64)), (True, "up", (64, 64))],
)
@pytest.mark.parametrize("attends", [False, True])
def test_a_fresh_block_keeps_the_magnitude(decodes, direction, channels, attends):
    torch.manual_seed(7)
    block = UNetBlock(2, *channels, 48, decodes, direction, 32 if attends else None)
    out = block(unit(8, channels[0], 16, 16), unit(8, 48, seed=1))
    assert out.shape[1] == 64
    assert out.std().item() == pytest.approx(1, abs=0.1)


def test_a_network_keeps_the_magnitude_whatever_its_gains():
    torch.manual_seed(7)
    net = UNet(3, 2, 32, (1, 2, 2), 2, (2,), labels={"class": 4})
    t, cond = torch.linspace(0.1, 1.5, 8), Conditioning(labels={"class": torch.arange(8) % 4})
    assert net.condition(t, cond).square().mean().sqrt().item() == pytest.approx(1, abs=0.15)
    assert torch.equal(net(unit(8, 3, 16, 16), t, cond), torch.zeros(8, 3, 16, 16)), "a fresh network gives zero"
    with torch.no_grad():
        net.out_gain.fill_(1)
        for block in net.modules():
            if isinstance(block, UNetBlock):
                block.modulation_gain.fill_(3)
    assert net(unit(8, 3, 16, 16), t, cond).std().item() == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("extents", [(6,), (2, 4), (2, 2, 3)])
def test_attention_is_of_normalised_queries_keys_and_values(extents):
    torch.manual_seed(7)
    layer = CosineAttention(len(extents), 16, 8).double()
    check(layer, pair(2, 16, *extents))
    x = torch.randn(2, 16, *extents, dtype=torch.float64)
    before = layer(x)
    with torch.no_grad():
        layer.qkv.weight *= 100
    torch.testing.assert_close(layer(x), before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rank", RANKS)
def test_labels_time_and_place_all_matter(rank):
    net = make(rank)
    u, t, cond = inputs(rank)
    F = net(u.value, t.value, cond)
    assert (net(u.value, t.value, cond.drop(torch.ones(3, dtype=torch.bool))) - F).abs().max() > 1e-3
    assert (net(u.value, t.value + 0.3, cond) - F).abs().max() > 1e-3
    rolled = net(u.value.roll(2, -1), t.value, cond).roll(-2, -1)
    assert (rolled - F).abs().max() > 1e-3


@pytest.mark.parametrize("rank", RANKS)
def test_padding_does_not_reach_what_is_valid(rank):
    net = make(rank)
    u, t, cond = inputs(rank)
    cond = Conditioning(labels=cond.labels, valid=torch.ones(3, 1, *LATENTS[rank][1:], dtype=torch.float64))
    cond.valid[..., 4:] = 0
    changed = u.value.clone()
    changed[..., 4:] += 5.0
    first, second = (net(x, t.value, cond)[..., :4] for x in (u.value, changed))
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)
    cond.valid[:] = 0
    assert torch.isfinite(net(u.value, t.value, cond)).all()


def test_a_guidance_scale_is_nothing_to_a_fresh_network_and_something_to_a_trained_one():
    net = make(2, guidance=True)
    u, t, cond = inputs(2)
    one, two = (Conditioning(labels=cond.labels, guidance=torch.full((3,), s).double()) for s in (1.0, 2.0))
    torch.testing.assert_close(net(u.value, t.value, one), net(u.value, t.value, cond))
    assert (net(u.value, t.value, two) - net(u.value, t.value, one)).abs().max() > 1e-3
    net.guidance.gain.data.zero_()
    assert torch.equal(net(u.value, t.value, two), net(u.value, t.value, one))


def test_bfloat16_keeps_the_tangent_close_and_the_path_of_time_wide():
    net = make(2, torch.float32)
    u, t, cond = inputs(2)
    u, t = (Pair(x.value.float(), x.tangent.float()) for x in (u, t))
    cond = Conditioning(labels={"class": cond.labels["class"], "pitch": cond.labels["pitch"].float()})
    exact, c = net(u, t, cond), net.condition(t, cond)
    with torch.autocast("cpu", torch.bfloat16):
        low, low_c = net(u, t, cond), net.condition(t, cond)
    assert low.value.dtype == low.tangent.dtype == torch.float32
    assert torch.equal(low_c.value, c.value)
    assert torch.equal(low_c.tangent, c.tangent)
    assert (low.value - exact.value).norm() < 0.05 * exact.value.norm()
    assert (low.tangent - exact.tangent).norm() < 0.05 * exact.tangent.norm()


@pytest.mark.parametrize("shape", [(3, 2, 7), (3, 1, 8), (3, 2, 8, 8)])
def test_latents_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"multiples of 2: there are 2 levels|expected a latent"):
        make(1, torch.float32)(torch.zeros(shape), torch.ones(3), Conditioning())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 4, "channels": 8}, "rank must be 1, 2 or 3"),
        ({"rank": 2, "channels": 8, "attention_levels": (5,)}, r"attention_levels \[5\] do not exist: .* 0 to 3"),
        ({"rank": 2, "channels": 24, "head_width": 10}, "head_width 10"),
    ],
)
def test_networks_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UNet(2, **options)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_compiled_it_has_the_same_value_and_tangent(precision):
    net = UNet(2, 2, 8, (1, 2), 1, (1,), head_width=8, labels={"class": 4})
    compile_backbone(net, (2, 4, 4), {"class": 4}, precision)
    assert net._compiled_call_impl is not None

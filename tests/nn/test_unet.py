from __future__ import annotations

import pytest
import torch

from scm_media.conditioning import Conditioning
from scm_media.nn.unet import CosineAttention, UNet, UNetBlock
from scm_media.training.compiling import compile_backbone
from tests.nn.backbones import inputs, unet
from tests.nn.test_dual import check, pair


def test_dropout_acts_from_its_level_down():
    net = unet(2, dropout=0.4, dropout_from=1)
    rates = [[block.dropout.rate for block in blocks] for blocks in (*net.encoder, net.middle, *net.decoder)]
    assert rates == [[0.0], [0.4, 0.4], [0.4, 0.4], [0.4, 0.4], [0.0, 0.0, 0.0]]


def unit(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("is_decoder", "direction", "channels"),
    [(False, "same", (32, 64)), (False, "same", (64, 64)), (True, "same", (96, 64)), (True, "up", (64, 64))],
)
@pytest.mark.parametrize("attends", [False, True])
def test_a_fresh_block_keeps_the_magnitude(is_decoder, direction, channels, attends):
    torch.manual_seed(7)
    block = UNetBlock(2, *channels, 48, is_decoder, direction, 32 if attends else None)
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


@pytest.mark.parametrize("sizes", [(6,), (2, 4), (2, 2, 3)])
def test_attention_is_of_normalised_queries_keys_and_values(sizes):
    torch.manual_seed(7)
    layer = CosineAttention(len(sizes), 16, 8).double()
    check(layer, pair(2, 16, *sizes))
    x = torch.randn(2, 16, *sizes, dtype=torch.float64)
    before = layer(x)
    with torch.no_grad():
        layer.qkv.weight *= 100
    torch.testing.assert_close(layer(x), before, rtol=1e-3, atol=1e-4)


def test_a_guidance_scale_is_nothing_to_a_fresh_network_and_something_to_a_trained_one():
    net = unet(2, guidance=True)
    u, t, cond = inputs(2)
    one, two = (Conditioning(labels=cond.labels, guidance=torch.full((3,), s).double()) for s in (1.0, 2.0))
    torch.testing.assert_close(net(u.value, t.value, one), net(u.value, t.value, cond))
    assert (net(u.value, t.value, two) - net(u.value, t.value, one)).abs().max() > 1e-3
    net.guidance.gain.data.zero_()
    assert torch.equal(net(u.value, t.value, two), net(u.value, t.value, one))


@pytest.mark.parametrize("shape", [(3, 2, 7), (3, 1, 8), (3, 2, 8, 8)])
def test_latents_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"multiples of 2: there are 2 levels|expected a latent"):
        unet(1, torch.float32)(torch.zeros(shape), torch.ones(3), Conditioning())


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

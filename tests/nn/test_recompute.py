"""Blocks that compute their activations again give the same value, tangent and gradients."""

from __future__ import annotations

import copy

import pytest
import torch

from modalities.video.backbone import SpaceTimeTransformer
from scm_media.adapters.checkpointing import enable_checkpointing
from scm_media.conditioning import Conditioning
from scm_media.nn.transformer import Transformer
from scm_media.nn.unet import UNet
from scm_media.tangent import value_and_tangent

NETWORKS = {
    "transformer": lambda: Transformer(2, 2, 2, 16, 3, 2, dropout=0.3),
    "space-time": lambda: SpaceTimeTransformer(2, 2, 16, 2, 2),
    "unet": lambda: UNet(2, 2, 8, [1, 2], 1, [1], dropout=0.3),
}


def prepared(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    network = NETWORKS[name]().double().train()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def gradients(network, name: str) -> tuple[torch.Tensor, ...]:
    """Returns value, tangent and gradients, of one pass that carries both."""
    torch.manual_seed(1)
    u, du = torch.randn(2, 3, 2, *(4,) * (3 if name == "space-time" else 2), dtype=torch.float64)
    t = torch.tensor([0.3, 0.9, 1.4], dtype=torch.float64)
    dual = value_and_tangent(network, u, t, Conditioning(), du, torch.ones_like(t))
    dual.value.square().sum().backward()
    return dual.value.detach(), dual.tangent, *(each.grad for each in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_value_tangent_and_gradients_do_not_change(name):
    network = prepared(name)
    recomputing = copy.deepcopy(network)
    enable_checkpointing(recomputing)
    for one, other in zip(gradients(network, name), gradients(recomputing, name), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_activations_are_not_kept_and_tangents_not_computed_again():
    kept, calls = [], []
    for recompute in (False, True):
        network, saved = prepared("transformer"), []
        network.recompute = recompute
        for block in network.blocks:
            block.register_forward_pre_hook(lambda _, inputs: calls.append(type(inputs[0]).__name__))
        u = torch.randn(3, 2, 16, 16, dtype=torch.float64)

        def keep(x, saved=saved):
            saved.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            t = torch.full((3,), 0.5, dtype=torch.float64)
            dual = value_and_tangent(network, u, t, Conditioning(), u, torch.ones_like(t))
        kept.append(sum(saved))
        dual.value.sum().backward()
    assert kept[1] < 0.35 * kept[0]
    assert calls == ["DualTensor"] * 6 + ["Tensor"] * 3


def test_gains_of_old_files_are_read():
    network = prepared("unet")
    old = {name: value[0] if name.endswith("gain") else value for name, value in network.state_dict().items()}
    assert old["out_gain"].ndim == 0
    fresh = NETWORKS["unet"]().double()
    fresh.load_state_dict(old)
    assert torch.equal(fresh.out_gain, network.out_gain) and fresh.out_gain.shape == (1,)

"""The cost of a recipe is held against networks that have storage and against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from scm_media import recipe
from scm_media.build import build
from scm_media.conditioning import Conditioning
from scm_media.nn.transformer import Transformer
from scm_media.nn.unet import UNet
from scm_media.recipe.cost import WEIGHT_COPIES, _count_sample, count_cost, count_parameters
from tests.adapters.small import KINDS, network


def test_multiply_adds_and_kept_bytes_of_a_matrix_layer_are_those_by_hand():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(10, 7, bias=False)

        def forward(self, u, t, cond):
            return self.linear(u)

    assert _count_sample(Layer(), (5, 10), narrow=False) == (5 * 10 * 7, 5 * 10 * 4)


def test_attention_over_many_places_is_counted():
    few, many = (
        _count_sample(UNet(1, 1, 8, (1,), 1, levels, head_width=8), (1, 1024), False)[0] for levels in ((), (0,))
    )
    blocks = 3  # one in the encoder, two in the decoder; the middle attends in any case
    assert many - few == blocks * (2 * 1024 * 1024 * 8 + 4 * 8 * 8 * 1024)


def test_memory_follows_the_share_of_a_device():
    config = recipe.compose("image/tiny")
    whole = count_cost(config)
    assert whole.parameters == count_parameters(config)
    weights = (WEIGHT_COPIES + 1) * 4 * whole.parameters  # and the average of 0.10 that snapshots are taken of
    config["trainer"]["accumulate"], config["num_devices"] = 4, 2
    part = count_cost(config)
    assert (whole.samples_per_pass, part.samples_per_pass) == (32, 4)
    assert (whole.training_bytes - weights) == 8 * (part.training_bytes - weights)
    config["student"]["ema_std"] = 0.07
    assert count_cost(config).training_bytes == part.training_bytes + 4 * whole.parameters
    config["trainer"]["snapshot_every"] = 0
    assert count_cost(config).training_bytes == part.training_bytes - 4 * whole.parameters


def test_divided_weights_and_recomputed_activations_take_less():
    config = recipe.compose("image/fashion", ["backbone.depth=12", "student.batch_size=64", "precision=32-true"])
    config["num_devices"], config["trainer"]["accumulate"] = 8, 8
    whole = count_cost(config)
    config["strategy"] = "fsdp"
    divided = count_cost(config)
    saved = whole.training_bytes - divided.training_bytes
    assert 0.7 * 7 / 8 < saved / (4 * (WEIGHT_COPIES + 1) * whole.parameters) < 7 / 8
    config["trainer"]["gradient_checkpointing"] = True
    assert divided.training_bytes - count_cost(config).training_bytes > 0.5 * _kept(config)


def _kept(config) -> int:
    """Returns the bytes that one sample keeps for the backward pass when nothing is computed again."""
    again = {**config, "strategy": "ddp", "trainer": {**config["trainer"], "gradient_checkpointing": False}}
    return count_cost(again).training_bytes - 4 * (WEIGHT_COPIES + 1) * count_cost(again).parameters


@pytest.mark.parametrize("recompute", [False, True])
def test_kept_bytes_are_those_that_a_pass_keeps(recompute):
    network = Transformer(2, 2, 2, 64, 4, 2)
    network.recompute = recompute
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    saved: dict[int, torch.Tensor] = {}
    own = {parameter.data_ptr() for parameter in network.parameters()}

    def keep(tensor):
        if tensor.data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    inputs = []
    for block in network.blocks:
        block.register_forward_pre_hook(lambda _, given: inputs.append(given[0]) if len(inputs) < 4 else None)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.randn(1, 2, 32, 32), torch.rand(1), Conditioning())
    outside = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    counted = _count_sample(Transformer(2, 2, 2, 64, 4, 2), (2, 32, 32), False, recompute)[1]
    if not recompute:
        assert counted == pytest.approx(outside, rel=0.05)
    else:  # inputs of all blocks, and the activations of one
        least = outside + sum(each.untyped_storage().nbytes() for each in inputs)
        one = (_count_sample(Transformer(2, 2, 2, 64, 4, 2), (2, 32, 32), False)[1] - outside) / 4
        assert least < counted < least + 1.2 * one


@pytest.mark.parametrize("recompute", [False, True])
def test_attention_to_a_text_is_counted(recompute):
    width, depth, places, tokens = 64, 4, 256, 1 + 8
    plain, told = (Transformer(2, 2, 2, width, depth, 2, text=text) for text in (None, {"tokens": 5}))
    before, after = (_count_sample(each, (2, 32, 32), False, recompute) for each in (plain, told))
    a_block = 2 * width * width * (places + tokens) + 2 * places * tokens * width + width * 2 * width
    assert after[0] - before[0] == depth * a_block + (tokens - 1) * 5 * width
    assert after[1] > before[1] + 4 * places * tokens


@pytest.mark.parametrize(("name", "million", "giga"), [("image/imagenet64-xl", 1119, 406), ("image/cifar10", 31, 2.8)])
def test_large_recipes_are_counted_without_storage(name, million, giga):
    counted = count_cost(recipe.compose(name, ["data.root=none"]))
    assert counted.parameters / 1e6 == pytest.approx(million, rel=0.03)
    assert counted.multiply_adds / 1e9 == pytest.approx(giga, rel=0.05)


FEW = ("UNet2DConditionModel", "WanTransformer3DModel")


@pytest.mark.parametrize(
    "name", [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in sorted({*KINDS} - {*FEW}))]
)
def test_networks_of_diffusers_are_counted_as_they_are_called(name):
    """Their schedulers' levels have values where nothing else has, and they get the labels and texts that they need."""
    pytest.importorskip("diffusers")
    _, scheduler, shape = KINDS[name]
    given = {"network": name, "config": dict(network(name).config), "scheduler": scheduler}
    config = {"_target_": "scm_media.adapters.backbone.diffusers_backbone", **given}
    with FakeTensorMode(allow_non_fake_inputs=True):
        counted = _count_sample(build(config, "backbone"), shape, narrow=False)
    multiply_adds, kept = _count_sample(build(config, "backbone"), shape, narrow=False)
    assert counted[0] == multiply_adds > 0
    assert counted[1] == pytest.approx(kept, rel=0.02), "attention may run by another kernel"

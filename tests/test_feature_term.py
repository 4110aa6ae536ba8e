"""The regression's second term: the distance of the teacher's hidden features."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from modalities.image.backbone import unet
from scm_media.conditioning import Conditioning
from scm_media.guidance import Guided
from scm_media.hidden_features import HiddenLayer, feature_distance
from scm_media.losses import RegressionLoss
from scm_media.nn.transformer import Transformer
from scm_media.training.stages import backbones
from scm_media.trajectories import Trajectory
from scm_media.trigflow import TrigFlow

FLOW = TrigFlow(0.5)


class Blocks(nn.Module):
    """A network with a list of blocks, and a shorter list of layers without weights."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, width, 1)
        self.few = nn.ModuleList(nn.Identity() for _ in range(2))
        self.blocks = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(3))
        self.last = nn.Conv1d(width, 1, 1)

    def forward(self, u, t, cond):
        x = self.first(u)
        for block in self.blocks:
            x = torch.tanh(block(x))
        return self.last(x)


class Constant(nn.Module):
    """A student whose samples are one value: its F is that of data at one point."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, u, t, cond):
        x_t, t = u * 0.5, t.reshape(-1, 1, 1)
        return (torch.cos(t) * x_t - self.value) / torch.sin(t) / 0.5


def points(end: float, num: int = 4) -> Trajectory:
    generator = torch.Generator().manual_seed(1)
    x_t, t = torch.randn(num, 1, 6, generator=generator), torch.linspace(0.2, 1.5, num)
    return Trajectory(x_t, t, torch.full((num, 1, 6), end))


def test_features_are_those_of_the_middle_of_the_longest_list():
    assert HiddenLayer(Blocks()).name == "blocks.1"
    transformer = Transformer(in_channels=2, rank=1, patch=2, width=16, depth=4, num_heads=2)
    layer = HiddenLayer(transformer)
    assert layer.name == "blocks.2" and layer.width == 16
    with layer.reading() as features, layer.reading() as again:
        transformer(torch.randn(3, 2, 8), torch.rand(3), Conditioning())
    assert features[0].shape == (3, 4, 16) and torch.equal(features[0], again[0])
    transformer(torch.randn(3, 2, 8), torch.rand(3), Conditioning())
    assert len(features) == 1, "the hook goes with the block"


@pytest.mark.parametrize(
    ("network", "layer", "message"),
    [
        (nn.Linear(2, 2), None, "Linear has no list of blocks to read features of: name a layer"),
        (Blocks(), "blocks.7", "Blocks has no layer 'blocks.7'"),
        (Blocks(), "few.0", "'few.0' has no weights"),
    ],
)
def test_layers_that_cannot_be_are_refused(network, layer, message):
    with pytest.raises(ValueError, match=message):
        HiddenLayer(network, layer)


def test_features_of_another_width_are_refused():
    network = Blocks()
    network.blocks[1] = nn.Sequential(network.blocks[1], nn.Flatten(1), nn.Unflatten(1, (8, -1)))
    network.blocks[2], network.last = nn.Conv1d(8, 8, 1), nn.Conv1d(8, 1, 1)
    with (
        pytest.raises(ValueError, match=r"'blocks.1' gives features \(2, 8, 3\), and 4 channels"),
        HiddenLayer(network).reading(),
    ):
        network(torch.zeros(2, 1, 6), None, None)


@pytest.mark.parametrize("size", ["nano", "micro", "mini", "xxs"])
def test_features_of_a_u_net_are_those_of_a_layer_that_is_called(size):
    network = unet(in_channels=1, size=size)
    layer = HiddenLayer(network)
    with layer.reading() as features, torch.no_grad():
        network(torch.randn(1, 1, 16, 16), torch.rand(1), Conditioning())
    assert len(features) == 1 and features[0].shape[-1] == layer.width


def test_a_layer_that_is_not_called_is_refused():
    network = Blocks()
    network.unused = nn.Linear(2, 2)
    loss = RegressionLoss(Constant(0.3), FLOW, teacher=network, feature_weight=1.0, feature_layer="unused")
    with pytest.raises(ValueError, match="'unused' was called 0 times for two samples, expected 2"):
        loss(points(0.3))


def test_a_layer_of_two_streams_is_refused():
    class Two(Blocks):
        def forward(self, u, t, cond):
            return self.first(u), self.last(self.first(u))

    network = nn.ModuleList([Two()])
    several = pytest.raises(ValueError, match=r"'0' gives several tensors.*such as 0\.ff")
    with several, HiddenLayer(network, "0").reading():
        network[0](torch.zeros(2, 1, 6), None, None)


def test_channels_as_many_as_positions_are_still_channels():
    network = Blocks(6)
    with HiddenLayer(network).reading() as features:
        network(torch.randn(2, 1, 6), None, None)
        network.blocks[1].register_forward_hook(lambda module, inputs, output: features.append(output))
        network(torch.zeros(2, 1, 6), None, None)
    assert torch.equal(features[1], features[2].transpose(1, 2))


def test_the_distance_is_that_of_directions():
    one = torch.tensor([[[3.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [1.0, 0.0]]])
    other = torch.tensor([[[5.0, 0.0], [0.0, -1.0]], [[0.0, 7.0], [1.0, 1.0]]])
    expected = [(0 + 4) / 2, (2 + 2 - math.sqrt(2)) / 2]
    assert feature_distance(one, other).tolist() == pytest.approx(expected)


def test_a_student_that_makes_the_ends_has_no_distance():
    teacher = Blocks()
    loss = RegressionLoss(Constant(0.3), FLOW, teacher=teacher, feature_weight=1.0)
    value, terms = loss(points(0.3))
    assert value.item() < 1e-6 and terms["features"].shape == (4,)
    value, terms = loss(points(-0.3))
    assert value.item() == pytest.approx((terms["loss"] + terms["features"]).mean().item())
    assert terms["features"].min() > 1e-3 and terms["loss"].mean().item() == pytest.approx(0.36, rel=1e-3)


def test_the_term_trains_the_student_and_not_the_teacher():
    teacher = Blocks()
    gradients = []
    for weight in (0.0, 2.0):
        student = Constant(0.3)
        loss = RegressionLoss(student, FLOW, teacher=Guided(teacher, 2.0), feature_weight=weight)
        torch.manual_seed(0)
        loss(points(-0.1))[0].backward()
        gradients.append(student.value.grad.item())
    assert gradients[0] == pytest.approx(2 * 0.4, rel=1e-3) and gradients[1] != pytest.approx(gradients[0], rel=0.02)
    assert all(each.grad is None and not each.requires_grad for each in teacher.parameters())


def test_both_have_the_same_noise_and_parts_without_loss_do_not_count():
    teacher, student = Blocks(), Constant(0.3)
    loss = RegressionLoss(student, FLOW, teacher=teacher, feature_weight=1.0)
    mask = torch.zeros(4, 1, 6)
    mask[..., :2] = 1
    ends = points(0.3)
    spoiled = Trajectory(ends.x_t, ends.t, torch.where(mask > 0, ends.x0, torch.tensor(9.0)))
    _, terms = loss(spoiled, Conditioning(padding_mask=mask))
    assert terms["features"].max() < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_weight": -0.1}, "feature_weight must be at least 0, got -0.1"),
        ({"feature_weight": 1.0}, "feature_weight needs a teacher"),
        ({"feature_weight": 1.0, "teacher": nn.Linear(1, 1)}, "has no list of blocks"),
        ({"feature_weight": 1.0, "teacher": Blocks(), "feature_layer": "none.3"}, "no layer 'none.3'"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RegressionLoss(Constant(0.3), FLOW, **options)


def test_a_network_within_another_is_read_by_its_own_names():
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = Blocks()

    assert HiddenLayer(Wrapper()).name == "blocks.1"


def test_a_network_whose_features_are_read_is_not_compiled(monkeypatch):
    """A compiled network does not call the hooks that are added later."""
    compiled = []
    monkeypatch.setattr(backbones, "compile_for", lambda context, network, *rest: compiled.append(network))
    context = SimpleNamespace(device="cpu", tangent_method=None)
    teacher, guide, student = Blocks(), Blocks(), Constant(0.3)
    for weight in (0.0, 1.0):
        guided = Guided(teacher, 2.0, guide=guide)
        loss = RegressionLoss(student, FLOW, teacher=guided, feature_weight=weight)
        backbones._compilation(context, loss, guided)()
    assert compiled == [student, teacher, guide, student, guide]

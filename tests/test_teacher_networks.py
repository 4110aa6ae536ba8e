"""Networks of other frameworks as teachers: their tangents, precision, labels, outputs and settings."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch import nn

from scm_media.conditioning import NO_LABEL, Conditioning
from scm_media.nn.dual import Linear, add, apply_linear, silu
from scm_media.nn.embedding import ScalarEmbedding
from scm_media.samplers import sample_heun, teacher_times
from scm_media.tangent import value_and_tangent
from scm_media.teachers import (
    EDM,
    ContinuousSchedule,
    DiscreteSchedule,
    EpsPrediction,
    LinearSchedule,
    RectifiedFlow,
    VPrediction,
    X0Prediction,
)
from scm_media.trigflow import TrigFlow
from tests.gaussian_teachers import ALPHAS_CUMPROD, NOTHING, SHAPE, cosine, improved, improved_alpha


class Carrying(nn.Module):
    """A small network of (y, time), and of a label where one is given, that carries pairs."""

    def __init__(self, carries: bool = True) -> None:
        super().__init__()
        self.first, self.time, self.last = Linear(6, 16), ScalarEmbedding(16, 8), Linear(16, 6)
        self.label = nn.Embedding(5, 16)
        self.carries = carries
        self.labels = None

    def forward(self, y, time, label=None):
        self.labels = label
        if not self.carries:
            y, time = torch.sin(y), torch.cos(time)
        x = add(self.first(apply_linear(lambda v: v.flatten(1), y)), self.time(time))
        if label is not None:
            x = add(x, self.label(label))
        return apply_linear(lambda v: v.unflatten(1, SHAPE), self.last(silu(x)))


ALL_KINDS = {
    "edm": lambda network: EDM(network),
    "denoiser": lambda network: EDM(network, preconditioned=True),
    "eps": lambda network: EpsPrediction(network, ALPHAS_CUMPROD),
    "v": lambda network: VPrediction(network, LinearSchedule(), 0.8),
    "x0": lambda network: X0Prediction(
        network, ContinuousSchedule(improved_alpha, lambda s: improved(s)[1], 1e-3, 0.9)
    ),
    "rectified": lambda network: RectifiedFlow(network),
}


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_network_that_carries_pairs_gives_its_tangent_in_one_pass(kind):
    teacher = ALL_KINDS[kind](Carrying()).double()
    u, t = torch.randn(4, *SHAPE, dtype=torch.float64), torch.tensor([0.2, 0.6, 1.0, 1.3], dtype=torch.float64)
    du, dt = torch.randn_like(u), torch.rand_like(t)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair = value_and_tangent(teacher, u, t, NOTHING, du, dt)
    other = value_and_tangent(teacher, u, t, NOTHING, du, dt, "forward")
    torch.testing.assert_close(pair.tangent, other.tangent)
    assert torch.equal(pair.value, other.value)
    assert pair.value.requires_grad and not pair.tangent.requires_grad


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_teacher_is_captured_whole(kind):
    teacher = ALL_KINDS[kind](Carrying())
    u, t = torch.randn(4, *SHAPE), torch.tensor([0.2, 0.6, 1.0, 1.3])
    torch._dynamo.reset()
    captured = torch.compile(teacher, backend="eager", fullgraph=True)
    torch.testing.assert_close(captured(u, t), teacher(u, t))
    assert TrigFlow.of(captured) == TrigFlow(teacher.sigma_data)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_any_other_network_carries_it_as_a_tensor(kind):
    teacher = ALL_KINDS[kind](Carrying(carries=False)).double()
    u, t = torch.randn(2, *SHAPE, dtype=torch.float64), torch.tensor([0.2, 1.3], dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair = value_and_tangent(teacher, u, t, NOTHING, u, t)
    expected = value_and_tangent(teacher, u, t, NOTHING, u, t, "forward")
    torch.testing.assert_close(pair.tangent, expected.tangent)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_16_bit_network_is_called_in_its_own_type_and_converted_in_float32(kind):
    torch.manual_seed(0)
    teacher = ALL_KINDS[kind](Carrying())
    seen = []
    narrow = copy.deepcopy(teacher).bfloat16()
    narrow.call = lambda network, y, time, cond: seen.append((y.dtype, time.dtype)) or network(y, time.to(y.dtype))
    u, t = torch.randn(8, *SHAPE), torch.linspace(0.3, 1.2, 8)
    F = narrow(u, t)
    assert F.dtype == torch.float32
    assert seen == [(torch.bfloat16, torch.float32)]
    if kind not in ("eps", "x0"):  # timesteps up to 1000 do not fit into 16 bits; x0's error is divided by sin t
        torch.testing.assert_close(F, teacher(u, t), rtol=0.1, atol=0.15)


def test_the_label_reaches_the_network():
    network = Carrying()
    teacher, u, t = EDM(network), torch.randn(3, *SHAPE), torch.tensor([0.3, 0.7, 1.2])
    teacher(u, t)
    assert network.labels is None
    label = torch.tensor([0, 4, 2])
    for cond in (label, {"class": label}, Conditioning(labels={"kind": label})):
        network.labels = None
        teacher(u, t, cond)
        assert torch.equal(network.labels, label)
    assert not torch.equal(teacher(u, t, label), teacher(u, t))
    with pytest.raises(ValueError, match="one label is expected, got class, pitch"):
        teacher(u, t, {"class": label, "pitch": label})
    with pytest.raises(ValueError, match="give call="):
        teacher(u, t, Conditioning(tokens=torch.zeros(3, 1, 2)))


def test_networks_that_ask_for_a_label_get_none_where_there_is_none():
    seen = []

    class Published(nn.Module):
        """The signature of EDM's and EDM2's networks."""

        def forward(self, x, noise_labels, class_labels, augment_labels=None):
            seen.append(class_labels)
            return x

    teacher = EDM(Published())
    teacher(torch.randn(2, *SHAPE), torch.tensor([0.3, 0.7]))
    teacher(torch.randn(2, *SHAPE), torch.tensor([0.3, 0.7]), torch.tensor([3, 1]))
    assert seen[0] is None
    assert seen[1].tolist() == [3, 1]


def test_a_call_of_ones_own_decides_what_the_network_gets():
    def call(network, y, time, cond):
        label = torch.where(cond.labels["class"] == NO_LABEL, 4, cond.labels["class"])
        return network(y, time, label)

    network = Carrying()
    teacher = EDM(network, call=call)
    teacher(torch.randn(2, *SHAPE), torch.tensor([0.3, 0.7]), torch.tensor([1, NO_LABEL]))
    assert network.labels.tolist() == [1, 4]


@pytest.mark.parametrize("returned", ["tuple", "variance"])
def test_another_output_is_refused_with_the_remedy(returned):
    class Foreign(nn.Module):
        def forward(self, y, time):
            return (y,) if returned == "tuple" else torch.cat([y, y], 1)

    got = "tuple" if returned == "tuple" else r"\(2, 4, 3\)"
    with pytest.raises(ValueError, match=f"Foreign returned {got} for an input .* give call="):
        RectifiedFlow(Foreign())(torch.randn(2, *SHAPE), torch.tensor([0.3, 0.7]))


def test_settings_that_cannot_be_are_refused():
    class Preconditioned(nn.Module):
        sigma_data = 0.5

    for sigma_data in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="sigma_data must be a positive standard deviation"):
            RectifiedFlow(nn.Identity(), sigma_data)
    with pytest.raises(ValueError, match="preconditioned=True, or the raw network"):
        EDM(Preconditioned())
    with pytest.raises(ValueError, match=r"sigma_data is 1.0, but the network's own is 0.5"):
        EDM(Preconditioned(), 1.0, preconditioned=True)
    EDM(Preconditioned(), 0.5, preconditioned=True)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (lambda: ContinuousSchedule(lambda s: 1 - s, lambda s: s), "alpha² \\+ sigma² = 1, got 0.5.*RectifiedFlow"),
        (lambda: ContinuousSchedule(lambda s: cosine(s)[1], lambda s: cosine(s)[0]), "must rise from s = 0.0 to 1.0"),
        (lambda: LinearSchedule(2.0, 1.0), "beta_min < beta_max, got 2.0 and 1.0"),
        (lambda: DiscreteSchedule(torch.ones(3, 2)), r"must be \(T,\) .* got \(3, 2\)"),
        (lambda: DiscreteSchedule(torch.tensor([0.1, 0.5, 0.9])), "must fall strictly .* got 0.1 to 0.9"),
        (lambda: DiscreteSchedule(torch.tensor([1.0, 0.5])), "must fall strictly"),
    ],
)
def test_schedules_that_cannot_be_are_refused(schedule, message):
    with pytest.raises(ValueError, match=message):
        schedule()


def test_a_copy_has_weights_of_its_own_and_the_state_of_the_network():
    teacher = EpsPrediction(Carrying(), ALPHAS_CUMPROD, 0.8)
    student = copy.deepcopy(teacher)
    assert {name for name, _ in student.named_parameters()} == {
        f"network.{n}" for n, _ in Carrying().named_parameters()
    }
    nn.init.zeros_(student.network.last.weight)
    assert teacher.network.last.weight.abs().max() > 0
    assert TrigFlow.of(student, teacher) == TrigFlow(0.8)


def test_the_flow_and_the_times_follow_the_network():
    teacher = EpsPrediction(Carrying(), ALPHAS_CUMPROD)
    assert TrigFlow.of(teacher) == TrigFlow(1.0)
    seen = []
    sample_heun(teacher, shape=(1, *SHAPE), steps=4, seed=0, callback=lambda i, time, x0: seen.append(time))
    low, high = (math.tan(time) for time in teacher.time_range)
    assert high == pytest.approx(math.sqrt(1 / ALPHAS_CUMPROD[-1] - 1))
    assert seen == pytest.approx(teacher_times(4, TrigFlow(1.0), low, high)[:-1])

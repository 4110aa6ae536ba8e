"""Networks of other frameworks in closed form, for Gaussian data, against TrigFlow's own closed form of F."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch import Tensor, nn

from scm_media.conditioning import NO_LABEL, Conditioning
from scm_media.nn.dual import Linear, add, apply_linear, silu
from scm_media.nn.embedding import ScalarEmbedding
from scm_media.samplers import rectified_flow_times, sample_dpm_solver, sample_heun, teacher_times
from scm_media.tangent import value_and_tangent
from scm_media.teachers import (
    EDM,
    ContinuousSchedule,
    CosineSchedule,
    DiscreteSchedule,
    EpsPrediction,
    LinearSchedule,
    RectifiedFlow,
    VPrediction,
    X0Prediction,
)
from scm_media.timesteps import LogNormalTimesteps
from scm_media.trigflow import TrigFlow, broadcast_time
from tests.oracles import Gaussian

NOTHING = Conditioning()
SHAPE = (2, 3)
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS_CUMPROD = torch.cumprod(1 - BETAS, 0)


class Posterior:
    """E[x0 | y] and E[n | y] for y = α x0 + σ n and Gaussian x0, as predictions of the networks under test."""

    def __init__(self, sigma_data: float) -> None:
        self.oracle = Gaussian.random(SHAPE)
        self.oracle.flow = TrigFlow(sigma_data)

    def __call__(self, y: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = broadcast_time(alpha, y), broadcast_time(sigma, y)
        mean, variance = self.oracle.mean, self.oracle.deviation**2
        error = (y - alpha * mean) / (alpha**2 * variance + sigma**2)
        return mean + alpha * variance * error, sigma * error

    def eps(self, path):
        return lambda y, s: self(y, *path(s))[1]

    def x0(self, path):
        return lambda y, s: self(y, *path(s))[0]

    def v(self, path):
        def network(y, s):
            x0, n = self(y, *path(s))
            alpha, sigma = (broadcast_time(each, y) for each in path(s))
            return alpha * n - sigma * x0

        return network

    def velocity(self, time_scale=1.0):
        def network(y, s):
            x0, n = self(y, 1 - s / time_scale, s / time_scale)
            return n - x0

        return network

    def denoiser(self, y, sigma):
        return self(y, torch.ones_like(sigma), sigma)[0]

    def raw_edm(self, u, c_noise):
        """(D − c_skip y) / c_out of EDM, with the terms that cancel at small sigma left out."""
        sigma, data = broadcast_time(torch.exp(4 * c_noise), u), self.oracle.flow.sigma_data
        variance, total = self.oracle.deviation**2, sigma**2 + data**2
        y = u * torch.sqrt(total)
        inner = self.oracle.mean + y * (variance - data**2) / total
        return sigma * torch.sqrt(total) / data * inner / (variance + sigma**2)


def cosine(s):
    return torch.cos(math.pi / 2 * s), torch.sin(math.pi / 2 * s)


def linear(s):
    log_alpha = -(s**2) * 19.9 / 4 - s * 0.05
    return torch.exp(log_alpha), torch.sqrt(-torch.expm1(2 * log_alpha))


def discrete(s):
    """Stable Diffusion's timesteps, between them linear in the angle."""
    angles = torch.acos(torch.sqrt(ALPHAS_CUMPROD))
    before = s.detach().floor().long().clamp(0, 998)
    angle = angles[before] + (s - before) * (angles[before + 1] - angles[before])
    return torch.cos(angle), torch.sin(angle)


OFFSET = 0.008


def improved_alpha(s):
    """The cosine with an offset of improved DDPM, up to where it is not yet zero."""
    return torch.cos(math.pi / 2 * (s + OFFSET) / (1 + OFFSET)) / math.cos(math.pi / 2 * OFFSET / (1 + OFFSET))


def improved(s):
    alpha = improved_alpha(s)
    return alpha, torch.sqrt((1 - alpha) * (1 + alpha))


SCHEDULES = {
    "cosine": (cosine, lambda: CosineSchedule()),
    "linear": (linear, lambda: LinearSchedule()),
    "functions": (improved, lambda: ContinuousSchedule(improved_alpha, lambda s: improved(s)[1], 1e-3, 0.999)),
    "discrete": (discrete, lambda: ALPHAS_CUMPROD),
}
PREDICTIONS = {"eps": EpsPrediction, "v": VPrediction, "x0": X0Prediction}
TEACHERS = ["edm", "denoiser", "rectified", "rectified 1000"]
TEACHERS += [f"{prediction} {schedule}" for prediction in PREDICTIONS for schedule in SCHEDULES]


def make(name: str, sigma_data: float = 0.5):
    """The teacher of a name, and the closed form of its F."""
    posterior = Posterior(sigma_data)
    if name == "edm":
        teacher = EDM(posterior.raw_edm, sigma_data)
    elif name == "denoiser":
        teacher = EDM(posterior.denoiser, sigma_data, preconditioned=True)
    elif name == "rectified":
        teacher = RectifiedFlow(posterior.velocity(), sigma_data)
    elif name == "rectified 1000":
        teacher = RectifiedFlow(posterior.velocity(1000.0), sigma_data, time_scale=1000.0)
    else:
        prediction, schedule = name.split()
        path, given = SCHEDULES[schedule]
        teacher = PREDICTIONS[prediction](getattr(posterior, prediction)(path), given(), sigma_data)
    return teacher, posterior.oracle


def inputs(teacher, inside: float = 0.0):
    """u and t at the ends of the teacher's range, near them (or from ``inside`` on) and between them."""
    low, high = teacher.time_range
    distances = [max(distance, inside) for distance in (0.0, 1e-6, 1e-4, 1e-3, 1e-2)]
    times = [low + each for each in distances] + [0.3, 0.8, 1.2] + [high - each for each in distances]
    t = torch.tensor(times, dtype=torch.float64)
    return torch.randn(len(t), *SHAPE, dtype=torch.float64), t


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 0.23, 2.1])
@pytest.mark.parametrize("name", TEACHERS)
def test_F_is_that_of_the_closed_form(name, sigma_data):
    teacher, oracle = make(name, sigma_data)
    u, t = inputs(teacher)
    exact = value_and_tangent(oracle, u, t, NOTHING, torch.zeros_like(u), torch.ones_like(t))
    # At the very ends t is clamped by 1.5e-8, which changes F by as much as it moves meanwhile.
    clamped = 1.5e-8 * ((t == 0) | (t == math.pi / 2))
    bound = 1e-6 + 1e-6 * exact.value.abs() + broadcast_time(clamped, u) * exact.tangent.abs()
    assert ((teacher(u, t) - exact.value).abs() <= bound).all()


@pytest.mark.parametrize("sigma_data", [0.5, 1.7])
@pytest.mark.parametrize("name", TEACHERS)
def test_the_tangent_is_that_of_the_closed_form_and_of_finite_differences(name, sigma_data):
    teacher, oracle = make(name, sigma_data)
    u, t = inputs(teacher, inside=1e-4)
    du, dt = torch.randn_like(u), torch.rand_like(t)
    tangent = value_and_tangent(teacher, u, t, NOTHING, du, dt, "forward").tangent
    exact = value_and_tangent(oracle, u, t, NOTHING, du, dt).tangent
    torch.testing.assert_close(tangent, exact, rtol=1e-6, atol=1e-6)
    h = 1e-5
    differences = (teacher(u + h * du, t + h * dt) - teacher(u - h * du, t - h * dt)) / (2 * h)
    torch.testing.assert_close(tangent, differences, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TEACHERS)
def test_dF_dt_along_the_trajectory_is_the_closed_form(name):
    teacher, oracle = make(name)
    u, t = inputs(teacher, inside=1e-4)
    along = value_and_tangent(teacher, u, t, NOTHING, teacher(u, t), torch.ones_like(t), "forward").tangent
    torch.testing.assert_close(along, oracle.slope(0.5 * u, t), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", TEACHERS)
def test_in_float32_F_is_finite_and_right_everywhere(name):
    teacher, oracle = make(name)
    low, high = teacher.time_range
    t = torch.cat([torch.tensor([0.0, low, high, math.pi / 2]), torch.linspace(low, high, 60)])
    u = torch.randn(len(t), *SHAPE)
    with_float32 = teacher(u, t)
    assert with_float32.dtype == torch.float32
    inside = t.double().clamp(low, high)
    torch.testing.assert_close(with_float32.double(), oracle(u.double(), inside, NOTHING), rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("name", ["eps discrete", "v discrete", "x0 discrete", "eps linear"])
def test_beyond_the_schedule_F_depends_on_u_alone(name):
    teacher, _ = make(name)
    high = teacher.time_range[1]
    assert high < math.pi / 2 - 1e-3
    u = torch.randn(2, *SHAPE, dtype=torch.float64)
    t = torch.tensor([high + 2e-4, math.pi / 2], dtype=torch.float64)
    torch.testing.assert_close(teacher(u, t), teacher(u, torch.full_like(t, high)), rtol=1e-12, atol=1e-12)
    tangent = value_and_tangent(teacher, u, t, NOTHING, torch.zeros_like(u), torch.ones_like(t), "forward").tangent
    assert tangent.abs().max() == 0


@pytest.mark.parametrize("name", ["edm", "eps discrete", "v cosine", "x0 linear", "rectified"])
@pytest.mark.parametrize("sampler", [sample_heun, sample_dpm_solver])
def test_a_teacher_is_sampled_in_its_own_units(name, sampler):
    teacher, oracle = make(name, sigma_data=1.0)
    samples = sampler(teacher, noise=torch.randn(20_000, *SHAPE, dtype=torch.float64), steps=40)
    tolerance = 0.08 if name == "eps discrete" else 0.02  # its noisiest level still holds 7 % of the data
    torch.testing.assert_close(samples.mean(0), oracle.mean, atol=tolerance, rtol=0)
    torch.testing.assert_close(samples.std(0), oracle.deviation, atol=0.01, rtol=0.02)


def test_timesteps_are_those_of_the_training():
    teacher, _ = make("eps discrete", 1.0)
    seen = []
    teacher.call = lambda network, y, time, cond: seen.append(time) or y
    t = torch.atan(torch.sqrt((1 - ALPHAS_CUMPROD) / ALPHAS_CUMPROD))
    teacher(torch.zeros(1000, *SHAPE, dtype=torch.float64), t)
    torch.testing.assert_close(seen[0], torch.arange(1000, dtype=torch.float64), rtol=0, atol=1e-6)
    teacher(torch.zeros(999, *SHAPE, dtype=torch.float64), (t[1:] + t[:-1]) / 2)
    torch.testing.assert_close(seen[1], torch.arange(999, dtype=torch.float64) + 0.5, rtol=0, atol=1e-6)


def test_a_schedule_may_end_without_any_signal():
    products = torch.cos(torch.linspace(0.02, math.pi / 2, 500, dtype=torch.float64)) ** 2
    products[-1] = 0

    def path(s):
        angle = 0.02 + s * (math.pi / 2 - 0.02) / 499
        return torch.cos(angle), torch.sin(angle)

    posterior = Posterior(0.5)
    teacher = VPrediction(posterior.v(path), products, 0.5)
    assert teacher.time_range[1] == pytest.approx(math.pi / 2)
    t = torch.tensor([math.pi / 2, math.pi / 2 - 1e-5, 1.2], dtype=torch.float64)
    u = torch.randn(3, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(teacher(u, t), posterior.oracle(u, t, NOTHING), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_shifts_choose_noise_levels(shift):
    flow = TrigFlow(0.7)
    times = rectified_flow_times(5, flow, shift)
    s = torch.tensor([math.tan(time) * 0.7 / (1 + math.tan(time) * 0.7) for time in times])
    even = torch.linspace(1, 0, 6)
    torch.testing.assert_close(s, shift * even / (1 + (shift - 1) * even))
    torch.manual_seed(0)
    t = LogNormalTimesteps(0.3 + math.log(shift), 0.9).sample(1000, 0.7)
    torch.manual_seed(0)
    logit_normal = torch.sigmoid(0.3 + 0.9 * torch.randn(1000))
    s = 0.7 * torch.tan(t) / (1 + 0.7 * torch.tan(t))
    torch.testing.assert_close(s, shift * logit_normal / (1 + (shift - 1) * logit_normal))
    with pytest.raises(ValueError, match="shift must be positive"):
        rectified_flow_times(5, flow, 0.0)


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


def test_any_other_network_gets_it_by_forward_mode_and_says_so():
    teacher = EDM(Carrying(carries=False)).double()
    u, t = torch.randn(2, *SHAPE, dtype=torch.float64), torch.tensor([0.2, 1.3], dtype=torch.float64)
    with pytest.warns(UserWarning, match="EDM cannot carry a value and its tangent in one pass"):
        value_and_tangent(teacher, u, t, NOTHING, u, t)
    assert copy.deepcopy(teacher).accepts_dual is False


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

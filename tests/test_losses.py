from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from scm_media.conditioning import NO_LABEL, Conditioning
from scm_media.losses import ConsistencyLoss, DiffusionLoss, masked_mean_square
from scm_media.nn.dual import Linear, apply_linear
from scm_media.tangent import value_and_tangent
from scm_media.timesteps import LogNormalTimesteps
from scm_media.trigflow import TrigFlow, broadcast_time
from tests.oracles import SHAPES, Gaussian, Mixture

FLOW = TrigFlow(0.5)
NOTHING = Conditioning()
PROPOSAL = LogNormalTimesteps(-1.0, 1.4)
LATE = torch.tensor(10_000)


def fixed(*times):
    """A proposal of these times and no others."""
    return SimpleNamespace(sample=lambda num, sigma_data: torch.tensor(times, dtype=torch.float64).repeat(num))


def draws(oracle, num, time, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x0 = oracle.sample(num, generator)
    z = 0.5 * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    t = torch.full((num,), time, dtype=torch.float64)
    return x0, z, oracle.flow.interpolate(x0, z, t), t


class Affine(nn.Module):
    """A small backbone of any rank that carries a pair: a matrix over channels, scaled by nothing."""

    def __init__(self, channels):
        super().__init__()
        self.mix = Linear(channels, channels)

    def forward(self, u, t, cond):
        return apply_linear(lambda v: v.movedim(-1, 1), self.mix(apply_linear(lambda v: v.movedim(1, -1), u)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("time", [0.3, 1.2])
def test_the_diffusion_loss_of_the_exact_F_is_what_noise_leaves(time, shape):
    oracle = Gaussian.random(shape)
    x0 = oracle.sample(20_000, torch.Generator().manual_seed(123))
    loss, terms = DiffusionLoss(oracle, FLOW, fixed(time), "none", 0.0)(x0, NOTHING, LATE)
    remaining = (oracle.deviation**2 * 0.25 / oracle.variance(torch.tensor(time))).mean().item()
    assert loss.item() == pytest.approx(remaining, rel=0.02)
    assert terms["loss"].mean().item() == pytest.approx(loss.item())


def test_an_error_of_F_adds_its_square():
    oracle = Gaussian.random((2, 5))
    x0 = oracle.sample(20_000, torch.Generator().manual_seed(123))

    def loss(backbone):
        torch.manual_seed(0)
        return DiffusionLoss(backbone, FLOW, PROPOSAL, "none", 0.0)(x0, NOTHING, LATE)[0].item()

    shifted = loss(lambda u, t, cond: oracle(u, t, cond) + 0.4)
    assert shifted - loss(oracle) == pytest.approx(0.25 * 0.16, rel=0.1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["one_pass", "forward", "finite_difference"])
@pytest.mark.parametrize("time", [0.02, 0.5, 1.1, 1.55])
def test_the_raw_tangent_of_the_exact_consistency_function_is_zero(time, method, shape):
    oracle = Gaussian.random(shape)
    _, _, x_t, t = draws(oracle, 8, time)
    assert_no_residual(oracle, x_t, t, method, 1e-12 if method != "finite_difference" else 1e-7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("time", [0.2, 0.8, 1.4])
def test_the_raw_tangent_of_a_mixtures_consistency_function_is_zero(time, shape):
    oracle = Mixture(shape)
    _, _, x_t, t = draws(oracle, 8, time)
    assert_no_residual(oracle, x_t, t, "finite_difference", 1e-6)


def assert_no_residual(oracle, x_t, t, method, bound):
    speed = torch.sin(t) * torch.cos(t)
    dxdt = 0.5 * oracle(x_t / 0.5, t, NOTHING)
    loss = ConsistencyLoss(oracle.consistency, FLOW, PROPOSAL)
    du = broadcast_time(speed, x_t) * dxdt / 0.5
    pair = value_and_tangent(oracle.consistency, x_t / 0.5, t, NOTHING, du, speed, method)
    g = loss.unnormalized_tangent(x_t, dxdt, pair.value, pair.tangent, t, 1.0)
    assert g.abs().max() < bound
    wrong = loss.unnormalized_tangent(x_t, dxdt, pair.value + 0.1, pair.tangent, t, 1.0)
    assert wrong.abs().max() > 0.04 * math.cos(t[0]) ** 2


@pytest.mark.parametrize("shape", SHAPES)
def test_distillation_of_the_exact_teacher_leaves_the_exact_map_alone(shape):
    oracle = Gaussian.random(shape)
    x0 = oracle.sample(64, torch.Generator().manual_seed(123))
    loss, terms = ConsistencyLoss(oracle.consistency, FLOW, PROPOSAL, teacher=oracle)(x0, NOTHING, LATE)
    assert terms["g_rms"].max() < 2e-6
    assert loss < 1e-9


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("time", [0.4, 1.2])
def test_training_from_data_leaves_the_exact_map_alone_in_the_mean(time, shape):
    oracle = Gaussian.random(shape)
    x0, z, x_t, t = draws(oracle, 40_000, time)
    speed = torch.sin(t) * torch.cos(t)
    loss = ConsistencyLoss(oracle.consistency, FLOW, PROPOSAL)
    dxdt = loss.trajectory_velocity(x0, z, x_t, t, NOTHING)
    pair = value_and_tangent(
        oracle.consistency, x_t / 0.5, t, NOTHING, broadcast_time(speed, x_t) * dxdt / 0.5, speed, "forward"
    )
    g = loss.unnormalized_tangent(x_t, dxdt, pair.value, pair.tangent, t, 1.0)
    assert g.std() > 0.02
    assert g.mean(0).abs().max() < 0.01
    assert (g * (x_t - x_t.mean(0))).mean(0).abs().max() < 0.01


def test_the_reported_slope_is_that_of_the_trajectory():
    oracle = Gaussian.random((2, 5))
    torch.manual_seed(0)
    x0 = oracle.sample(16, torch.Generator().manual_seed(123))
    _, terms = ConsistencyLoss(oracle, FLOW, fixed(0.7), teacher=oracle)(x0, NOTHING, LATE)
    torch.manual_seed(0)
    z = torch.randn_like(x0) * 0.5
    t = torch.full((16,), 0.7, dtype=torch.float64)
    slope = oracle.slope(oracle.flow.interpolate(x0, z, t), t)
    torch.testing.assert_close(terms["dF_dt_rms"].double(), masked_mean_square(slope, None).sqrt(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("norm", "weight"), [("rms", "none"), ("l2", "none"), ("rms", "learned")])
def test_the_gradient_pulls_F_along_the_normalised_tangent(norm, weight, shape):
    torch.manual_seed(0)
    oracle = Gaussian.random(shape, torch.float32)
    net = Affine(shape[0])
    x0 = oracle.sample(8, torch.Generator().manual_seed(123))
    loss = ConsistencyLoss(net, FLOW, PROPOSAL, teacher=oracle, norm=norm, weight=weight)
    torch.manual_seed(1)
    ours = torch.autograd.grad(loss(x0, NOTHING, LATE)[0], list(net.parameters()))

    torch.manual_seed(1)
    z, t = loss.draw(x0)
    x_t = FLOW.interpolate(x0, z, t)
    dxdt = 0.5 * oracle(x_t / 0.5, t, NOTHING)
    cos, sin = (f(broadcast_time(t, x_t)) for f in (torch.cos, torch.sin))
    F = net(x_t / 0.5, t, NOTHING)
    dF = net(dxdt / 0.5, t, NOTHING) - net(torch.zeros_like(x_t), t, NOTHING)
    g = (-(cos**2) * (0.5 * F - dxdt) - cos * sin * (x_t + 0.5 * dF)).detach()
    sizes = g.flatten(1).norm(dim=1) / (g[0].numel() ** 0.5 if norm == "rms" else 1)
    g = g / (broadcast_time(sizes, g) + 0.1)
    theirs = torch.autograd.grad(-2 * (F * g).mean(), list(net.parameters()))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("step", "r"), [(0, 0.0), (50, 0.25), (200, 1.0), (900, 1.0)])
def test_the_tangent_is_warmed_up(step, r):
    oracle = Gaussian.random((2, 5))
    x0 = oracle.sample(16, torch.Generator().manual_seed(123))
    loss = ConsistencyLoss(oracle, FLOW, fixed(0.7), teacher=oracle, tangent_warmup=200)
    torch.manual_seed(0)
    _, terms = loss(x0, NOTHING, torch.tensor(step))
    torch.manual_seed(0)
    z = torch.randn_like(x0) * 0.5
    t = torch.full((16,), 0.7, dtype=torch.float64)
    x_t = oracle.flow.interpolate(x0, z, t)
    expected = r * math.sin(0.7) * math.cos(0.7) * (x_t + 0.5 * oracle.slope(x_t, t))
    torch.testing.assert_close(terms["g_rms"].double(), masked_mean_square(expected, None).sqrt(), rtol=1e-5, atol=1e-6)


def test_norms_of_the_tangent():
    g = torch.randn(3, 2, 4, 5, dtype=torch.float64) * torch.tensor([0.01, 1.0, 100.0]).reshape(3, 1, 1, 1)
    rms = g.square().mean((1, 2, 3)).sqrt()
    by_rms = ConsistencyLoss(None, FLOW, PROPOSAL, norm="rms").normalize(g, None)
    by_l2 = ConsistencyLoss(None, FLOW, PROPOSAL, norm="l2", norm_constant=0.5).normalize(g, None)
    torch.testing.assert_close(by_rms.square().mean((1, 2, 3)).sqrt(), rms / (rms + 0.1))
    torch.testing.assert_close(by_l2.flatten(1).norm(dim=1), rms * 40**0.5 / (rms * 40**0.5 + 0.5))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["diffusion", "rms", "l2"])
def test_padding_counts_nowhere(kind, shape):
    oracle = Gaussian.random(shape, torch.float32)
    net = Affine(shape[0])
    if kind == "diffusion":
        loss = DiffusionLoss(net, FLOW, PROPOSAL, "none", 0.0)
    else:
        loss = ConsistencyLoss(net, FLOW, PROPOSAL, teacher=oracle, norm=kind)
    x0 = oracle.sample(6, torch.Generator().manual_seed(123))
    valid = torch.ones(6, 1, *shape[1:])
    valid[2:, ..., -2:] = 0
    garbled = torch.where(valid.bool(), x0, 7.0)
    results = []
    for latents in (x0, garbled):
        torch.manual_seed(0)
        results.append(loss(latents, Conditioning(padding_mask=valid), LATE))
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.manual_seed(0)
    everywhere = loss(garbled, NOTHING, LATE)[1]["loss"]
    torch.testing.assert_close(everywhere[:2], results[0][1]["loss"][:2])
    assert (everywhere[2:] - results[0][1]["loss"][2:]).abs().min() > 1e-6


def test_the_mean_square_is_over_valid_elements_alone():
    x = torch.tensor([[[3.0, 4.0, 100.0]], [[1.0, 1.0, 1.0]]])
    valid = torch.tensor([[[1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]]])
    assert masked_mean_square(x, valid).tolist() == [12.5, 0.0]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_learned_weight_starts_at_zero_and_only_after_the_warm_up(shape):
    oracle = Gaussian.random(shape, torch.float32)
    x0 = oracle.sample(8, torch.Generator().manual_seed(123))
    loss = ConsistencyLoss(Affine(shape[0]), FLOW, PROPOSAL, teacher=oracle, weight="learned", tangent_warmup=100)
    assert loss(x0, NOTHING, LATE)[1]["weight"].tolist() == [0.0] * 8
    nn.init.constant_(loss.weight.linear.bias, 2.0)
    assert loss(x0, NOTHING, torch.tensor(99))[1]["weight"].tolist() == [0.0] * 8
    assert loss(x0, NOTHING, torch.tensor(100))[1]["weight"].tolist() == [2.0] * 8


def test_the_learned_weight_finds_the_logarithm_of_the_loss():
    oracle = Gaussian.random((2, 5), torch.float32)
    loss = DiffusionLoss(oracle, FLOW, PROPOSAL, "learned", 0.0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    torch.manual_seed(0)
    for _ in range(300):
        optimizer.zero_grad()
        loss(oracle.sample(512, torch.default_generator), NOTHING, LATE)[0].backward()
        optimizer.step()
    for time in (0.2, 0.7, 1.3):
        remaining = (oracle.deviation**2 * 0.25 / oracle.variance(torch.tensor(time))).mean()
        assert loss.weight(torch.tensor([time])).item() == pytest.approx(-remaining.log().item(), abs=0.2)


def test_the_learned_weight_is_clamped():
    loss = DiffusionLoss(None, FLOW, PROPOSAL, "learned")
    for bias, expected in ((50.0, 5.0), (-50.0, -5.0)):
        nn.init.constant_(loss.weight.linear.bias, bias)
        assert loss.weight(torch.tensor([0.5])).item() == expected


def test_the_teacher_is_no_part_of_the_students_module():
    loss = ConsistencyLoss(Affine(2), FLOW, PROPOSAL, teacher=Affine(2), weight="learned")
    assert {name.split(".")[0] for name in loss.state_dict()} == {"backbone", "weight"}
    assert isinstance(loss.teacher, Affine)


def test_no_gradient_reaches_the_teacher():
    teacher = Affine(2)
    ConsistencyLoss(Affine(2), FLOW, PROPOSAL, teacher=teacher)(torch.randn(4, 2, 5), NOTHING, LATE)[0].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_labels_are_dropped_for_a_share_of_the_clips(fraction):
    seen = []

    def backbone(u, t, cond):
        seen.append(cond.labels["class"])
        return u

    cond = Conditioning(labels={"class": torch.arange(4000)})
    DiffusionLoss(backbone, FLOW, PROPOSAL, "none", fraction)(torch.zeros(4000, 1, 2), cond, LATE)
    dropped = seen[0] == NO_LABEL
    assert dropped.float().mean().item() == pytest.approx(fraction, abs=0.03)
    assert torch.equal(seen[0][~dropped], torch.arange(4000)[~dropped])


def test_scales_of_guidance_are_drawn_for_student_and_teacher_alike():
    seen = {"student": [], "teacher": []}

    class Listening(Affine):
        def forward(self, u, t, cond):
            seen[self.name].append(cond.guidance)
            return super().forward(u, t, cond)

    student, teacher = Listening(1), Listening(1)
    student.name, teacher.name = "student", "teacher"
    loss = ConsistencyLoss(student, FLOW, PROPOSAL, teacher=teacher, guidance_max=3.0)
    loss(torch.randn(4000, 1, 2), NOTHING, LATE)
    scales = seen["teacher"][0]
    assert all(torch.equal(scale, scales) for scale in seen["student"])
    assert 1 <= scales.min() < 1.01
    assert 2.99 < scales.max() <= 3
    assert scales.mean().item() == pytest.approx(2.0, abs=0.05)


def test_losses_follow_the_random_state():
    oracle = Gaussian.random((2, 5), torch.float32)
    x0 = oracle.sample(8, torch.Generator().manual_seed(123))
    loss = ConsistencyLoss(Affine(2), FLOW, PROPOSAL, teacher=oracle)
    values = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        values.append(loss(x0, NOTHING, LATE)[0].item())
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l1"}, "norm"),
        ({"weight": "fixed"}, "weight"),
        ({"label_dropout": 1.5}, "label_dropout"),
        ({"guidance_max": 2.0}, "guidance_max 2.0 needs a teacher"),
        ({"guidance_max": 0.5}, "guidance_max must be above 1"),
        ({"tangent_warmup": -1}, "tangent_warmup must be a number of steps of at least 0, got -1"),
    ],
)
def test_impossible_switches_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ConsistencyLoss(None, FLOW, PROPOSAL, **options)

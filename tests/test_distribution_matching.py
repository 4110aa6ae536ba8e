"""Regression and distribution matching on Gaussian data, whose trajectories and scores are known in closed form."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import scm_media as scm
from scm_media.anchored_consistency import AnchoredConsistencyLoss
from scm_media.conditioning import Conditioning
from scm_media.distribution_matching import DistributionMatchingLoss
from scm_media.losses import RegressionLoss
from scm_media.nn.dual import value_of
from scm_media.timesteps import LogNormalTimesteps
from scm_media.trajectories import Trajectory
from scm_media.trigflow import TrigFlow
from tests.oracles import ConsistencyOracle, Gaussian
from tests.plain import convolutional

FLOW, SHAPE = TrigFlow(0.5), (1, 3)


class GaussianNetwork(nn.Module):
    """The exact F of Gaussian data whose mean and deviation are parameters; of their consistency function if asked."""

    def __init__(self, mean: float, deviation: float, consistency: bool = False) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.full(SHAPE, mean))
        self.log_deviation = nn.Parameter(torch.full(SHAPE, math.log(deviation)))
        self.consistency = consistency

    def forward(self, u, t, cond):
        oracle = Gaussian(self.mean, self.log_deviation.exp(), FLOW)
        return ConsistencyOracle(oracle)._evaluate(u, t) if self.consistency else oracle._evaluate(u, t)


def points(oracle, num=64, seed=0, dtype=torch.float64):
    """Points of trajectories of Gaussian data at random times, and their ends."""
    generator = torch.Generator().manual_seed(seed)
    x0 = oracle.sample(num, generator).to(dtype)
    t = torch.rand(num, generator=generator, dtype=dtype) * 1.5 + 0.05
    x_t = oracle.trajectory(x0, torch.zeros_like(t), t)
    return Trajectory(x_t, t, x0)


@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 4), (2, 2, 3, 4)])
def test_the_exact_consistency_function_has_no_regression_loss(shape):
    oracle = Gaussian.random(shape)
    value, terms = RegressionLoss(oracle.consistency, FLOW)(points(oracle))
    assert value.item() < 1e-12 and terms["loss"].shape == (64,)
    value, terms = RegressionLoss(oracle, FLOW)(points(oracle))
    trajectory = points(oracle)
    F = oracle(trajectory.x_t / 0.5, trajectory.t, Conditioning())
    error = (FLOW.denoise(trajectory.x_t, F, trajectory.t) - trajectory.x0).square().flatten(1).mean(1)
    assert torch.allclose(terms["loss"], error, atol=1e-6) and value.item() == pytest.approx(error.mean().item())


def test_the_regression_leaves_padding_out_and_drops_labels():
    oracle = Gaussian.random((2, 5))
    trajectory = points(oracle)
    mask = torch.zeros(64, 1, 5, dtype=torch.float64)
    mask[..., :2] = 1
    spoiled = Trajectory(trajectory.x_t, trajectory.t, trajectory.x0 + 7 * (1 - mask))
    value, _ = RegressionLoss(oracle.consistency, FLOW)(spoiled, Conditioning(padding_mask=mask))
    assert value.item() < 1e-12


def test_a_student_that_makes_the_teachers_distribution_has_no_gradient():
    """The auxiliary network starts as the teacher's copy, so that both scores agree whatever the samples are."""
    teacher = GaussianNetwork(0.2, 0.4)
    loss = DistributionMatchingLoss(GaussianNetwork(-0.3, 0.6, True), FLOW, teacher=teacher, anchor=0)
    _, terms = loss(Trajectory(torch.zeros(8, *SHAPE), torch.ones(8), torch.zeros(8, *SHAPE)))
    assert terms["gradient_rms"].max() < 1e-6 and terms["distance"].min() > 0.01
    assert "anchor" not in terms and terms["t"].shape == (8,)


def test_the_gradient_is_the_difference_of_the_estimates_over_their_distance():
    teacher = GaussianNetwork(0.2, 0.4)
    student = GaussianNetwork(-0.3, 0.6, True)
    loss = DistributionMatchingLoss(student, FLOW, teacher=teacher, anchor=0, step_fractions=(1.0,))
    loss.auxiliary = GaussianNetwork(-0.3, 0.6)
    sample = student.mean.detach() + torch.linspace(-0.5, 0.5, 6).reshape(2, *SHAPE)
    noisy, t = sample * 0.8, torch.tensor([0.5, 1.0])
    gradient, distance = loss.gradient(sample, noisy, t, Conditioning())
    for place, time in enumerate(t.tolist()):
        estimates = []
        for mean, deviation in ((-0.3, 0.6), (0.2, 0.4)):
            gain = math.cos(time) * deviation**2 / ((math.cos(time) * deviation) ** 2 + (math.sin(time) * 0.5) ** 2)
            estimates.append(mean + gain * (noisy[place] - math.cos(time) * mean))
        assert torch.allclose(gradient[place], estimates[0] - estimates[1], atol=1e-5)
        assert distance[place].item() == pytest.approx((sample[place] - estimates[1]).abs().mean().item(), rel=1e-4)


@pytest.mark.parametrize(
    "step_fractions",
    [(0.0, 1.0), *(pytest.param(each, marks=pytest.mark.slow) for each in ((1.0,), (0.0, 0.0, 0.0, 1.0)))],
)
def test_matching_brings_the_student_to_the_teachers_distribution(step_fractions):
    """Mean 0.2 and deviation 0.4, from −0.3 and 0.6, with no sample of the data."""
    teacher, student = GaussianNetwork(0.2, 0.4), GaussianNetwork(-0.3, 0.6, True)
    loss = DistributionMatchingLoss(student, FLOW, teacher=teacher, anchor=0, step_fractions=step_fractions)
    own, other = list(student.parameters()), list(loss.auxiliary.parameters())
    optimizer = torch.optim.Adam([{"params": own, "lr": 0.01}, {"params": other, "lr": 0.03}], betas=(0.0, 0.99))
    anywhere = Trajectory(torch.zeros(256, *SHAPE), torch.ones(256), torch.zeros(256, *SHAPE))
    for step in range(400):
        for group, rate in zip(optimizer.param_groups, (0.01, 0.03), strict=True):
            group["lr"] = rate * (1 - step / 400)
        value, _ = loss(anywhere)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert student.mean.mean().item() == pytest.approx(0.2, abs=0.03)
    assert student.log_deviation.exp().mean().item() == pytest.approx(0.4, abs=0.05)
    assert torch.equal(teacher.mean, torch.full(SHAPE, 0.2)), "the teacher is frozen"


def test_later_steps_begin_within_their_times_from_the_students_own_samples():
    seen = []

    class Watching(GaussianNetwork):
        def forward(self, u, t, cond):
            seen.append((t.clone(), u.requires_grad or torch.is_grad_enabled()))
            return super().forward(u, t, cond)

    networks = Watching(0.2, 0.4, True), GaussianNetwork(0.2, 0.4)
    times, fractions = (0.6, 0.9), (0.5, 0.25, 0.0, 0.25)
    loss = DistributionMatchingLoss(networks[0], FLOW, teacher=networks[1], step_fractions=fractions, later_times=times)
    sample = loss.generate(Trajectory(*[torch.zeros(n) for n in ((8, *SHAPE), (8,), (8, *SHAPE))]), Conditioning())
    t_max = math.atan(80 / 0.5)
    steps, graphs = zip(*seen, strict=True)
    assert [len(each) for each in steps] == [4, 2, 2, 8] and graphs == (False, False, False, True)
    assert (steps[0] == torch.tensor(t_max)).all() and (steps[3][:4] == torch.tensor(t_max)).all()
    four = torch.stack([steps[1], steps[2], steps[3][6:]])
    later = torch.cat([four.flatten(), steps[3][4:6]])
    assert ((later >= 0.6) & (later <= 0.9)).all() and (four.diff(dim=0) < 0).all(), "times fall from step to step"
    assert sample.shape == (8, *SHAPE) and sample.requires_grad


def test_given_parts_stay_as_they_are_and_have_no_gradient():
    mask = torch.zeros(4, 1, 3)
    mask[..., 0] = 1
    given = torch.full((4, *SHAPE), 0.7) * mask
    trajectory = Trajectory(torch.zeros(4, *SHAPE), torch.ones(4), torch.zeros(4, *SHAPE), given, mask)
    loss = DistributionMatchingLoss(GaussianNetwork(0.0, 0.6, True), FLOW, teacher=GaussianNetwork(0.2, 0.4))
    loss.auxiliary = GaussianNetwork(-0.5, 0.6)
    cond = Conditioning(mask=mask)
    sample = loss.generate(trajectory, cond)
    assert (sample[..., 0] == 0.7).all() and (sample[..., 1:] != 0.7).all()
    gradient, _ = loss.gradient(sample, sample, torch.full((4,), 0.8), cond)
    assert (gradient[..., 0] == 0).all() and (gradient[..., 1:] != 0).all()


def test_the_anchor_is_the_regression_with_its_weight():
    oracle = Gaussian.random(SHAPE)
    trajectory = points(oracle, dtype=torch.float32)
    networks = GaussianNetwork(0.1, 0.5, True), GaussianNetwork(0.2, 0.4)
    values = []
    for anchor in (0.0, 0.5):
        torch.manual_seed(3)
        loss = DistributionMatchingLoss(networks[0], FLOW, teacher=networks[1], anchor=anchor)
        values.append(loss(trajectory)[0].item())
    expected = RegressionLoss(networks[0], FLOW)(trajectory)[0].item()
    assert values[1] - values[0] == pytest.approx(0.5 * expected, rel=1e-4)


def test_the_weight_of_the_matching_reaches_the_student_alone():
    """The gradients of rCM's objective are those of its two parts, the matching with its weight."""
    trajectory = points(Gaussian.random(SHAPE), 16, dtype=torch.float32)

    def gradients(matching, anchor):
        networks = GaussianNetwork(-0.3, 0.6, True), GaussianNetwork(0.2, 0.4)
        given = {"anchor_loss": "consistency", "step_fractions": (1.0,)}
        loss = DistributionMatchingLoss(
            networks[0], FLOW, teacher=networks[1], matching=matching, anchor=anchor, **given
        )
        with torch.no_grad():
            loss.auxiliary.mean += 0.2  # or the matching has no gradient
        torch.manual_seed(2)
        value, _ = loss(trajectory)
        return torch.autograd.grad(value, [networks[0].mean, loss.auxiliary.mean])

    both, half, anchored = gradients(0.01, 1.0), gradients(0.5, 0.0), gradients(0.0, 1.0)
    assert half[0].abs().max() > 1e-3 and anchored[0].abs().max() > 1e-3
    torch.testing.assert_close(both[0], half[0] / 50 + anchored[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(both[1], half[1])


def test_a_consistency_anchor_has_that_losss_gradient_on_the_ends():
    """At an anchor of a million nothing but the anchor is left of the gradient."""
    trajectory = points(Gaussian.random(SHAPE), dtype=torch.float32)
    networks = GaussianNetwork(0.1, 0.5, True), GaussianNetwork(0.2, 0.4)
    loss = DistributionMatchingLoss(
        networks[0], FLOW, teacher=networks[1], anchor=1e6, anchor_loss="consistency", step_fractions=(1.0,)
    )
    torch.manual_seed(3)
    found = torch.autograd.grad(loss(trajectory)[0], list(networks[0].parameters()))
    times = LogNormalTimesteps(0.0, 2.0, stratified=True)
    consistency = scm.ConsistencyLoss(networks[0], FLOW, times, teacher=networks[1], tangent_warmup=0)
    torch.manual_seed(3)
    loss.generate(trajectory, Conditioning())
    for _ in range(2):  # the noise and times of the two scores
        loss.draw(trajectory.x0)
    expected = torch.autograd.grad(consistency(trajectory.x0)[0], list(networks[0].parameters()))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one / 1e6, other, rtol=1e-3, atol=1e-5)


def test_an_anchor_by_consistency_holds_what_it_should_and_learns():
    """The exact consistency function of the teacher has no tangent; another has."""
    trajectory, teacher = points(Gaussian.random(SHAPE), dtype=torch.float32), GaussianNetwork(0.2, 0.4)
    sizes = []
    for student in (GaussianNetwork(0.2, 0.4, True), GaussianNetwork(-0.3, 0.6, True)):
        loss = DistributionMatchingLoss(student, FLOW, teacher=teacher, anchor_loss="consistency")
        sizes.append(loss(trajectory)[1]["anchor"].max().item())
    assert sizes[0] < 1e-4 < 0.1 < sizes[1]


def test_a_guided_teacher_is_copied_without_its_guidance_and_trained():
    inner, guide = convolutional(), convolutional()
    teacher = scm.Guided(inner, 2.0, guide=guide)
    student = copy.deepcopy(inner)
    loss = DistributionMatchingLoss(student, FLOW, teacher=teacher)
    trained = {id(parameter) for parameter in loss.parameters() if parameter.requires_grad}
    assert {id(parameter) for parameter in loss.auxiliary.parameters()} <= trained
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(a, b) for a, b in zip(loss.auxiliary.parameters(), inner.parameters(), strict=True))
    loss.double()
    assert next(inner.parameters()).dtype == torch.float64, "the teacher follows"


def test_the_matching_may_have_a_guidance_scale_of_its_own():
    teacher = scm.Guided(GaussianNetwork(0.2, 0.4), 2.0, guide=GaussianNetwork(0.1, 0.7))
    sample, t = torch.linspace(-0.5, 0.5, 6).reshape(2, *SHAPE), torch.tensor([0.5, 1.0])
    found = []
    for matching_guidance in (None, 2.0, 1.0, 0.0):
        student = GaussianNetwork(-0.3, 0.6, True)
        loss = DistributionMatchingLoss(student, FLOW, teacher=teacher, matching_guidance=matching_guidance)
        found.append(loss.gradient(sample, sample, t, Conditioning())[0])
        assert len(loss.state_dict()) == 4 and loss.teacher.scale == 2.0, "the state is student and auxiliary network"
        again = copy.deepcopy(loss).double().gradient(sample.double(), sample.double(), t.double(), Conditioning())[0]
        assert torch.allclose(again, found[-1].double(), atol=1e-6), "a copy asks the copied teacher at this scale"
    assert torch.equal(found[0], found[1]) and not torch.allclose(found[0], found[2], atol=0.01)
    assert torch.allclose(found[2], torch.zeros_like(sample), atol=1e-6), "D' starts as the teacher without guidance"
    assert torch.allclose(found[0], -found[3], atol=1e-6), "scales 2 and 0 lie on both sides of 1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": None}, "needs a teacher that is a torch.nn.Module"),
        ({"step_fractions": (0.5, 0.4)}, r"step_fractions must be fractions .* that add up to 1, .* got \[0.5, 0.4\]"),
        ({"step_fractions": (1.5, -0.5)}, r"got \[1.5, -0.5\]"),
        ({"anchor": -1}, "matching and anchor must be weights of at least 0, got 1.0 and -1"),
        ({"matching": -2}, "weights of at least 0, got -2 and 0.5"),
        ({"anchor_loss": "flow"}, "anchor_loss must be 'regression' or 'consistency', got 'flow'"),
        ({"auxiliary_rate": 0}, "auxiliary_rate must be positive, got 0"),
        ({"matching_guidance": 1.1}, "matching_guidance 1.1 needs a teacher that is guided at one scale .* not guided"),
        (
            {"matching_guidance": 1.1, "teacher": scm.Guided(GaussianNetwork(0.0, 1.0), None)},
            "this one takes each sample's scale: leave it null",
        ),
        ({"guidance_max": 1.0}, "guidance_max must be above 1, or null"),
        ({"later_times": (0.9, 0.4)}, "later_times must be two times in radians, in order"),
        ({"later_times": (0.9, 1.57)}, r"below atan\(sigma_max / sigma_data\) = 1.5645"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DistributionMatchingLoss(
            GaussianNetwork(0.0, 1.0, True), FLOW, **{"teacher": GaussianNetwork(0.0, 1.0), **options}
        )


def dropping() -> DistributionMatchingLoss:
    """The loss of networks with dropout, in training mode."""
    teacher, student = convolutional(dropout=0.5), convolutional(dropout=0.5)
    return DistributionMatchingLoss(student, FLOW, teacher=teacher).train()


def test_dropout_is_off_in_the_samples_and_in_the_scores_that_are_compared():
    loss, trajectory = dropping(), Trajectory(torch.randn(8, 2, 8, 8), torch.ones(8), torch.zeros(8, 2, 8, 8))
    made = []
    for training in (True, False):
        torch.manual_seed(0)
        made.append(loss.train(training).generate(trajectory, Conditioning()))
    assert torch.equal(*made)
    _, terms = loss.train()(trajectory)
    assert terms["gradient_rms"].max() < 1e-6, "the auxiliary network is still the teacher's copy"


def test_dropout_is_on_where_networks_learn():
    loss, trajectory = dropping(), Trajectory(torch.randn(8, 2, 8, 8), torch.ones(8), torch.zeros(8, 2, 8, 8))
    found = {}
    for training in (True, False):
        torch.manual_seed(0)
        _, found[training] = loss.train(training)(trajectory)
    assert not torch.allclose(found[True]["anchor"], found[False]["anchor"])
    assert not torch.allclose(found[True]["loss"], found[False]["loss"])
    assert all(module.training for module in loss.train().modules())


def test_no_network_is_asked_about_more_noise_than_the_limit():
    asked = []

    class Asked(GaussianNetwork):
        def forward(self, u, t, cond):
            asked.append(t)
            return super().forward(u, t, cond)

    trajectory = points(Gaussian.random(SHAPE), dtype=torch.float32)
    many = LogNormalTimesteps(3.0, 2.0)
    for loss in (
        RegressionLoss(Asked(0.1, 0.4), FLOW),
        DistributionMatchingLoss(Asked(0.1, 0.4, True), FLOW, many, teacher=Asked(0.2, 0.4), later_times=(0.3, 0.9)),
        AnchoredConsistencyLoss(Asked(0.1, 0.4), FLOW, many, teacher=Asked(0.2, 0.4), tangent_warmup=0),
    ):
        asked.clear()
        loss.limit_times(2.0)
        loss(trajectory)
        latest = torch.cat([value_of(t).flatten().detach().float() for t in asked]).max().item()
        assert latest == pytest.approx(math.atan(2.0 / 0.5), abs=1e-6)
    limited = RegressionLoss(Asked(0.1, 0.4), FLOW)
    limited.limit_times(2.0)
    early = Trajectory(trajectory.x_t, trajectory.t.clamp(max=math.atan(4.0)), trajectory.x0)
    assert limited(trajectory)[0] == limited(early)[0]


def test_the_samples_of_matching_start_at_the_limit():
    loss = DistributionMatchingLoss(GaussianNetwork(0.1, 0.4), FLOW, teacher=GaussianNetwork(0.2, 0.4))
    loss.limit_times(12.0)
    assert loss.t_max == pytest.approx(math.atan(24.0)) and loss.later_times == (0.4, 1.4)
    loss.limit_times(2.5)
    assert loss.later_times == (0.4, pytest.approx(math.atan(5.0)))
    with pytest.raises(ValueError, match=r"later_times \(0.4, 1.37.*\) must begin below 0.3805.*sampler.first_sigma"):
        loss.limit_times(0.2)

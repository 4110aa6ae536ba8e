"""Switches of the student's loss: warm-up, dropped labels, the learned weight."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from scm_media.conditioning import NO_LABEL, Conditioning
from scm_media.losses import ConsistencyLoss, masked_mean_square
from scm_media.nn.dual import Linear, apply_linear
from scm_media.timesteps import LogNormalTimesteps
from scm_media.trigflow import TrigFlow
from scm_media.weighting import LearnedWeight
from tests.oracles import Gaussian

FLOW = TrigFlow(0.5)
NOTHING = Conditioning()
PROPOSAL = LogNormalTimesteps(-1.0, 1.4)
LATE = torch.tensor(10_000)


class Listening(nn.Module):
    """A matrix over channels that keeps the labels that it was given."""

    def __init__(self, channels):
        super().__init__()
        self.mix = Linear(channels, channels)

    def forward(self, u, t, cond):
        self.labels = cond.labels.get("class")
        return apply_linear(lambda v: v.movedim(-1, 1), self.mix(apply_linear(lambda v: v.movedim(1, -1), u)))


def test_without_a_warm_up_the_first_step_has_the_whole_tangent():
    oracle = Gaussian.random((2, 5), torch.float32)
    x0 = oracle.sample(16, torch.Generator().manual_seed(123))

    def g_rms(step, **options):
        torch.manual_seed(0)
        loss = ConsistencyLoss(oracle, FLOW, PROPOSAL, teacher=oracle, weight="learned", **options)
        nn.init.constant_(loss.weight.linear.bias, 2.0)
        _, terms = loss(x0, NOTHING, torch.tensor(step))
        return terms["g_rms"], terms["weight"].tolist()

    whole, weight = g_rms(100, tangent_warmup=100)
    assert whole.min() > 1e-3
    for step in (0, 0.0, 1, torch.inf):
        got, same = g_rms(step, tangent_warmup=0)
        assert torch.equal(got, whole)
        assert same == weight == [2.0] * 16
    assert g_rms(0, tangent_warmup=100)[0].max() < 1e-6


def test_student_and_teacher_lose_the_labels_of_the_same_clips():
    student, teacher = Listening(1), Listening(1)
    cond = Conditioning(labels={"class": torch.arange(4000)})
    loss = ConsistencyLoss(student, FLOW, PROPOSAL, teacher=teacher, label_dropout=0.25)
    loss(torch.randn(4000, 1, 2), cond, LATE)
    dropped = student.labels == NO_LABEL
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(student.labels[~dropped], torch.arange(4000)[~dropped])
    assert torch.equal(teacher.labels, student.labels)


def test_the_learned_weight_scales_the_loss_and_is_charged_for():
    oracle = Gaussian.random((2, 5), torch.float32)
    x0 = oracle.sample(64, torch.Generator().manual_seed(123))
    loss = ConsistencyLoss(Listening(2), FLOW, PROPOSAL, teacher=oracle, weight="learned")
    nn.init.constant_(loss.weight.linear.bias, 0.7)
    value, terms = loss(x0, NOTHING, LATE)
    assert value.item() == pytest.approx(math.exp(0.7) * terms["loss"].mean().item() - 0.7, rel=1e-5)
    slope = torch.autograd.grad(value, loss.weight.linear.bias)[0].item()
    assert slope == pytest.approx(math.exp(0.7) * terms["loss"].mean().item() - 1, rel=1e-5)


def test_the_learned_weight_is_computed_in_float32_under_autocast():
    weight = LearnedWeight()
    nn.init.normal_(weight.linear.weight)
    t = torch.linspace(0.1, 1.5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = weight(t)
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow, weight(t))


def test_mean_squares_of_narrow_values_are_taken_in_float32():
    x = torch.randn(3, 2, 500, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(masked_mean_square(x, None), masked_mean_square(x.float(), None))
    valid = torch.ones(3, 1, 500)
    valid[..., 400:] = 0
    assert torch.equal(masked_mean_square(x, valid), masked_mean_square(x.float(), valid))
    assert masked_mean_square(x.double(), None).dtype == torch.float64


def test_terms_are_finite_where_the_path_has_no_speed():
    timesteps = SimpleNamespace(sample=lambda num, sigma_data: torch.tensor([0.0, math.pi / 2]))
    loss = ConsistencyLoss(Listening(2), FLOW, timesteps, teacher=Listening(2))
    value, terms = loss(torch.randn(2, 2, 5), NOTHING, LATE)
    assert torch.isfinite(value)
    assert all(torch.isfinite(term).all() for term in terms.values())

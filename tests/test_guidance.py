from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from scm_media.conditioning import NO_LABEL, Conditioning
from scm_media.guidance import Guided
from scm_media.samplers import CallCounter, sample_heun, teacher_times
from scm_media.trigflow import TrigFlow, broadcast_time
from tests.oracles import SHAPES

T = torch.tensor([0.2, 0.9, 1.4])
COND = Conditioning(labels={"class": torch.tensor([0, 1, 2])})


def labelled(u, t, cond):
    """An F that says which label it was given."""
    return u + broadcast_time(cond.labels["class"].float(), u)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_guidance_is_linear_between_without_and_with_the_label(scale, shape):
    u = torch.randn(3, *shape)
    expected = u + NO_LABEL + scale * broadcast_time(COND.labels["class"] - NO_LABEL, u)
    torch.testing.assert_close(Guided(labelled, scale)(u, T, COND), expected)


@pytest.mark.parametrize(("scale", "calls"), [(1.0, 1), (2.0, 2), (0.0, 2)])
def test_a_guided_call_counts_what_it_costs(scale, calls):
    counted = CallCounter(labelled)
    Guided(counted, scale)(torch.zeros(3, 1, 4), T, COND)
    assert counted.evaluations == calls


def test_only_clips_within_the_interval_are_guided():
    u = torch.zeros(3, 1, 4)
    F = Guided(labelled, 2.0, interval=(0.5, 1.0))(u, T, COND)
    assert F[:, 0, 0].tolist() == [0.0, 3.0, 2.0]


def test_outside_the_interval_one_call_is_enough():
    counted = CallCounter(labelled)
    Guided(counted, 2.0, interval=(0.5, 0.6))(torch.zeros(3, 1, 4), T, COND)
    assert counted.evaluations == 1


def test_a_guided_teacher_of_32_steps_costs_126():
    counted = CallCounter(labelled)
    flow = TrigFlow()
    sample_heun(Guided(counted, 1.5), flow, lambda i: torch.zeros(3, 1, 4), teacher_times(32, flow), COND)
    assert counted.evaluations == 126


def test_a_guide_takes_the_place_of_the_unconditional():
    u = torch.randn(3, 2, 4)
    guide = CallCounter(lambda u, t, cond: labelled(u, t, cond) - 1)
    counted = CallCounter(labelled)
    F = Guided(counted, 3.0, guide=guide)(u, T, COND)
    torch.testing.assert_close(F, labelled(u, T, COND) + 2.0)
    assert (counted.evaluations, guide.evaluations) == (1, 1)


def test_each_clip_may_have_a_scale_of_its_own():
    u, scales = torch.randn(3, 2, 4), torch.tensor([1.0, 2.0, 4.0])
    F = Guided(labelled, None, guide=lambda u, t, cond: labelled(u, t, cond) - 1)(u, T, replace(COND, guidance=scales))
    torch.testing.assert_close(F, labelled(u, T, COND) + broadcast_time(scales - 1, u))
    with pytest.raises(ValueError, match=r"Conditioning\.guidance \(B,\), got none"):
        Guided(labelled, None)(u, T, COND)


def test_parameters_of_backbone_and_guide_are_the_modules_own():
    guided = Guided(torch.nn.Linear(2, 2), 2.0, guide=torch.nn.Linear(2, 2))
    assert {name.split(".")[0] for name, _ in guided.named_parameters()} == {"backbone", "guide"}


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_impossible_scales_are_refused(scale):
    with pytest.raises(ValueError, match="guidance"):
        Guided(labelled, scale)


@pytest.mark.parametrize("interval", [(1.0, 0.5), (-0.1, 1.0), (0.5, 2.0)])
def test_impossible_intervals_are_refused(interval):
    with pytest.raises(ValueError, match="interval"):
        Guided(labelled, 2.0, interval=interval)

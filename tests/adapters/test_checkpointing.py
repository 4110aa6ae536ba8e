"""Gradient checkpointing gives the gradients that all activations give, with the LoRA that was on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from scm_media.adapters import LoRA, LoRAStudent, change_of_variables
from scm_media.adapters.checkpointing import enable_checkpointing
from scm_media.distribution_matching import DistributionMatchingLoss
from scm_media.losses import ConsistencyLoss
from scm_media.trajectories import Trajectory
from tests.adapters.small import KINDS, conditioning, needs, network

pytest.importorskip("diffusers")
NAMES = ["UNet2DModel", "SD3Transformer2DModel", "StableAudioDiTModel", "WanTransformer3DModel"]


def gradients(name, make_loss, lora, checkpointing):
    """The gradients of a loss by the names of parameters, and the number of times that a block was run."""
    torch.manual_seed(0)
    teacher = change_of_variables(network(name), KINDS[name][1])
    student = LoRAStudent(teacher, LoRA(rank=2)) if lora else copy.deepcopy(teacher)
    for parameter in student.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    loss = make_loss(student, student.teacher if lora else teacher)
    if lora:
        for parameter in getattr(loss, "auxiliary", student).parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    if checkpointing:
        for each in (student, getattr(loss, "auxiliary", student)):
            enable_checkpointing(each)
    x0, cond = torch.randn(2, *KINDS[name][2]), conditioning(needs(name))
    points = Trajectory(torch.randn_like(x0), torch.tensor([0.4, 1.2]), x0)
    torch.manual_seed(1)
    value, _ = loss(points if isinstance(loss, DistributionMatchingLoss) else x0, cond, torch.tensor(10.0))
    value.backward()
    return {key: each.grad for key, each in loss.named_parameters() if each.grad is not None}


def matching(student, teacher):
    return DistributionMatchingLoss(student, teacher=teacher)


def tangent(student, teacher):
    return ConsistencyLoss(student, teacher=teacher)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("make_loss", [matching, tangent])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_same(name, make_loss, lora):
    plain, again = (gradients(name, make_loss, lora, checkpointing) for checkpointing in (False, True))
    assert plain.keys() == again.keys() and len(plain) > 4
    if make_loss is matching:
        assert any(key.startswith("auxiliary.") and each.any() for key, each in plain.items())
    for key, each in plain.items():
        torch.testing.assert_close(again[key], each, rtol=1e-4, atol=1e-6 + 1e-5 * each.abs().max().item())


def test_backbones_of_ours_are_refused():
    with pytest.raises(ValueError, match=r"Linear has no gradient checkpointing: set trainer\.gradient_checkpointing"):
        enable_checkpointing(nn.Linear(2, 2))

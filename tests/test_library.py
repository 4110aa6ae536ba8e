"""The core with a network of one's own: defaults of losses, averages and samplers, and how labels reach networks."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch import nn

import scm_media as scm
from scm_media.conditioning import NO_LABEL, Conditioning
from scm_media.losses import ConsistencyLoss, DiffusionLoss
from scm_media.nn.embedding import LabelEmbedding, as_conditioning
from scm_media.timesteps import LogNormalTimesteps
from scm_media.trigflow import TrigFlow

LATENTS = (6, 2, 4, 4)


class Plain(nn.Module):
    """F(u, t, cond) of torch's own layers, with dropout and a label."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 3, padding=1)
        self.dropout, self.label = nn.Dropout(dropout), nn.Embedding(4, 8)
        self.seen = []

    def forward(self, u, t, cond):
        self.seen.append((cond, self.training))
        x = torch.cat([u, torch.cos(t).reshape(-1, 1, 1, 1).expand_as(u[:, :1])], 1)
        x = self.first(x)
        if cond.label is not None:
            x = x + self.label(cond.label.clamp(min=0))[:, :, None, None]
        return self.last(self.dropout(torch.tanh(x)))


def latents():
    return 0.5 * torch.randn(LATENTS, generator=torch.Generator().manual_seed(3))


def test_all_names_are_importable_and_listed():
    for name in scm.__all__:
        assert getattr(scm, name) is not None
        assert name in dir(scm)
    for name in ("PowerEMA", "Guided", "renormalize", "consistency_times", "teacher_times", "teachers"):
        assert name in scm.__all__
    assert scm.teachers.EDM.__module__ == "scm_media.teachers"


def same(first, second):
    """Two losses with the same seed have the same value."""
    values = []
    for loss, arguments in (first, second):
        torch.manual_seed(0)
        values.append(loss(*arguments)[0])
    return torch.equal(*values)


@pytest.mark.filterwarnings("ignore:Plain cannot carry")
def test_what_is_left_out_has_the_documented_default():
    student, teacher, x0 = Plain(), Plain(), latents()
    flow = TrigFlow(0.5)
    explicit = DiffusionLoss(student, flow, LogNormalTimesteps(-0.8, 1.5))
    assert same((DiffusionLoss(student), (x0,)), (explicit, (x0, Conditioning(), torch.tensor(7))))
    explicit = ConsistencyLoss(student, flow, LogNormalTimesteps(-1.0, 1.4), teacher=teacher)
    loss = ConsistencyLoss(student, teacher=teacher)
    for step in (0, 123, 10_000):
        assert same((loss, (x0, None, step)), (explicit, (x0, Conditioning(), torch.tensor(step))))
    assert not same((loss, (x0, None, 0)), (loss, (x0, None, 400)))
    assert ConsistencyLoss(student).teacher is None


def test_the_default_times_are_the_same_for_data_of_any_size():
    student = Plain()
    student.sigma_data = 2.0
    for kind in (ConsistencyLoss, DiffusionLoss):
        large, small = kind(student), kind(Plain())
        assert large.flow == TrigFlow(2.0) and small.flow == TrigFlow(0.5)
        torch.manual_seed(0)
        z, t = large.draw(4 * latents())
        torch.manual_seed(0)
        expected_z, expected_t = small.draw(latents())
        torch.testing.assert_close(t, expected_t)
        torch.testing.assert_close(z, 4 * expected_z)


def test_networks_of_different_data_are_refused_unless_the_flow_is_given():
    student, teacher = Plain(), Plain()
    student.sigma_data, teacher.sigma_data = 0.5, 1.0
    with pytest.raises(ValueError, match=r"sigma_data differ, 0\.5 and 1: give the flow"):
        ConsistencyLoss(student, teacher=teacher)
    assert ConsistencyLoss(student, TrigFlow(0.7), teacher=teacher).flow.sigma_data == 0.7


def test_the_flow_of_a_wrapped_network_is_its_own():
    network = Plain()
    network.sigma_data = 0.25
    assert TrigFlow.of(scm.Guided(network, 2.0)) == TrigFlow.of(nn.DataParallel(network)) == TrigFlow(0.25)
    assert TrigFlow.of(Plain(), None) == TrigFlow(0.5)


def test_no_step_is_refused_while_the_tangent_warms_up():
    with pytest.raises(ValueError, match=r"first 500 steps .* loss\(x0, cond, step=step\)"):
        ConsistencyLoss(Plain(), teacher=Plain())(latents())
    whole = ConsistencyLoss(Plain(), teacher=Plain(), tangent_warmup=0, tangent_method="forward")
    assert same((whole, (latents(),)), (whole, (latents(), None, 10_000)))


def test_the_teacher_is_frozen_and_in_evaluation_mode():
    student, teacher = Plain(dropout=0.5), Plain(dropout=0.5).train()
    loss = ConsistencyLoss(student, teacher=teacher, tangent_method="forward").train()
    loss(latents(), step=0)[0].backward()
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert [training for _, training in teacher.seen] == [False]
    assert all(training for _, training in student.seen)
    assert all(p.requires_grad and p.grad is not None for n, p in student.named_parameters() if "label" not in n)


def test_the_teacher_follows_the_loss_and_is_no_part_of_it():
    student, teacher = Plain(), scm.Guided(Plain(), 1.5)
    loss = ConsistencyLoss(student, teacher=teacher, tangent_method="forward")
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in loss.parameters()}
    assert {name.split(".")[0] for name in loss.state_dict()} == {"backbone"}
    assert not any(module is teacher for module in loss.modules())
    outer = nn.ModuleList([loss]).double()
    assert next(teacher.parameters()).dtype == torch.float64
    assert outer[0](latents().double(), step=0)[0].dtype == torch.float64
    loss.to("meta")
    assert next(teacher.parameters()).device.type == next(student.parameters()).device.type == "meta"


def test_a_student_that_is_its_teacher_or_frozen_is_refused():
    network = Plain()
    with pytest.raises(ValueError, match=r"share parameters.*copy\.deepcopy\(teacher\)"):
        ConsistencyLoss(network, teacher=network)
    with pytest.raises(ValueError, match="share parameters"):
        ConsistencyLoss(network, teacher=scm.Guided(network, 2.0))
    assert next(network.parameters()).requires_grad
    with pytest.raises(ValueError, match=r"student\.requires_grad_\(True\)\.train\(\)"):
        ConsistencyLoss(copy.deepcopy(network.requires_grad_(False)), teacher=network)


def test_a_plain_label_has_the_name_class_or_that_of_the_networks_only_label():
    label = torch.tensor([2, 0, 1], dtype=torch.uint8)
    cond = as_conditioning(label, Plain())
    assert list(cond.labels) == ["class"]
    assert cond.label.dtype == torch.int64 and cond.label.tolist() == [2, 0, 1]
    one = nn.Sequential(LabelEmbedding({"pitch": 0}, 4))
    assert list(as_conditioning(torch.tensor([0.5, math.nan]), one).labels) == ["pitch"]
    with pytest.raises(ValueError, match="the labels family, pitch: give a mapping"):
        as_conditioning(label, LabelEmbedding({"pitch": 0, "family": 3}, 4))
    for wrong, got in ((torch.zeros(3, 4), r"shape \(3, 4\)"), ({"class": [1, 2]}, "list")):
        with pytest.raises(ValueError, match=f"label 'class' must be a tensor .* got {got}"):
            as_conditioning(wrong, Plain())


def test_labels_reach_student_and_teacher_and_can_be_dropped():
    student, teacher = Plain(), Plain()
    loss = ConsistencyLoss(student, teacher=teacher, tangent_method="forward", label_dropout=0.5)
    label = torch.tensor([0, 1, 2, 3, 0, 1])
    loss(latents(), label, 0)
    (cond, _), *_ = teacher.seen
    dropped = cond.labels["class"] == NO_LABEL
    assert 0 < dropped.sum() < 6
    assert torch.equal(cond.labels["class"][~dropped], label[~dropped])
    assert all(torch.equal(each.labels["class"], cond.labels["class"]) for each, _ in student.seen)
    DiffusionLoss(teacher, label_dropout=0.0)(latents(), {"kind": label})
    assert torch.equal(teacher.seen[-1][0].labels["kind"], label)


def test_a_plain_module_trains_by_default_without_a_warning():
    student = Plain()
    loss = ConsistencyLoss(student, teacher=Plain())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for step in range(3):
            loss(latents(), step=step)[0].backward()
    sizes = [parameter.grad.abs().sum().item() for parameter in student.parameters() if parameter.grad is not None]
    assert sizes and all(math.isfinite(size) for size in sizes) and max(sizes) > 0


def test_averages_count_their_steps():
    network = nn.Linear(3, 2)
    counting, told = scm.PowerEMA(network), scm.PowerEMA(network)
    for step in range(1, 8):
        nn.init.normal_(network.weight)
        counting.update()
        told.update(step)
    assert counting.step == 7
    assert torch.equal(counting.averaged["weight"], told.averaged["weight"])
    assert not torch.equal(counting.averaged["weight"], network.weight)
    model = counting.copy_to(copy.deepcopy(network))
    assert torch.equal(model.weight, counting.averaged["weight"])


def test_loaded_averages_go_on_with_their_step_or_ask_for_it():
    network = nn.Linear(3, 2)
    ema = scm.PowerEMA(network)
    for _ in range(5):
        nn.init.normal_(network.weight)
        ema.update()
    resumed, lost = scm.PowerEMA(network), scm.PowerEMA(network)
    resumed.load_state_dict(copy.deepcopy(ema.state_dict()), step=5)
    lost.load_state_dict(ema.state_dict())
    nn.init.normal_(network.weight)
    ema.update()
    resumed.update()
    assert torch.equal(ema.averaged["weight"], resumed.averaged["weight"])
    with pytest.raises(ValueError, match="step of the loaded averages is not known"):
        lost.update()
    lost.update(6)
    assert lost.step == 6

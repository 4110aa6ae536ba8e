"""Frozen networks are on the training's device only for as long as they are needed there."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from scm_media import recipe
from scm_media.data import batches
from scm_media.guidance import Guided
from scm_media.training.context import prepare
from scm_media.training.previews import moved
from scm_media.training.stages import student
from scm_media.training.stages.backbones import LatentInputs
from tests.training.small import SMALL, train

ELSEWHERE = torch.device("meta")


class Recorded(nn.Linear):
    """Notes the devices that it is moved to."""

    def __init__(self):
        super().__init__(1, 1)
        self.devices = []

    def to(self, device):
        self.devices.append(str(device))
        return self

    def encode(self, sample):
        return sample

    def latent_mask(self, mask):
        return mask


def test_a_network_comes_back_from_where_it_was_needed():
    network = Recorded()
    with moved(network, ELSEWHERE) as there:
        assert there is network and network.devices == ["meta"]
    assert network.devices == ["meta", "cpu"]
    with moved(network, torch.device("cpu")):
        pass
    assert network.devices == ["meta", "cpu"], "it was there already"


def test_parts_of_a_guided_network_are_moved_each_from_where_it_was():
    guided = Guided(
        nn.Identity(), 2.0, guide=Recorded()
    )  # as a LoRA student's teacher, which has no weights of its own
    with moved(guided, ELSEWHERE) as there:
        assert there is guided
    assert guided.guide.devices == ["meta", "cpu"]


def test_the_autoencoder_is_moved_for_samples_and_left_alone_for_latents(tmp_path):
    train(tmp_path, "teacher.max_steps=1", "student.max_steps=0")
    context = prepare(recipe.compose("image/tiny", [*SMALL, f"run_dir={tmp_path}"]))
    autoencoder, teacher = Recorded(), Recorded()
    inputs, batch = LatentInputs(context, autoencoder, teacher), next(batches(context.data, 4, 0, 1, 0))
    inputs(replace(batch, encoded=True))
    assert (autoencoder.devices, teacher.devices) == ([], ["cpu"])
    inputs(batch)
    assert autoencoder.devices == ["cpu"]


def test_a_teacher_that_the_loss_does_not_call_is_not_moved(tmp_path):
    train(tmp_path, "teacher.max_steps=1", "student.max_steps=0")
    regression = ("loss@student.loss=regression", "trajectories=default", "~student.loss.tangent_warmup")
    for overrides, called in (((), True), (regression, False)):
        config = recipe.compose("image/tiny", [*SMALL, f"run_dir={tmp_path}", *overrides])
        task = student.student_task(prepare(config))
        assert (task.inputs.frozen is not None) == called

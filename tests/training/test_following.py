"""A small world model: what is made moves as it was told to, at once and from a first place that is given."""

from __future__ import annotations

import math

import pytest
import torch

import scm_media
from tests.data.strips import ACROSS, PLACES
from tests.training.strips import train, write_moves

SETTINGS = (
    "conditioning.mask={probability: 0.5, types: [start], axis: -2, fraction: [0.1, 0.4]}",
    "backbone={patch: [6, 8], width: 128, depth: 3, num_heads: 4, dropout: 0.0}",
    "teacher={batch_size: 64, max_steps: 1000, ema_std: 0.1, optimizer: {lr: 3.0e-3}}",
    "student={batch_size: 64, max_steps: 300, ema_std: 0.1, optimizer: {lr: 3.0e-4}, loss: {tangent_warmup: 100}}",
    "trainer={log_every: 100, checkpoint_every: 1000}",
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("following")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCM_MEDIA_ALLOW", "tests")
        train(write_moves(folder, 512), folder / "run", *SETTINGS)
        yield scm_media.load(folder / "run", "cpu")


def motion(samples):
    """By how many places the bright one moves, ``(B, PLACES − 1)``, round the end."""
    angle = torch.arange(ACROSS) * 2 * math.pi / ACROSS
    place = ((samples[:, 0] + 1) * torch.exp(1j * angle)).sum(-1)
    return torch.angle(place[:, 1:] / place[:, :-1]) / (2 * math.pi / ACROSS)


def correlation(made, asked):
    return torch.corrcoef(torch.stack([made.flatten(), asked.flatten()]))[0, 1].item()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["teacher", "student", "continue"])
def test_samples_move_as_their_actions_say(pipeline, way):
    generator = torch.Generator().manual_seed(7)
    steps = torch.randint(-1, 2, (64, 2), generator=generator).repeat_interleave(PLACES // 2, 1).float()
    rows = torch.stack([(steps < 0).float(), (steps > 0).float()], -1)
    if way == "continue":
        first = torch.full((1, 1, ACROSS), -0.8)
        first[0, 0, 3] = 0.9
        samples = pipeline.edit("continue", first, 64, "bright", keep=1, actions=rows).samples
        assert (samples[:, 0, 0].argmax(-1) == 3).all()
    else:
        samples = pipeline(64, actions=rows, teacher=way == "teacher", steps=8 if way == "teacher" else 2).samples
    made, asked = motion(samples), steps[:, 1:]
    assert correlation(made, asked) > 0.6
    assert (made.round() == asked).float().mean() > 0.7
    assert abs(correlation(made, asked.roll(1, 0))) < 0.3, "another clip's actions are not what is seen"

"""Where along its teacher's trajectories a student goes wrong: which noise its training should have seen more of.

    python benchmarks/trajectory_error.py [MODEL] [--num 128] [--every 3] [--recipe FILE]

The teacher, guided as it was distilled, draws clips by its own times with Heun's rule. From every few states x_t of
these trajectories the student takes one step to x0. The table tells how far that is from where the trajectory ends, rms
over all elements in units of sigma_data (0: an exact consistency function), beside the same of the teacher's own one
step, and the share of the student's training times at t and above (--recipe: a recipe.yaml other than the model's).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from scm_media import load
from scm_media.build import build
from scm_media.conditioning import Conditioning
from scm_media.guidance import Guided
from scm_media.interfaces import Backbone
from scm_media.pipeline import Pipeline, SamplingRequest, sampling
from scm_media.pipeline.randomness import sample_noise
from scm_media.samplers import sample_heun
from scm_media.trigflow import TrigFlow

AT_ONCE = 64
NUM_TIMES = 100_000


def main() -> None:
    """Prints the table as Markdown."""
    commands = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands.add_argument("model", nargs="?", default="audio/notes")
    commands.add_argument("--num", type=int, default=128)
    commands.add_argument("--every", type=int, default=3, help="states of a trajectory from one row to the next")
    commands.add_argument("--precision", default="bf16")
    commands.add_argument("--recipe", type=Path)
    asked = commands.parse_args()
    pipeline = load(asked.model, "cpu", asked.precision)
    if pipeline.folder.description.actions:
        raise SystemExit(f"{asked.model} is told rows of actions, which this script does not draw")
    times = sampling.choose_teacher_sampler(pipeline.settings, pipeline.flow).keywords["times"]
    of_teacher, of_student = errors(pipeline, times, asked.num)
    recipe = yaml.safe_load((asked.recipe or pipeline.folder.path / "recipe.yaml").read_text())
    drawn = training_times(recipe, pipeline.flow)
    print(
        "| t | tan t | the teacher in one step | the student | training times from t up |\n|---:|---:|---:|---:|---:|"
    )
    for place in range(0, len(times) - 1, asked.every):
        t = torch.tensor(times[place])
        fraction = (drawn >= t).double().mean().item()
        print(
            f"| {t.item():.3f} | {t.tan().item():.3g} | {of_teacher[place]:.3f} | {of_student[place]:.3f} | "
            f"{100 * fraction:.1f} % |"
        )


@torch.inference_mode()
def errors(pipeline: Pipeline, times: Sequence[float], num: int) -> tuple[list[float], list[float]]:
    """For each time but the last, the rms error of one step from there: of the guided teacher, of the student."""
    guidance = pipeline.method(SamplingRequest(teacher=True)).guidance
    own_scale = pipeline.method(SamplingRequest()).guidance.as_input
    teacher, student = pipeline.network("teacher"), pipeline.network("student")
    if guidance.scale != 1:
        guide = pipeline.network("guide") if pipeline.folder.has("guide") else None
        teacher = Guided(teacher, guidance.scale, guidance.interval, guide)
    squares = torch.zeros(2, len(times) - 1, dtype=torch.float64)
    for start in range(0, num, AT_ONCE):
        indices = range(start, min(num, start + AT_ONCE))
        cond = pipeline.conditioning([pipeline.labels.resolve(None, 0, index) for index in indices])
        told = cond if own_scale is None else replace(cond, guidance=torch.full((len(indices),), own_scale))
        noise = sample_noise(0, indices, 0, pipeline.latent_shape()) * pipeline.flow.sigma_data
        with pipeline.autocast():
            states = list(trajectory(teacher, pipeline.flow, noise, times, cond))
            for row, (backbone, known) in enumerate(((teacher, cond), (student, told))):
                squares[row] += square_errors(backbone, pipeline.flow, states, times, known)
    teachers, students = (squares / num).sqrt().tolist()
    return teachers, students


def trajectory(
    backbone: Backbone, flow: TrigFlow, x: Tensor, times: Sequence[float], cond: Conditioning
) -> Iterator[Tensor]:
    """x and every state after it, one a time, by Heun's rule."""
    yield x
    for step in pairwise(times):
        x = sample_heun(backbone, flow, lambda _, x=x: x, step, cond)
        yield x


def square_errors(
    backbone: Backbone, flow: TrigFlow, states: Sequence[Tensor], times: Sequence[float], cond: Conditioning
) -> Tensor:
    """Sum over clips of the mean square, over sigma_data², of one step from each state but the last to the last."""
    end, sums = states[-1], []
    for x, time in zip(states[:-1], times[:-1], strict=True):
        t = torch.full((len(x),), time, dtype=x.dtype)
        x0 = flow.denoise(x, backbone(x / flow.sigma_data, t, cond), t)
        sums.append(((x0 - end) / flow.sigma_data).double().square().flatten(1).mean(1).sum())
    return torch.stack(sums)


def training_times(recipe: dict[str, Any], flow: TrigFlow) -> Tensor:
    """Times as the student of a recipe is trained at, ascending."""
    timesteps = build(recipe["student"]["loss"]["timesteps"], "timesteps")
    generator = torch.Generator().manual_seed(0)
    return timesteps.sample(NUM_TIMES, flow.sigma_data, generator).sort().values


if __name__ == "__main__":
    main()

"""Measures where along its teacher's trajectories a student errs: which noise its training should see more of.

    python benchmarks/trajectory_error.py [MODEL] [--num 128] [--every 3] [--recipe FILE]

The teacher, guided as in distillation, draws samples by its own times with Heun's rule. From every few states x_t of
these trajectories the student takes one step to x0. The table holds the distance of that from the trajectory's
end, rms over all elements in units of sigma_data (0: an exact consistency function), the same for one step of the
teacher, and the fraction of the student's training times at t and above (--recipe: another recipe.yaml).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml
from distilled import draw_conditioning, guided_teacher, load_without_actions
from torch import Tensor

from scm_media.build import build
from scm_media.conditioning import Conditioning
from scm_media.interfaces import Backbone
from scm_media.pipeline import Pipeline, sampling
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
    pipeline = load_without_actions(asked.model, asked.precision)
    times = sampling.choose_teacher_sampler(pipeline.settings, pipeline.flow).keywords["times"]
    of_teacher, of_student = errors(pipeline, times, asked.num)
    recipe = yaml.safe_load((asked.recipe or pipeline.folder.path / "recipe.yaml").read_text())
    trained_at = draw_training_times(recipe, pipeline.flow)
    print(
        "| t | tan t | the teacher in one step | the student | training times from t up |\n|---:|---:|---:|---:|---:|"
    )
    for index in range(0, len(times) - 1, asked.every):
        t = torch.tensor(times[index])
        fraction = (trained_at >= t).double().mean().item()
        print(
            f"| {t.item():.3f} | {t.tan().item():.3g} | {of_teacher[index]:.3f} | {of_student[index]:.3f} | "
            f"{100 * fraction:.1f} % |"
        )


@torch.inference_mode()
def errors(pipeline: Pipeline, times: Sequence[float], num: int) -> tuple[list[float], list[float]]:
    """Returns the rms errors of one step from each time but the last, of the guided teacher and of the student."""
    teacher, student = guided_teacher(pipeline), pipeline.network("student")
    squares = torch.zeros(2, len(times) - 1, dtype=torch.float64)
    for start in range(0, num, AT_ONCE):
        indices = range(start, min(num, start + AT_ONCE))
        cond, student_cond = draw_conditioning(pipeline, indices)
        noise = sample_noise(0, indices, 0, pipeline.latent_shape()) * pipeline.flow.sigma_data
        with pipeline.autocast():
            states = list(trajectory(teacher, pipeline.flow, noise, times, cond))
            for row, pair in enumerate(((teacher, cond), (student, student_cond))):
                squares[row] += square_errors(*pair, pipeline.flow, states, times)
    teachers, students = (squares / num).sqrt().tolist()
    return teachers, students


def trajectory(
    backbone: Backbone, flow: TrigFlow, x: Tensor, times: Sequence[float], cond: Conditioning
) -> Iterator[Tensor]:
    """Yields x and the state at every later time, by Heun's rule."""
    yield x
    for step in pairwise(times):
        x = sample_heun(backbone, flow, lambda _, x=x: x, step, cond)
        yield x


def square_errors(
    backbone: Backbone, cond: Conditioning, flow: TrigFlow, states: Sequence[Tensor], times: Sequence[float]
) -> Tensor:
    """Returns for each state but the last the mean square error of one step, over sigma_data², summed over samples."""
    end, sums = states[-1], []
    for x, time in zip(states[:-1], times[:-1], strict=True):
        t = torch.full((len(x),), time, dtype=x.dtype)
        x0 = flow.denoise(x, backbone(x / flow.sigma_data, t, cond), t)
        sums.append(((x0 - end) / flow.sigma_data).double().square().flatten(1).mean(1).sum())
    return torch.stack(sums)


def draw_training_times(recipe: dict[str, Any], flow: TrigFlow) -> Tensor:
    """Returns times of the distribution that the student of a recipe is trained at, ascending."""
    timesteps = build(recipe["student"]["loss"]["timesteps"], "timesteps")
    generator = torch.Generator().manual_seed(0)
    return timesteps.sample(NUM_TIMES, flow.sigma_data, generator).sort().values


if __name__ == "__main__":
    main()

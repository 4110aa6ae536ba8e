"""Measures how many steps an edit needs, and at which times: the lower half of held-out pictures is generated.

    python benchmarks/edit_steps.py [MODEL] [--num 500] [--steps 2 4 8 16 32]

The table holds, for steps even in t (the default of edits) and for the default steps of sampling, the Fréchet distance
of the whole pictures to the originals in the model's own features, and the mean jump across the border. The originals'
jump is printed above the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from scm_media import load
from scm_media.evaluation.frechet import frechet_distance
from scm_media.evaluation.recipe_data import recipe_data
from scm_media.pipeline import Pipeline
from scm_media.pipeline.randomness import sample_noise
from scm_media.samplers import consistency_times, edit_times, sample_consistency

AT_ONCE = 100


def main() -> None:
    """Prints the table as Markdown, row by row."""
    commands = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands.add_argument("model", nargs="?", default="image/fashion")
    commands.add_argument("--num", type=int, default=500)
    commands.add_argument("--steps", type=int, nargs="+", default=[2, 4, 8, 16, 32])
    asked = commands.parse_args()
    pipeline = load(asked.model, "cpu", "bf16")
    held_out = recipe_data(pipeline.folder)[1]
    given = held_out.batch(range(asked.num))
    labels = [
        {name: pipeline.labels.names[name][int(label[place])] for name, label in given.labels.items()}
        for place in range(asked.num)
    ]
    exact = _statistics(pipeline, given.sample)
    print(f"border of the pictures as they were: {_jump(given.sample):.3f}\n")
    print("| steps | even in t: Fréchet | border | from 1.1 down: Fréchet | border |\n|---:|---:|---:|---:|---:|")
    for num_steps in asked.steps:
        cells = []
        for times in (edit_times(num_steps, pipeline.flow), consistency_times(num_steps, pipeline.flow)):
            made = torch.cat(
                [
                    _fill(
                        pipeline, given.sample[start : start + AT_ONCE], labels[start : start + AT_ONCE], start, times
                    )
                    for start in range(0, asked.num, AT_ONCE)
                ]
            )
            cells += [f"{frechet_distance(*_statistics(pipeline, made), *exact):.2f}", f"{_jump(made):.3f}"]
        print(f"| {num_steps} | {' | '.join(cells)} |", flush=True)


@torch.inference_mode()
def _fill(pipeline: Pipeline, given: Tensor, labels: Sequence[dict], first: int, times: Sequence[float]) -> Tensor:
    """Pictures ``(B, C, H, W)`` whose lower half is made anew, as ``scm-media edit`` makes it."""
    autoencoder = pipeline.network("autoencoder")
    mask = torch.ones(1, 1, *given.shape[2:])
    mask[..., given.shape[-2] // 2 :, :] = 0
    latent, known = autoencoder.encode(given * mask), autoencoder.latent_mask(mask)

    def noise(step: int) -> Tensor:
        indices = range(first, first + len(given))
        return sample_noise(0, indices, step, latent.shape[1:]) * pipeline.flow.sigma_data

    def keep(x0: Tensor, step: int) -> Tensor:
        return torch.where(known > 0, latent, x0)

    with pipeline.autocast():
        cond = pipeline.conditioning(labels)
        made = sample_consistency(
            pipeline.network("student"), pipeline.flow, noise, times, cond, start=latent * known, constrain=keep
        )
    return torch.where(mask > 0, given, autoencoder.decode(made))


@torch.inference_mode()
def _statistics(pipeline: Pipeline, pictures: Tensor) -> tuple[Tensor, Tensor]:
    features = torch.cat(
        [pipeline.network("feature_extractor").features(part) for part in pictures.split(AT_ONCE)]
    ).double()
    return features.mean(0), torch.cov(features.T)


def _jump(pictures: Tensor) -> float:
    """Returns the mean absolute difference across the border."""
    border = pictures.shape[-2] // 2
    return (pictures[..., border, :] - pictures[..., border - 1, :]).abs().mean().item()


if __name__ == "__main__":
    main()

"""Seconds a clip: of whole rows, of one evaluation and of decoding, measured in turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from scm_media.evaluation.rows import Row
from scm_media.pipeline import Pipeline
from scm_media.pipeline.randomness import sample_noise


@dataclass(frozen=True)
class Seconds:
    """Median seconds a clip.

    rows: of each row, end to end, decoding included. network: of one evaluation of the student, of the teacher where
    there is no student. guide: of one evaluation of the teacher's guide, None where it has none. decode: of decoding.
    """

    rows: tuple[float, ...]
    network: float
    guide: float | None
    decode: float


def time_rows(pipeline: Pipeline, rows: Sequence[Row], batch_size: int = 32, repeats: int = 3) -> Seconds:
    """Times rows of one batch each, in turns, so that a slow moment of the machine falls on all alike."""

    def generate(row: Row) -> Callable[[], object]:
        return lambda: pipeline(batch_size, batch_size=batch_size, **row.arguments)

    names = ["student" if pipeline.folder.has("student") else "teacher"]
    names += ["guide"] if pipeline.folder.has("guide") else []
    latent = sample_noise(0, range(batch_size), 0, pipeline.latent_shape()).to(pipeline.device)
    labels = [pipeline.labels.resolve(None, 0, index) for index in range(batch_size)]
    cond = pipeline.conditioning(labels)
    t = torch.full((batch_size,), math.pi / 4, device=pipeline.device)

    def evaluate(name: str) -> Callable[[], None]:
        network = pipeline.network(name)

        def once() -> None:
            with torch.inference_mode(), pipeline.autocast():
                network(latent, t, cond)
            if pipeline.device.type == "cuda":
                torch.cuda.synchronize(pipeline.device)

        return once

    evaluations = [evaluate(name) for name in names]
    jobs = [*map(generate, rows), *evaluations, lambda: pipeline.decode(latent)]
    seconds: list[list[float]] = [[] for _ in jobs]
    # What is done once (reading weights, choosing kernels) is not timed.
    for row in rows:
        pipeline(batch_size, batch_size=batch_size, **{**row.arguments, "steps": 1})
    for once in evaluations:
        once()
    for _ in range(repeats):
        for place, job in enumerate(jobs):
            begun = time.perf_counter()
            job()
            seconds[place].append((time.perf_counter() - begun) / batch_size)
    medians = list(map(median, seconds))
    of_rows, of_networks = medians[: len(rows)], medians[len(rows) : -1]
    of_guide = of_networks[1] if len(of_networks) > 1 else None
    return Seconds(tuple(of_rows), of_networks[0], of_guide, medians[-1])

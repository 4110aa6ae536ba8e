"""Seconds per sample: of whole rows, of one evaluation and of decoding, measured in turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from scm_media.evaluation.rows import Row
from scm_media.pipeline import Pipeline
from scm_media.pipeline.randomness import sample_noise

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and how much there is."""


def in_turns(
    jobs: Mapping[str, Callable[[], object]], repeats: int, progress: Progress = lambda what, done, total: None
) -> dict[str, list[float]]:
    """Returns the seconds of each job by name; each is run once in each of ``repeats`` rounds."""
    seconds: dict[str, list[float]] = {what: [] for what in jobs}
    for number in range(repeats):
        for what, job in jobs.items():
            begun = time.perf_counter()
            job()
            seconds[what].append(time.perf_counter() - begun)
        progress("rounds", number + 1, repeats)
    return seconds


@dataclass(frozen=True)
class Seconds:
    """Median seconds per sample.

    rows: each row, end to end, decoding included. network: one evaluation of the student, or of the teacher where there
    is no student. guide: one evaluation of the teacher's guide, None without. decode: decoding.
    """

    rows: tuple[float, ...]
    network: float
    guide: float | None
    decode: float


def time_rows(pipeline: Pipeline, rows: Sequence[Row], batch_size: int = 32, repeats: int = 3) -> Seconds:
    """Times rows of one batch each in turns, so that a slow moment of the machine slows all of them alike."""

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

        def call() -> None:
            with torch.inference_mode(), pipeline.autocast():
                network(latent, t, cond)
            if pipeline.device.type == "cuda":
                torch.cuda.synchronize(pipeline.device)

        return call

    # The first use of each (reading weights, choosing kernels) is not timed.
    for row in rows:
        pipeline(batch_size, batch_size=batch_size, **{**row.arguments, "steps": 1})
    evaluations = [evaluate(name) for name in names]
    for call in evaluations:
        call()
    jobs = [*map(generate, rows), *evaluations, lambda: pipeline.decode(latent)]
    seconds = in_turns({str(index): job for index, job in enumerate(jobs)}, repeats)
    medians = [median(each) / batch_size for each in seconds.values()]
    of_rows, of_networks = medians[: len(rows)], medians[len(rows) : -1]
    of_guide = of_networks[1] if len(of_networks) > 1 else None
    return Seconds(tuple(of_rows), of_networks[0], of_guide, medians[-1])

"""Makes what was asked for, one batch at a time, under the model's lock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scm_media.app.asking import TEACHER, Asked
from scm_media.app.jobs import Report, check, watched
from scm_media.app.media import Result, write_result
from scm_media.app.models import Models
from scm_media.app.warned import text_warnings
from scm_media.pipeline.records import describe_sampling, sample_records

WAIT = 0.2
"""Seconds between two looks whether a job that waits for its model is to stop."""


@dataclass
class Made:
    """Results so far. milliseconds: of sampling and of decoding. evaluations: network calls for one sample."""

    num: int
    results: list[Result] = field(default_factory=list)
    sampling: float = 0.0
    decoding: float = 0.0
    evaluations: int = 0
    warnings: list[str] = field(default_factory=list)


def make(
    models: Models,
    folder: Path,
    asked: Asked,
    most: int,
    stop: threading.Event | None = None,
    report: Report | None = None,
) -> Iterator[Made]:
    """Yields what is made so far, after each sample of a teacher or each batch of a student.

    The model's lock is free between two batches, so that users take turns. Raises ValueError for what the model cannot
    do, and ``Cancelled`` once ``stop`` is set.
    """
    stop = stop or threading.Event()
    with held(models.lock(asked.model), stop):
        pipeline = models.pipeline(asked.model)
        request = asked.request(pipeline, most, batch_size=1 if asked.steps == TEACHER else 4)
        batches = pipeline.batches(request)
        record = describe_sampling(pipeline, asked.model, request)
    made = Made(request.num)
    while len(made.results) < request.num:
        watch = watched(pipeline, request, stop, report)
        with held(models.lock(asked.model), stop), text_warnings(made.warnings), watch:
            part = next(batches)
        made.sampling += 1000 * part.seconds_model
        made.decoding += 1000 * part.seconds_decode
        made.evaluations = part.evaluations
        records = sample_records(pipeline, record, part)
        pairs = zip(part.samples, records, strict=True)
        made.results += [write_result(pipeline, folder, sample, each) for sample, each in pairs]
        yield made


class held:
    """Holds a lock, waiting for it until a job is to stop."""

    def __init__(self, lock: threading.RLock, stop: threading.Event) -> None:
        self.lock, self.stop = lock, stop

    def __enter__(self) -> None:
        while not self.lock.acquire(timeout=WAIT):
            check(self.stop)

    def __exit__(self, *_: object) -> None:
        self.lock.release()

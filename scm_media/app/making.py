"""Makes what was asked for, one batch at a time, under the model's lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from scm_media.app.asking import TEACHER, Asked
from scm_media.app.jobs import Report, check, watched
from scm_media.app.media import KEPT_RESULTS, Result, delete_oldest, write_result
from scm_media.app.models import Models
from scm_media.app.warned import text_warnings
from scm_media.pipeline import Pipeline, Samples, SamplingRequest
from scm_media.pipeline.records import describe_sampling, sample_records

BATCH_SIZE = 4
"""A student makes so many samples at once, after which others have their turn."""
WAIT = 0.2
"""A job that waits for its model looks after so many seconds whether it is to stop."""


@dataclass
class Made:
    """This holds the results so far. sampling, decoding: milliseconds. evaluations: network calls for one sample."""

    num: int
    results: list[Result] = field(default_factory=list)
    sampling: float = 0.0
    decoding: float = 0.0
    evaluations: int = 0
    warnings: list[str] = field(default_factory=list)


class Batches(NamedTuple):
    """This is what a model has begun to make: the request, its batches, and the record that its samples share."""

    request: SamplingRequest
    batches: Iterator[Samples]
    record: Mapping[str, Any]


def make(
    models: Models,
    folder: Path,
    asked: Asked,
    most: int,
    stop: threading.Event | None = None,
    report: Report | None = None,
) -> Iterator[Made]:
    """Yields what is made so far, after each sample of a teacher or each batch of a student.

    Raises ValueError for what the model cannot do, and ``Cancelled`` once ``stop`` is set.
    """

    def begin(pipeline: Pipeline) -> Batches:
        request = asked.request(pipeline, most, batch_size=1 if asked.steps == TEACHER else BATCH_SIZE)
        return Batches(request, pipeline.batches(request), describe_sampling(pipeline, asked.model, request))

    return make_batches(models, folder, asked.model, begin, stop, report)


def make_batches(
    models: Models,
    folder: Path,
    model: str,
    begin: Callable[[Pipeline], Batches],
    stop: threading.Event | None = None,
    report: Report | None = None,
) -> Iterator[Made]:
    """Yields what is made so far, after each batch that ``begin`` has a model make; raises as ``make``.

    The files lie in folders of their own below ``folder``, where the oldest are deleted. The model's lock is free
    between two batches, so that users take turns.
    """
    stop = stop or threading.Event()
    with held(models.lock(model), stop):
        pipeline = models.pipeline(model)
        request, batches, record = begin(pipeline)
    made = Made(request.num)
    while len(made.results) < request.num:
        watch = watched(pipeline, request, stop, report)
        with held(models.lock(model), stop), text_warnings(made.warnings), watch:
            part = next(batches)
        made.sampling += 1000 * part.seconds_model
        made.decoding += 1000 * part.seconds_decode
        made.evaluations = part.evaluations
        records = sample_records(pipeline, record, part)
        pairs = zip(part.samples, records, strict=True)
        made.results += [write_result(pipeline, folder, sample, each) for sample, each in pairs]
        delete_oldest(folder, max(KEPT_RESULTS, request.num))
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

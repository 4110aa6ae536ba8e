"""Makes edits, one batch at a time, under the model's lock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from scm_media.app.asking import Asked
from scm_media.app.edits import Edit
from scm_media.app.jobs import Report, watched
from scm_media.app.making import Made, held
from scm_media.app.media import write_result
from scm_media.app.models import Models
from scm_media.app.warned import text_warnings
from scm_media.pipeline.records import describe_edit, sample_records

BATCH_SIZE = 4
"""Samples at once, after which others have their turn."""


def make_edits(
    models: Models,
    folder: Path,
    asked: Asked,
    edit: Edit,
    source: Path,
    most: int,
    stop: threading.Event | None = None,
    report: Report | None = None,
) -> Iterator[Made]:
    """Yields what is made so far, after each batch; the files lie in folders of their own below ``folder``.

    Raises ValueError for what the model cannot do, and ``Cancelled`` once ``stop`` is set.
    """
    stop = stop or threading.Event()
    with held(models.lock(asked.model), stop):
        pipeline = models.pipeline(asked.model)
        sampling = asked.request(pipeline, most, BATCH_SIZE)
        if sampling.label is None and sampling.prompt is None:
            sampling = replace(sampling, guidance=None)  # it steers towards a label
        sampling = replace(sampling, steps=sampling.steps or pipeline.edit_steps)
        request = edit.request(pipeline, source, sampling)
        batches = pipeline.edit_batches(request)
        record = describe_edit(pipeline, asked.model, request)
    made = Made(sampling.num)
    while len(made.results) < sampling.num:
        with (
            held(models.lock(asked.model), stop),
            text_warnings(made.warnings),
            watched(pipeline, request.sampling, stop, report),
        ):
            part = next(batches)
        made.sampling += 1000 * part.seconds_model
        made.decoding += 1000 * part.seconds_decode
        made.evaluations = part.evaluations
        records = sample_records(pipeline, record, part)
        pairs = zip(part.samples, records, strict=True)
        made.results += [write_result(pipeline, folder, sample, each) for sample, each in pairs]
        yield made

"""This module makes edits, batch by batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from scm_media.app.asking import Asked
from scm_media.app.edits import Edit
from scm_media.app.jobs import Report
from scm_media.app.making import BATCH_SIZE, Batches, Made, make_batches
from scm_media.app.models import Models
from scm_media.pipeline import Pipeline
from scm_media.pipeline.records import describe_edit


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
    """Yields what is made so far, after each batch; raises as ``making.make``."""

    def begin(pipeline: Pipeline) -> Batches:
        sampling = asked.request(pipeline, most, BATCH_SIZE)
        if sampling.label is None and sampling.prompt is None:
            sampling = replace(sampling, guidance=None)  # it steers towards a label
        sampling = replace(sampling, steps=sampling.steps or pipeline.edit_steps)
        request = edit.request(pipeline, source, sampling)
        return Batches(sampling, pipeline.edit_batches(request), describe_edit(pipeline, asked.model, request))

    return make_batches(models, folder, asked.model, begin, stop, report)

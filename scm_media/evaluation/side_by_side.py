"""Samples of several samplers from the same noise, as files that a page holds itself."""

from __future__ import annotations

import base64
import io
import mimetypes
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scm_media.display import printable
from scm_media.evaluation.row_text import step_count
from scm_media.evaluation.rows import Row
from scm_media.pipeline import Pipeline, SamplingRequest
from scm_media.pipeline.records import describe_sampling, sample_records

ROWS = ("1", "2", "4", "teacher")
NUM = 8
"""Samples of each row."""


@dataclass(frozen=True)
class SampleFile:
    """A sample's file as a data URI, and its picture as another: None where the file is a picture itself.

    kind: ``image``, ``audio``, ``video``, or ``application`` for what browsers do not show.
    """

    kind: str
    address: str
    picture: str | None
    label: str


@dataclass(frozen=True)
class SampleRow:
    """The samples of one sampler: sample k starts from the same noise in each row."""

    name: str
    files: Sequence[SampleFile]


def make_sample_rows(
    pipeline: Pipeline, rows: Sequence[str | int] = ROWS, num: int = NUM, seed: int = 0, guidance: float | None = None
) -> list[SampleRow]:
    """Returns the first samples of a seed by several samplers, from the same noise and with the same labels.

    rows: as ``EvaluationRequest`` has them; a teacher that the model lacks is left out. guidance: the scale of all
    rows; None for the model's own. Files are written by the modality, in the format that it prefers.
    """
    parsed = [Row.parse(row, pipeline, guidance) for row in rows]
    return [_make_row(pipeline, row, num, seed) for row in parsed if not row.teacher or pipeline.folder.has("teacher")]


def _make_row(pipeline: Pipeline, row: Row, num: int, seed: int) -> SampleRow:
    request = SamplingRequest(num=num, seed=seed, batch_size=num, **row.arguments)
    record = describe_sampling(pipeline, pipeline.name, request)
    steps = step_count(row.steps)
    name = f"teacher, {row.sampler}, {steps}" if row.teacher else steps
    files = []
    for made in pipeline.batches(request):
        for sample, metadata in zip(made.samples, sample_records(pipeline, record, made), strict=True):
            label = " ".join(filter(None, (metadata["label"], metadata.get("prompt"))))
            files.append(make_file(pipeline.modality, sample, metadata, label))
    return SampleRow(name, files)


def make_file(modality: Any, sample: Any, metadata: dict[str, Any], label: str) -> SampleFile:
    """Returns one sample ``(C, *S)`` as the modality writes it, with a picture where browsers show no picture of it."""
    suffix = modality.written_suffixes[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"sample{suffix}"
        modality.write(path, sample, metadata)
        content = path.read_bytes() if path.is_file() else b""  # a modality may write a folder
    mime = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    kind = mime.partition("/")[0] if content else "application"
    picture = None
    if kind not in ("image", "video"):
        drawn = io.BytesIO()
        modality.preview(sample[None], columns=1).save(drawn, format="PNG")
        picture = data_uri("image/png", drawn.getvalue())
    return SampleFile(kind, data_uri(mime, content) if kind != "application" else "", picture, printable(label))


def data_uri(mime: str, content: bytes) -> str:
    """Returns bytes as an address that holds them."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"

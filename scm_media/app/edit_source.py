"""This module shows the file that is edited: in words, on the canvas, over time, and played as the model gets it."""

from __future__ import annotations

import html
import shutil
import time
from pathlib import Path
from typing import Any

import gradio as gr

from scm_media.app.asking import Asked
from scm_media.app.context import App
from scm_media.app.edits import AREA, STRETCH, Source, open_source, time_option, to_picture
from scm_media.app.media import kind_of
from scm_media.app.timeline import show_timeline
from scm_media.display import printable
from scm_media.drawing import scale_picture
from scm_media.pipeline import Pipeline, SamplingRequest
from scm_media.pipeline.records import describe_sampling, sample_records

CANVAS = 400
"""The shorter side of a picture to draw on has at least this many pixels."""
KEPT = 6
"""A session keeps this many folders of samples to edit, and of what is played of a file."""


def show_source(app: App, request: gr.Request, model: str, way: str, file: Path) -> list[Any]:
    """Returns the updates of a file, its words, canvas, timeline, preview, start and end.

    Raises ValueError for a file that the model cannot take.
    """
    pipeline = app.models.pipeline(model)
    source = open_source(pipeline, file)
    stretch = _middle_third(pipeline, source)
    picture = scale_picture(to_picture(source.sample), CANVAS) if source.sample.ndim >= 3 else None
    drawn: dict[str, Any] = {"background": picture, "layers": [], "composite": None}
    return [
        str(file),
        show_if_any(in_paragraph(source.words)),
        gr.update(value=None if picture is None else drawn, visible=way == AREA),
        show_if_any("" if way == AREA else draw_stretch(pipeline, source, stretch if way == STRETCH else None)),
        show_if_any(_play(app, request, pipeline, source, file)),
        *stretch,
    ]


def show_no_source() -> list[Any]:
    """Returns the updates of the same components for no file."""
    return [None, show_if_any(""), gr.update(value=None, visible=False), show_if_any(""), show_if_any(""), 0, 0]


def draw_stretch(pipeline: Pipeline, source: Source | None, stretch: tuple[float, float] | None) -> str:
    """Returns HTML of a file over time; "" for pictures."""
    option = time_option(pipeline.modality)
    if source is None or option is None or _is_still(source):
        return ""
    return show_timeline(source.sample, option, stretch)


def make_source(app: App, request: gr.Request, asked: Asked) -> Path:
    """Returns a file with a sample that the model makes, to be edited; the caller holds the model's lock."""
    pipeline = app.models.pipeline(asked.model)
    wanted = asked.request(pipeline, most=1)
    wanted = SamplingRequest(label=wanted.label, prompt=wanted.prompt, seed=wanted.seed)
    made = next(iter(pipeline.batches(wanted)))
    (record,) = sample_records(pipeline, describe_sampling(pipeline, asked.model, wanted), made)
    file = _new_folder(app, request) / f"sample-{wanted.seed}{pipeline.modality.written_suffixes[0]}"
    pipeline.modality.write(file, made.samples[0], record)
    return file


def show_if_any(content: str) -> Any:
    """Returns the update of HTML that takes no room where there is none."""
    return gr.update(value=content, visible=bool(content))


def in_paragraph(words: str) -> str:
    """Returns HTML of words as they are."""
    return f"<p>{html.escape(printable(words))}</p>"


def _is_still(source: Source) -> bool:
    """Returns whether a file is a single picture where the model makes clips."""
    return source.sample.ndim == 4 and source.sample.shape[1] == 1


def _middle_third(pipeline: Pipeline, source: Source) -> tuple[float, float]:
    """Returns the stretch that is chosen at first; it begins and ends at whole frames, or hundredths of a second."""
    option = time_option(pipeline.modality)
    length = source.length(option)
    if option is not None and option.rate == 1:
        return float(int(length // 3)), float(max(int(length // 3) + 1, int(2 * length // 3)))
    return round(length / 3, 2), round(2 * length / 3, 2)


def _play(app: App, request: gr.Request, pipeline: Pipeline, source: Source, file: Path) -> str:
    """Returns HTML that plays what the model gets; "" for pictures, which the canvas shows."""
    modality = pipeline.modality
    if source.sample.ndim == 3 or time_option(modality) is None:
        return ""
    folder = _new_folder(app, request)
    if _is_still(source):
        still = folder / f"{file.stem}-frame.png"
        scale_picture(to_picture(source.sample), CANVAS // 2).save(still)
        return f'<img class="scm-source" src="{_address(app, still)}" alt="the picture as the model gets it">'
    played = folder / f"{file.stem}-played{modality.written_suffixes[0]}"
    modality.write(played, source.sample, {})
    address = _address(app, played)
    if kind_of(played) == "audio":
        return f'<audio src="{address}" controls aria-label="the sound as the model gets it"></audio>'
    label = "the clip as the model gets it"
    return f'<video src="{address}" controls muted loop playsinline aria-label="{label}"></video>'


def _address(app: App, file: Path) -> str:
    return html.escape(app.url(file), quote=True)


def _new_folder(app: App, request: gr.Request) -> Path:
    """Returns an empty folder: under the address of an older file the page would go on to play that one."""
    folder = app.folder(request) / "sources" / str(time.time_ns())
    folder.mkdir(parents=True)
    for old in sorted(folder.parent.iterdir())[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder

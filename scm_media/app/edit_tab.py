"""The tab that edits a file: draw what is made anew, choose a stretch, continue, set a picture in motion."""

from __future__ import annotations

import html
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from scm_media.app.asking import guides
from scm_media.app.context import App, session_of
from scm_media.app.controls import Controls
from scm_media.app.edit_making import make_edits
from scm_media.app.editor import bound_editors
from scm_media.app.edits import (
    AREA,
    KEEPING,
    STRETCH,
    WORDS,
    Edit,
    Source,
    accepted_suffixes,
    describe_missing,
    drawn_mask,
    find_ways,
    open_source,
    time_option,
    to_picture,
)
from scm_media.app.errors import in_words
from scm_media.app.media import empty, kind_of
from scm_media.app.showing import show_job
from scm_media.app.timeline import show_timeline, timeline
from scm_media.app.waveforms import move_end, place_in
from scm_media.display import printable
from scm_media.drawing import scale_picture
from scm_media.pipeline import Pipeline
from scm_media.pipeline.records import describe_sampling, sample_records
from scm_media.pipeline.requests import SamplingRequest
from scm_media.pipeline.windows import find_axis_option

TITLE = "Edit"
STEPS = (1, 2, 4, 8, 16, 32)
"""Numbers of steps that are offered: networks that were not trained with masks need more of them."""
CANVAS = 400
"""Pixels of the shorter side of a picture to draw on, at least."""
KEPT = 6
"""Folders of samples to edit, and of what is played of a file, that a session keeps."""
PREVIEW = """
video, .scm-source { height: 256px; max-width: 100%; image-rendering: pixelated; border-radius: 8px; margin: 0; }
audio { width: 100%; display: block; }
"""
BRUSH = gr.Brush(default_size=32, colors=["#ff7a00"], default_color="#ff7a00", color_mode="fixed")


class EditControls(Controls):
    """The controls of a model with the steps of edits."""

    def _settings(self, pipeline: Pipeline) -> dict[str, Any]:
        found = super()._settings(pipeline)
        numbers = sorted({*STEPS, pipeline.edit_steps}) if pipeline.folder.has("student") else []
        return found | {
            "steps": found["steps"]
            | {
                "choices": [*map(str, numbers)],
                "value": str(pipeline.edit_steps) if numbers else None,
                "info": "fewer are faster; networks that were not trained with masks need more",
            },
            "guidance": found["guidance"] | {"visible": guides(pipeline) == "both"},
        }


def build(app: App) -> None:
    """Adds the tab's components and handlers to the blocks around it."""
    _Tab(app)


class _Tab:
    """The components, by what they are for, and their handlers."""

    def __init__(self, app: App) -> None:
        self.app = app
        first = app.models.pipeline(app.models.names[0])
        self.file = gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                self.controls = EditControls(app, live=False)
                most = app.settings.most
                self.num = gr.Number(
                    min(4, most),
                    label="Number of samples",
                    precision=0,
                    minimum=1,
                    maximum=most,
                    elem_id="scm-edit-num",
                )
            with gr.Column(scale=3, min_width=300):
                self.way = gr.Radio(label="What to do", elem_id="scm-edit-way", **_ways(first))
                self.missing = gr.HTML(**_missing(first))
                self.upload = gr.File(height=140, elem_id="scm-edit-file", **_upload(first))
                self.sample = gr.Button("Try it with a sample of the model", size="sm", elem_id="scm-edit-sample")
                bound_editors()
                self.words = gr.HTML(visible=False, elem_id="scm-edit-words")
                self.editor = gr.ImageEditor(
                    label="Draw on it",
                    type="numpy",
                    format="png",
                    sources=(),
                    transforms=(),
                    layers=False,
                    brush=BRUSH,
                    height=CANVAS,
                    visible=False,
                    elem_id="scm-edit-editor",
                )
                self.timeline = timeline("scm-edit-timeline")
                self.preview = gr.HTML(visible=False, css_template=PREVIEW, elem_id="scm-edit-preview")
                with gr.Row():
                    self.start = gr.Number(0, minimum=0, min_width=120, visible=False, elem_id="scm-edit-start")
                    self.end = gr.Number(0, minimum=0, min_width=120, visible=False, elem_id="scm-edit-end")
                    self.keep = gr.Number(0, minimum=0, min_width=120, visible=False, elem_id="scm-edit-keep")
                    self.length = gr.Number(0, minimum=0, min_width=120, visible=False, elem_id="scm-edit-length")
                with gr.Row():
                    self.go = gr.Button("Edit", variant="primary", min_width=120, elem_id="scm-edit-go")
                    self.stop = gr.Button("Cancel", min_width=120)
                self.status = gr.HTML(elem_id="scm-edit-status")
                self.shown = gr.HTML(empty("Choose a file and press Edit."), elem_id="scm-edited")
        self._connect()

    def _connect(self) -> None:
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        source = [self.file, self.words, self.editor, self.timeline, self.preview, self.start, self.end]
        self.controls.follow()
        model = self.controls.model
        model.input(
            self.app.guarded(self.on_model),
            model,
            [self.way, self.missing, self.upload, *source, self.keep, self.length],
            **quiet,
        )
        self.way.change(
            self.app.guarded(self.on_way),
            [model, self.way, self.file, self.start, self.end],
            [self.editor, self.timeline, self.start, self.end, self.keep, self.length],
            **quiet,
        )
        self.upload.upload(
            self.app.guarded(self.on_upload), [model, self.way, self.upload], [*source, self.upload], **quiet
        )
        self.upload.clear(self.app.guarded(self.on_clear), None, source, **quiet)
        self.sample.click(
            self.app.guarded(self.on_sample),
            [self.way, *self.controls.components],
            [*source, self.upload],
            api_visibility="private",
            show_progress_on=self.words,
            concurrency_id="make",
        )
        stretch = [model, self.file, self.start, self.end]
        self.timeline.select(self.app.guarded(self.on_drag), stretch, [self.start, self.end, self.timeline], **quiet)
        for each in (self.start, self.end):
            each.input(self.app.guarded(self.on_stretch), stretch, self.timeline, **quiet)
        values = [self.way, self.file, self.editor, self.start, self.end, self.keep, self.length, self.num]
        self.go.click(
            self.app.guarded(self.on_edit),
            [*values, *self.controls.components],
            [self.status, self.shown],
            api_visibility="private",
            show_progress_on=self.status,
            concurrency_id="make",
        )
        self.stop.click(self.app.guarded(self.on_cancel), queue=False, **quiet)

    def on_model(self, model: str) -> list[Any]:
        """Returns the updates for another model: its ways, and nothing to edit yet."""
        pipeline = self.app.models.pipeline(model)
        ways = _ways(pipeline)
        numbers = [gr.update(value=0, **each) for each in _number_settings(pipeline, ways["value"])[2:]]
        return [
            gr.update(**ways),
            gr.update(**_missing(pipeline)),
            gr.update(value=None, **_upload(pipeline)),
            *self.on_clear(),
            *numbers,
        ]

    def on_way(self, model: str, way: str, file: str | None, start: Any, end: Any) -> list[Any]:
        """Returns which components are shown for a way."""
        pipeline = self.app.models.pipeline(model)
        source = None if file is None else open_source(pipeline, Path(file))
        marked = self._draw(pipeline, source, (_number(start), _number(end)) if way == STRETCH else None)
        numbers = [gr.update(**each) for each in _number_settings(pipeline, way)]
        return [gr.update(visible=way == AREA and source is not None), _show("" if way == AREA else marked), *numbers]

    def on_clear(self) -> list[Any]:
        """Returns the updates for no file."""
        return [None, _show(""), gr.update(value=None, visible=False), _show(""), _show(""), 0, 0]

    def on_upload(self, model: str, way: str, file: str, request: gr.Request) -> list[Any]:
        """Returns the updates for an uploaded file; one that cannot be taken leaves room for the next one."""
        try:
            return [*self._open(model, way, self.app.claim(request, file), request), gr.skip()]
        except ValueError as error:
            self.app.say(in_words(error), "Not taken", refused=True)
            return [*self.on_clear(), None]

    def on_sample(
        self,
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
        *values: Any,
    ) -> list[Any]:
        """Returns the updates for a sample that the model makes, to be edited."""
        way, *own = values
        asked = self.controls.asked(own, num=1)
        progress(0, desc="making")
        with self.app.models.lock(asked.model):
            pipeline = self.app.models.pipeline(asked.model)
            wanted = asked.request(pipeline, most=1)
            wanted = SamplingRequest(label=wanted.label, prompt=wanted.prompt, seed=wanted.seed)
            made = next(iter(pipeline.batches(wanted)))
            (record,) = sample_records(pipeline, describe_sampling(pipeline, asked.model, wanted), made)
        file = self._new_folder(request) / f"sample-{wanted.seed}{pipeline.modality.written_suffixes[0]}"
        pipeline.modality.write(file, made.samples[0], record)
        return [*self._open(asked.model, way, file, request), None]

    def _open(self, model: str, way: str, file: Path, request: gr.Request) -> list[Any]:
        pipeline = self.app.models.pipeline(model)
        source = open_source(pipeline, file)
        option = time_option(pipeline.modality)
        length = source.length(option)
        stretch = (round(length / 3, 2), round(2 * length / 3, 2))
        if option is not None and option.rate == 1:
            stretch = (float(int(length // 3)), float(max(int(length // 3) + 1, int(2 * length // 3))))
        picture = scale_picture(to_picture(source.sample), CANVAS) if source.sample.ndim >= 3 else None
        drawn: dict[str, Any] = {"background": picture, "layers": [], "composite": None}
        return [
            str(file),
            _show(_say(source.words)),
            gr.update(value=None if picture is None else drawn, visible=way == AREA),
            _show("" if way == AREA else self._draw(pipeline, source, stretch if way == STRETCH else None)),
            _show(self._preview(pipeline, source, file, request)),
            *stretch,
        ]

    def _preview(self, pipeline: Pipeline, source: Source, file: Path, request: gr.Request) -> str:
        """Returns HTML that plays what the model gets; "" for pictures, which the canvas shows."""
        modality = pipeline.modality
        if source.sample.ndim == 3 or time_option(modality) is None:
            return ""
        folder = self._new_folder(request)
        if source.sample.ndim == 4 and source.sample.shape[1] == 1:
            still = folder / f"{file.stem}-frame.png"
            scale_picture(to_picture(source.sample), CANVAS // 2).save(still)
            return (
                f'<img class="scm-source" src="{_escape(self.app.url(still))}" alt="the picture as the model gets it">'
            )
        played = folder / f"{file.stem}-played{modality.written_suffixes[0]}"
        modality.write(played, source.sample, {})
        address = _escape(self.app.url(played))
        if kind_of(played) == "audio":
            return f'<audio src="{address}" controls aria-label="the sound as the model gets it"></audio>'
        label = "the clip as the model gets it"
        return f'<video src="{address}" controls muted loop playsinline aria-label="{label}"></video>'

    def _new_folder(self, request: gr.Request) -> Path:
        """Returns an empty folder: under the address of an older file the page would go on to play that one."""
        folder = self.app.folder(request) / "sources" / str(time.time_ns())
        folder.mkdir(parents=True)
        for old in sorted(folder.parent.iterdir())[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return folder

    def on_drag(self, model: str, file: str | None, start: Any, end: Any, event: gr.EventData) -> list[Any]:
        """Returns the stretch that the mouse chose: a drag chooses both ends, a click moves the nearer one."""
        pipeline = self.app.models.pipeline(model)
        if file is None:
            return [gr.skip()] * 3
        source = open_source(pipeline, Path(file))
        option = time_option(pipeline.modality)
        length = source.length(option)
        digits = 0 if option is not None and option.rate == 1 else 3
        places = sorted(round(place_in(_number(each), length), digits) for each in (event.first, event.last))
        chosen = (places[0], places[1])
        if chosen[0] == chosen[1]:
            chosen = move_end((_number(start), _number(end)), chosen[0])
        return [*chosen, self._draw(pipeline, source, chosen)]

    def on_stretch(self, model: str, file: str | None, start: Any, end: Any) -> Any:
        """Returns the timeline with the stretch that the numbers say."""
        if file is None:
            return gr.skip()
        pipeline = self.app.models.pipeline(model)
        return self._draw(pipeline, open_source(pipeline, Path(file)), (_number(start), _number(end)))

    def _draw(self, pipeline: Pipeline, source: Source | None, stretch: tuple[float, float] | None) -> str:
        option = time_option(pipeline.modality)
        if source is None or option is None or (source.sample.ndim == 4 and source.sample.shape[1] == 1):
            return ""
        return show_timeline(source.sample, option, stretch)

    def on_edit(
        self,
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
        *values: Any,
    ) -> Iterator[Any]:
        """Yields a line of facts and the results so far."""
        way, file, drawing, start, end, keep, length, num, *own = values
        if file is None:
            raise ValueError('no file to edit yet: choose one, or press "Try it with a sample of the model"')
        found = find_axis_option(self.app.models.pipeline(own[0]).modality)
        sizes = f"{found[0]}={_number(length)}" if found and way in KEEPING and _number(length) else None
        asked = self.controls.asked(own, num=num, sizes=sizes)
        mask = None
        if way == AREA:
            sample = open_source(self.app.models.pipeline(asked.model), Path(file)).sample
            layers = (drawing or {}).get("layers") or []
            mask = drawn_mask(layers, (sample.shape[-2], sample.shape[-1]))
        edit = Edit(
            way=way,
            keep=_number(keep) or None,
            stretch=(_number(start), _number(end)) if way == STRETCH else None,
            mask=mask,
        )
        folder, most = self.app.folder(request), self.app.settings.most
        yield from show_job(
            self.app,
            request,
            num,
            progress,
            lambda stopped, report: make_edits(self.app.models, folder, asked, edit, Path(file), most, stopped, report),
        )

    def on_cancel(self, request: gr.Request) -> None:
        """Stops what the session makes."""
        if not self.app.jobs.stop(session_of(request)):
            self.app.say("Nothing is running.", "Cancel")


def _ways(pipeline: Pipeline) -> dict[str, Any]:
    ways = find_ways(pipeline)
    return {"choices": [(WORDS[way], way) for way in ways], "value": ways[0] if ways else None}


def _missing(pipeline: Pipeline) -> dict[str, Any]:
    """Returns the settings of what says which ways a model does not have."""
    words = describe_missing(pipeline)
    return {"value": _say(f"{pipeline.name} {words}."), "visible": bool(words)}


def _say(words: str) -> str:
    return f"<p>{html.escape(printable(words))}</p>"


def _show(content: str) -> Any:
    """Returns the update of HTML that takes no room where there is none."""
    return gr.update(value=content, visible=bool(content))


def _upload(pipeline: Pipeline) -> dict[str, Any]:
    modality = pipeline.modality
    kind = {"image": "A picture", "audio": "A sound", "video": "A clip, or a picture"}.get(modality.name, "A file")
    return {"label": f"{kind} to edit", "file_types": accepted_suffixes(modality)}


def _number_settings(pipeline: Pipeline, way: str | None) -> list[dict[str, Any]]:
    """Returns the settings of start, end, keep and length for a way."""
    option = time_option(pipeline.modality)
    unit = "" if option is None else f", {option.unit}"
    step = None if option is None or option.rate != 1 else 1
    stretched, kept = way == STRETCH, way in KEEPING
    sides = " at each end" if way == "interpolate" else ""
    return [
        {"label": f"From{unit}", "visible": stretched, "step": step or 0.01},
        {"label": f"To{unit}", "visible": stretched, "step": step or 0.01},
        {"label": f"Kept{sides}{unit} (0: the task's)", "visible": kept, "step": step or 0.01},
        {"label": f"Length{unit} (0: the model's)", "visible": kept, "step": step or 0.01},
    ]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _escape(address: str) -> str:
    return html.escape(address, quote=True)

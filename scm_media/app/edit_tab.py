"""This tab edits a file: users draw what is made anew, choose a stretch, continue, or set a picture in motion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from scm_media.app.cancelling import click_time, connect_cancel, hidden_clock, timed
from scm_media.app.context import App
from scm_media.app.edit_making import make_edits
from scm_media.app.edit_settings import EditControls, missing_settings, number_settings, upload_settings, way_settings
from scm_media.app.edit_source import CANVAS, draw_stretch, make_source, show_if_any, show_no_source, show_source
from scm_media.app.editor import bound_editors
from scm_media.app.edits import AREA, KEEPING, STRETCH, Edit, drawn_mask, open_source, time_option
from scm_media.app.errors import guarded, in_words
from scm_media.app.media import empty
from scm_media.app.showing import show_job
from scm_media.app.timeline import timeline
from scm_media.app.waveforms import move_end, place_in
from scm_media.pipeline.windows import find_axis_option

TITLE = "Edit"
PREVIEW = """
video, .scm-source { height: 256px; max-width: 100%; image-rendering: pixelated; border-radius: 8px; margin: 0; }
audio { width: 100%; display: block; }
"""
BRUSH = gr.Brush(default_size=32, colors=["#ff7a00"], default_color="#ff7a00", color_mode="fixed")


def build(app: App) -> None:
    """Adds the tab's components and handlers to the blocks around it."""
    _Tab(app)


class _Tab:
    """This holds the components, by what they are for, and their handlers."""

    def __init__(self, app: App) -> None:
        self.app, self.clock = app, hidden_clock()
        self.file = gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                self._add_controls()
            with gr.Column(scale=3, min_width=300):
                self._add_source()
                self._add_numbers()
                with gr.Row():
                    self.go = gr.Button("Edit", variant="primary", min_width=120, elem_id="scm-edit-go")
                    self.stop = gr.Button("Cancel", min_width=120, elem_id="scm-edit-stop")
                self.note = gr.HTML(elem_id="scm-edit-note")
                self.status = gr.HTML(elem_id="scm-edit-status")
                self.shown = gr.HTML(empty("Choose a file and press Edit."), elem_id="scm-edited")
        self._connect()

    def _add_controls(self) -> None:
        self.controls = EditControls(self.app, live=False)
        settings = self.app.settings
        self.num = gr.Number(
            settings.made_at_first,
            label="Number of samples",
            precision=0,
            minimum=1,
            maximum=settings.most,
            elem_id="scm-edit-num",
        )

    def _add_source(self) -> None:
        first = self.app.models.pipeline(self.app.models.names[0])
        self.way = gr.Radio(label="What to do", elem_id="scm-edit-way", **way_settings(first))
        self.missing = gr.HTML(**missing_settings(first))
        self.upload = gr.File(height=140, elem_id="scm-edit-file", **upload_settings(first))
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

    def _add_numbers(self) -> None:
        with gr.Row():
            self.start = gr.Number(0, minimum=0, min_width=120, visible=False, elem_id="scm-edit-start")
            self.end = gr.Number(0, minimum=0, min_width=120, visible=False, elem_id="scm-edit-end")
            self.keep = gr.Number(0, minimum=0, min_width=120, visible=False, elem_id="scm-edit-keep")
            self.length = gr.Number(0, minimum=0, min_width=120, visible=False, elem_id="scm-edit-length")

    def _connect(self) -> None:
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        source = [self.file, self.words, self.editor, self.timeline, self.preview, self.start, self.end]
        self.controls.follow()
        model = self.controls.model
        model.input(
            guarded(self.on_model),
            model,
            [self.way, self.missing, self.upload, *source, self.keep, self.length],
            **quiet,
        )
        self.way.change(
            guarded(self.on_way),
            [model, self.way, self.file, self.start, self.end],
            [self.editor, self.timeline, self.start, self.end, self.keep, self.length],
            **quiet,
        )
        self.upload.upload(guarded(self.on_upload), [model, self.way, self.upload], [*source, self.upload], **quiet)
        self.upload.clear(guarded(show_no_source), None, source, **quiet)
        self.sample.click(
            guarded(self.on_sample),
            [self.way, *self.controls.components],
            [*source, self.upload],
            api_visibility="private",
            show_progress_on=self.words,
            concurrency_id="make",
        )
        stretch = [model, self.file, self.start, self.end]
        self.timeline.select(guarded(self.on_drag), stretch, [self.start, self.end, self.timeline], **quiet)
        for each in (self.start, self.end):
            each.input(guarded(self.on_stretch), stretch, self.timeline, **quiet)
        values = [self.way, self.file, self.editor, self.start, self.end, self.keep, self.length, self.num]
        inputs = [self.clock, *values, *self.controls.components]
        self.go.click(
            guarded(self.on_edit),
            inputs,
            [self.status, self.shown],
            js=timed(len(inputs)),
            api_visibility="private",
            show_progress_on=self.status,
            concurrency_id="make",
        )
        connect_cancel(self.app, self.stop, self.clock, self.note, [self.go])

    def on_model(self, model: str) -> list[Any]:
        """Returns the updates for another model: its ways, and nothing to edit yet."""
        pipeline = self.app.models.pipeline(model)
        ways = way_settings(pipeline)
        numbers = [gr.update(value=0, **each) for each in number_settings(pipeline, ways["value"])[2:]]
        return [
            gr.update(**ways),
            gr.update(**missing_settings(pipeline)),
            gr.update(value=None, **upload_settings(pipeline)),
            *show_no_source(),
            *numbers,
        ]

    def on_way(self, model: str, way: str, file: str | None, start: Any, end: Any) -> list[Any]:
        """Returns which components are shown for a way."""
        pipeline = self.app.models.pipeline(model)
        source = None if file is None else open_source(pipeline, Path(file))
        marked = draw_stretch(pipeline, source, (_number(start), _number(end)) if way == STRETCH else None)
        numbers = [gr.update(**each) for each in number_settings(pipeline, way)]
        return [
            gr.update(visible=way == AREA and source is not None),
            show_if_any("" if way == AREA else marked),
            *numbers,
        ]

    def on_upload(self, model: str, way: str, file: str, request: gr.Request) -> list[Any]:
        """Returns the updates for an uploaded file; one that cannot be taken leaves room for the next one."""
        try:
            return [*show_source(self.app, request, model, way, self.app.claim(request, file)), gr.skip()]
        except ValueError as error:
            self.app.say(in_words(error), "Not taken", refused=True)
            return [*show_no_source(), None]

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
            file = make_source(self.app, request, asked)
        return [*show_source(self.app, request, asked.model, way, file), None]

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
        return [*chosen, draw_stretch(pipeline, source, chosen)]

    def on_stretch(self, model: str, file: str | None, start: Any, end: Any) -> Any:
        """Returns the timeline with the stretch that the numbers say."""
        if file is None:
            return gr.skip()
        pipeline = self.app.models.pipeline(model)
        return draw_stretch(pipeline, open_source(pipeline, Path(file)), (_number(start), _number(end)))

    def on_edit(
        self,
        request: gr.Request,
        clicked: Any,
        *values: Any,
        progress: Any = gr.Progress(),  # noqa: B008
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
            click_time(clicked),
        )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0

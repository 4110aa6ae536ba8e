"""This tab makes samples as files, and takes settings from files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from scm_media.app.asking import Asked, describe_sizes, format_walk, parse_walk
from scm_media.app.cancelling import click_time, connect_cancel, hidden_clock, timed
from scm_media.app.context import App
from scm_media.app.controls import Controls
from scm_media.app.errors import guarded, in_words
from scm_media.app.making import make
from scm_media.app.media import empty
from scm_media.app.restore import restore_settings
from scm_media.app.showing import show_job

TITLE = "Generate"
LARGEST = 2**53 - 1
"""A browser keeps all whole numbers up to this one."""


def build(app: App) -> None:
    """Adds the tab's components and handlers to the blocks around it."""
    _Tab(app)


class _Tab:
    """This holds the components, by what they are for, and their handlers."""

    def __init__(self, app: App) -> None:
        self.app, self.clock = app, hidden_clock()
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                self.controls = Controls(app, live=False)
                self._add_settings()
                with gr.Row():
                    self.go = gr.Button("Generate", variant="primary", min_width=120, elem_id="scm-go")
                    self.stop = gr.Button("Cancel", min_width=120, elem_id="scm-stop")
                self.note = gr.HTML(elem_id="scm-note")
                self.dropped = gr.File(label="Settings from a file of scm-media", height=150, elem_id="scm-drop")
            with gr.Column(scale=3, min_width=300):
                self.status = gr.HTML(elem_id="scm-status", min_height=64)
                self.shown = gr.HTML(empty("Choose a model and press Generate."), elem_id="scm-made")
        self._connect()

    def _add_settings(self) -> None:
        most = self.app.settings.most
        self.num = gr.Slider(
            1,
            max(2, most),
            value=self.app.settings.made_at_first,
            step=1,
            label="Number of samples",
            interactive=most > 1,
        )
        with gr.Accordion("More settings", open=False):
            self.first = gr.Number(0, label="Number of the first sample", precision=0, minimum=0)
            self.sizes = gr.Textbox(label="Sizes", max_length=200, **sizes_of(self.app, self.app.models.names[0]))
            self.walk = gr.Textbox(label="Walk to another seed", placeholder="7 0.5 is half of the way to seed 7")
        self.settings = [self.num, self.first, self.sizes, self.walk]

    def _connect(self) -> None:
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        self.controls.follow()
        self.controls.model.input(guarded(self.on_model), self.controls.model, self.sizes, **quiet)
        inputs = [self.clock, *self.controls.components, *self.settings]
        self.go.click(
            guarded(self.on_generate),
            inputs,
            [self.status, self.shown],
            js=timed(len(inputs)),
            api_visibility="private",
            show_progress="full",
            show_progress_on=self.status,
            concurrency_id="make",
        )
        connect_cancel(self.app, self.stop, self.clock, self.note, [self.go])
        self.dropped.upload(
            guarded(self.on_drop),
            self.dropped,
            [self.dropped, *self.controls.components, *self.settings],
            show_progress_on=self.dropped,
            **quiet,
        )

    def on_model(self, model: str) -> Any:
        """Returns the update of the field of sizes for another model."""
        return gr.update(**sizes_of(self.app, model))

    def on_generate(
        self,
        request: gr.Request,
        clicked: Any,
        *values: Any,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> Iterator[Any]:
        """Yields a line of facts and the results so far."""
        *own, num, first, sizes, walk = values
        asked = self.controls.asked(own, num=num, first=first, sizes=sizes, walk=parse_walk(walk))
        folder, most = self.app.folder(request), self.app.settings.most
        yield from show_job(
            self.app,
            request,
            num,
            progress,
            lambda stopped, report: make(self.app.models, folder, asked, most, stopped, report),
            click_time(clicked),
        )

    def on_drop(self, file: str | None, request: gr.Request) -> list[Any]:
        """Returns the updates for the settings of a file, and takes the file off the page."""
        unchanged = [gr.skip()] * (len(self.controls.components) + len(self.settings))
        if file is None:
            return [gr.skip(), *unchanged]
        try:
            asked, remark = restore_settings(self.app.models, self.app.claim(request, file))
            check_exact(asked)
        except ValueError as error:  # no gr.Error, after which the next file could not be dropped
            self.app.say(in_words(error), "Not taken", refused=True)
            return [None, *unchanged]
        self.app.say(remark, "Settings taken")
        sizes = gr.update(**sizes_of(self.app, asked.model) | {"value": asked.sizes or ""})
        return [None, *self.controls.restore(asked), 1, asked.first, sizes, format_walk(asked.walk)]


def sizes_of(app: App, model: str) -> dict[str, Any]:
    """Returns the settings of the field of sizes for a model: none are given, and the model's own are shown."""
    own, units = describe_sizes(app.models.pipeline(model))
    return {"value": "", "placeholder": own or "this model has none", "info": units or None}


def check_exact(asked: Asked) -> None:
    """Raises ValueError for whole numbers that a browser would round, which would make another sample."""
    for name, value in (("seed", asked.seed), ("number of the sample", asked.first)):
        if value > LARGEST:
            raise ValueError(
                f"the {name} is {value}, and a browser keeps whole numbers up to {LARGEST} only: use scm-media generate"
            )

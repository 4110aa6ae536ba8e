"""The tab that makes samples as files, and takes settings from files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from scm_media.app.asking import Asked, describe_sizes, format_walk, parse_walk
from scm_media.app.context import App, session_of
from scm_media.app.controls import Controls
from scm_media.app.errors import in_words
from scm_media.app.making import make
from scm_media.app.media import empty
from scm_media.app.restore import restore_settings
from scm_media.app.showing import show_job

TITLE = "Generate"
MADE_AT_FIRST = 4
"""Number of samples that the page begins with."""
LARGEST = 2**53 - 1
"""The largest whole number up to which a browser keeps all of them."""


def build(app: App) -> None:
    """Adds the tab's components and handlers to the blocks around it."""
    most = app.settings.most
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            controls = Controls(app, live=False)
            num = gr.Slider(
                1, max(2, most), value=min(MADE_AT_FIRST, most), step=1, label="Number of samples", interactive=most > 1
            )
            with gr.Accordion("More settings", open=False):
                first = gr.Number(0, label="Number of the first sample", precision=0, minimum=0)
                sizes = gr.Textbox(label="Sizes", max_length=200, **sizes_of(app, app.models.names[0]))
                walk = gr.Textbox(label="Walk to another seed", placeholder="7 0.5 is half of the way to seed 7")
            with gr.Row():
                go = gr.Button("Generate", variant="primary", min_width=120, elem_id="scm-go")
                stop = gr.Button("Cancel", min_width=120, elem_id="scm-stop")
            dropped = gr.File(label="Settings from a file of scm-media", height=150, elem_id="scm-drop")
        with gr.Column(scale=3, min_width=300):
            status = gr.HTML(elem_id="scm-status", min_height=64)
            shown = gr.HTML(empty("Choose a model and press Generate."), elem_id="scm-made")
    settings = [num, first, sizes, walk]

    def on_generate(request: gr.Request, *values: Any, progress: Any = gr.Progress()) -> Iterator[Any]:  # noqa: B008
        *own, number, start, options, walked = values
        asked = controls.asked(own, num=number, first=start, sizes=options, walk=parse_walk(walked))
        folder = app.folder(request)
        yield from show_job(
            app,
            request,
            number,
            progress,
            lambda stopped, report: make(app.models, folder, asked, most, stopped, report),
        )

    def on_drop(file: str | None, request: gr.Request) -> list[Any]:
        unchanged = [gr.skip()] * (len(controls.components) + len(settings))
        if file is None:
            return [gr.skip(), *unchanged]
        try:
            asked, remark = restore_settings(app.models, app.claim(request, file))
            check_exact(asked)
        except ValueError as error:  # no gr.Error, after which the next file could not be dropped
            app.say(in_words(error), "Not taken", refused=True)
            return [None, *unchanged]
        app.say(remark, "Settings taken")
        taken = gr.update(**sizes_of(app, asked.model) | {"value": asked.sizes or ""})
        return [None, *controls.restore(asked), 1, asked.first, taken, format_walk(asked.walk)]

    def on_cancel(request: gr.Request) -> None:
        if not app.jobs.stop(session_of(request)):
            app.say("Nothing is running.", "Cancel")

    controls.follow()
    controls.model.input(
        app.guarded(lambda model: gr.update(**sizes_of(app, model))),
        controls.model,
        sizes,
        api_visibility="private",
        show_progress="hidden",
    )
    go.click(
        app.guarded(on_generate),
        [*controls.components, *settings],
        [status, shown],
        api_visibility="private",
        show_progress="full",
        show_progress_on=status,
        concurrency_id="make",
    )
    stop.click(app.guarded(on_cancel), queue=False, api_visibility="private", show_progress="hidden")
    dropped.upload(
        app.guarded(on_drop),
        dropped,
        [dropped, *controls.components, *settings],
        api_visibility="private",
        show_progress="hidden",
        show_progress_on=dropped,
    )


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

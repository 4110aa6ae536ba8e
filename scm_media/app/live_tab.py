"""The tab whose result follows each control at once, with the teacher's from the same seed beside it on request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from scm_media.app.asking import Asked
from scm_media.app.context import App, session_of
from scm_media.app.controls import Controls
from scm_media.app.errors import in_words
from scm_media.app.jobs import Cancelled
from scm_media.app.making import Made, make
from scm_media.app.media import delete_oldest, empty, facts, show

TITLE = "Live"
KEPT = 16
"""Results of a session that stay as files: a page may still load the last few."""
FRAMES = 9
"""Results of a walk that is played."""
UNASKED = "The teacher's sample from the same noise appears here on request."


def build(app: App) -> None:
    """Adds the tab's components and handlers to the blocks around it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            controls = Controls(app, live=True)
            other = gr.Slider(0, 999, value=1, step=1, label="Second seed")
            way = gr.Slider(0, 1, value=0, step=0.01, label="Way from seed to second seed")
            with gr.Row():
                again = gr.Button("Show", variant="primary", min_width=90, elem_id="scm-live-show")
                play = gr.Button("Play the walk", min_width=120, elem_id="scm-live-play")
            with gr.Row():
                teach = gr.Button("Ask the teacher", min_width=150, elem_id="scm-live-teach")
                stop = gr.Button("Stop", min_width=90, elem_id="scm-live-stop")
        with gr.Column(scale=3, min_width=300), gr.Row(equal_height=False):
            with gr.Column(min_width=240):
                gr.HTML('<h2 class="scm-heading">Student</h2>')
                status = gr.HTML(elem_id="scm-live-status", min_height=64)
                shown = gr.HTML(empty("Move a slider, type a prompt or press Show."), elem_id="scm-live")
            with gr.Column(min_width=240):
                gr.HTML('<h2 class="scm-heading">Teacher</h2>')
                taught = gr.HTML(elem_id="scm-live-teacher-status", min_height=64)
                teacher = gr.HTML(empty(UNASKED), elem_id="scm-live-teacher")
    inputs = [*controls.components, other, way]

    def asked_of(values: tuple[Any, ...], **more: Any) -> Asked:
        *own, second, fraction = values
        return controls.asked(own, walk=(second, fraction) if fraction else None, **more)

    def on_change(request: gr.Request, *values: Any) -> list[Any]:
        try:
            line, card = _make_one(app, request, asked_of(values))
        except ValueError as error:  # in the page's text: a message for each letter of a prompt would be too many
            return [empty(in_words(error)), gr.skip(), gr.skip(), gr.skip()]
        return [line, card, "", empty(UNASKED)]

    def on_walk(request: gr.Request, *values: Any) -> Iterator[list[Any]]:
        with app.jobs.running(session_of(request)) as stopped:
            for number in range(FRAMES):
                if stopped.is_set():
                    return
                fraction = round(number / (FRAMES - 1), 2)
                line, card = _make_one(app, request, asked_of((*values[:-1], fraction)))
                yield [fraction, line, card, "", empty(UNASKED)]

    def on_teach(request: gr.Request, *values: Any, progress: Any = gr.Progress()) -> Iterator[Any]:  # noqa: B008
        asked = asked_of(values, teacher=True)
        begun, made = time.perf_counter(), None
        with app.jobs.running(session_of(request)) as stopped:
            yield "", gr.skip()  # else the progress lies over the last line
            progress(0, desc="waiting for the model")
            try:
                for made in make(
                    app.models, _folder(app, request), asked, 1, stopped, lambda done: progress(done, desc="teacher")
                ):
                    yield _line(made, begun), show(made.results, app.url, large=True)
            except Cancelled:
                yield empty("Stopped."), gr.skip()

    def on_stop(request: gr.Request) -> None:
        if not app.jobs.stop(session_of(request)):
            app.say("Nothing is running.", "Stop")

    how: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "show_progress_on": status}
    in_order: dict[str, Any] = {"concurrency_id": "live", "concurrency_limit": 1}  # else an older result comes last
    outputs = [status, shown, taught, teacher]
    # A prompt by its change: Gradio tells of keys alone as input, and texts are pasted too.
    moved = [each.input for each in (*controls.components[2:], other, way)]
    changed = [controls.prompt.change, *moved, again.click]
    live = app.guarded(on_change)
    gr.on(changed, live, inputs, outputs, trigger_mode="always_last", **in_order, **how)
    controls.follow().then(live, inputs, outputs, **in_order, **how)
    play.click(app.guarded(on_walk), inputs, [way, *outputs], concurrency_id="walk", **how)
    teach.click(
        app.guarded(on_teach),
        inputs,
        [taught, teacher],
        concurrency_id="make",
        api_visibility="private",
        show_progress="full",
        show_progress_on=taught,
    )
    stop.click(app.guarded(on_stop), queue=False, **how)


def _make_one(app: App, request: gr.Request, asked: Asked) -> tuple[str, str]:
    """Returns HTML of the times and of one result."""
    begun = time.perf_counter()
    folder = _folder(app, request)
    *_, made = make(app.models, folder, asked, 1)
    delete_oldest(folder, KEPT)
    return _line(made, begun), show(made.results, app.url, large=True)


def _folder(app: App, request: gr.Request) -> Path:
    folder = app.folder(request) / "live"
    folder.mkdir(exist_ok=True)
    return folder


def _line(made: Made, begun: float) -> str:
    total = 1000 * (time.perf_counter() - begun)
    pairs = [
        ("network", f"{made.sampling:.0f} ms"),
        ("decoding", f"{made.decoding:.0f} ms"),
        ("with the file", f"{total:.0f} ms"),
        ("evaluations", str(made.evaluations)),
    ]
    return facts(pairs) + "".join(empty(each) for each in made.warnings)

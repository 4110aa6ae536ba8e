"""This tab shows a result that follows each control at once, and on request the teacher's from the same seed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from scm_media.app.asking import Asked
from scm_media.app.cancelling import click_time, connect_cancel, hidden_clock, timed
from scm_media.app.context import App, session_of
from scm_media.app.controls import Controls
from scm_media.app.errors import guarded, in_words
from scm_media.app.jobs import Cancelled, check
from scm_media.app.making import Made, make
from scm_media.app.media import delete_oldest, empty, facts, show
from scm_media.app.newest import Newest

TITLE = "Live"
KEPT = 16
"""So many results of a session stay as files: a page may still load the last few."""
FRAMES = 9
"""A walk that is played has so many results."""
UNASKED = "The teacher's sample from the same noise appears here on request."


def build(app: App) -> None:
    """Adds the tab's components and handlers to the blocks around it."""
    _Tab(app)


class _Tab:
    """This holds the components, by what they are for, and their handlers."""

    def __init__(self, app: App) -> None:
        self.app, self.clock, self.newest = app, hidden_clock(), Newest()
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                self._add_controls()
            with gr.Column(scale=3, min_width=300), gr.Row(equal_height=False):
                self._add_results()
        self._connect()

    def _add_controls(self) -> None:
        self.controls = Controls(self.app, live=True)
        self.other = gr.Slider(0, 999, value=1, step=1, label="Second seed")
        self.way = gr.Slider(0, 1, value=0, step=0.01, label="Way from seed to second seed")
        with gr.Row():
            self.again = gr.Button("Show", variant="primary", min_width=90, elem_id="scm-live-show")
            self.play = gr.Button("Play the walk", min_width=120, elem_id="scm-live-play")
        with gr.Row():
            self.teach = gr.Button("Ask the teacher", min_width=150, elem_id="scm-live-teach")
            self.stop = gr.Button("Stop", min_width=90, elem_id="scm-live-stop")
        self.note = gr.HTML(elem_id="scm-live-note")

    def _add_results(self) -> None:
        with gr.Column(min_width=240):
            gr.HTML('<h2 class="scm-heading">Student</h2>')
            self.status = gr.HTML(elem_id="scm-live-status", min_height=64)
            self.shown = gr.HTML(empty("Move a slider, type a prompt or press Show."), elem_id="scm-live")
        with gr.Column(min_width=240):
            gr.HTML('<h2 class="scm-heading">Teacher</h2>')
            self.taught = gr.HTML(elem_id="scm-live-teacher-status", min_height=64)
            self.teacher = gr.HTML(empty(UNASKED), elem_id="scm-live-teacher")

    def _connect(self) -> None:
        how: dict[str, Any] = {
            "api_visibility": "private",
            "show_progress": "hidden",
            "show_progress_on": self.status,
        }
        inputs = [*self.controls.components, self.other, self.way]
        outputs = [self.status, self.shown, self.taught, self.teacher]
        # A prompt by its change: Gradio tells of keys alone as input, and texts are pasted too.
        moved = [each.input for each in (*self.controls.components[2:], self.other, self.way)]
        changed = [self.controls.prompt.change, *moved, self.again.click]
        live = guarded(self.on_change)
        gr.on(changed, live, inputs, outputs, trigger_mode="always_last", concurrency_id="live", **how)
        self.controls.follow().then(live, inputs, outputs, concurrency_id="live", **how)
        clicked: dict[str, Any] = {"inputs": [self.clock, *inputs], "js": timed(1 + len(inputs))}
        self.play.click(guarded(self.on_walk), outputs=[self.way, *outputs], concurrency_id="walk", **clicked, **how)
        self.teach.click(
            guarded(self.on_teach),
            outputs=[self.taught, self.teacher],
            concurrency_id="make",
            api_visibility="private",
            show_progress="full",
            show_progress_on=self.taught,
            **clicked,
        )
        connect_cancel(self.app, self.stop, self.clock, self.note, [self.play, self.teach])

    def _asked(self, values: Sequence[Any], **more: Any) -> Asked:
        *own, second, fraction = values
        return self.controls.asked(own, walk=(second, fraction) if fraction else None, **more)

    def on_change(self, request: gr.Request, *values: Any) -> list[Any]:
        """Returns the updates for one result of the student, and takes the teacher's off the page.

        Nothing is made, and nothing changes, for values that newer ones have replaced while they waited.
        """
        with self.newest.turn(session_of(request)) as taken:
            if not taken:
                return [gr.skip()] * 4
            try:
                line, card = _make_one(self.app, request, self._asked(values))
            except ValueError as error:  # in the page's text: a message for each letter of a prompt would be too many
                return [empty(in_words(error)), gr.skip(), gr.skip(), gr.skip()]
            return [line, card, "", empty(UNASKED)]

    def on_walk(self, request: gr.Request, clicked: Any, *values: Any) -> Iterator[list[Any]]:
        """Yields the updates for each result on the way to the second seed."""
        with self.app.jobs.running(session_of(request), click_time(clicked)) as stopped:
            for number in range(FRAMES):
                if stopped.is_set():
                    return
                fraction = round(number / (FRAMES - 1), 2)
                line, card = _make_one(self.app, request, self._asked((*values[:-1], fraction)))
                yield [fraction, line, card, "", empty(UNASKED)]

    def on_teach(
        self,
        request: gr.Request,
        clicked: Any,
        *values: Any,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> Iterator[Any]:
        """Yields a line of facts and the teacher's result."""
        asked = self._asked(values, teacher=True)
        begun, folder = time.perf_counter(), _folder(self.app, request)
        with self.app.jobs.running(session_of(request), click_time(clicked)) as stopped:
            yield "", gr.skip()  # else the progress lies over the last line
            try:
                check(stopped)
                progress(0, desc="waiting for the model")
                for made in make(
                    self.app.models, folder, asked, 1, stopped, lambda done: progress(done, desc="teacher")
                ):
                    yield _line(made, begun), show(made.results, self.app.url, large=True)
            except Cancelled:
                yield empty("Stopped."), gr.skip()


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

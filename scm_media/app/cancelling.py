"""This module cancels what a page asked for, also while that still waits for its turn.

A job that waits in Gradio's queue is not known to the app yet. So each click carries the time at which the page was
clicked, and a job that was asked for before its session was last cancelled ends as soon as its turn comes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gradio as gr

from scm_media.app.context import App, session_of
from scm_media.app.errors import guarded
from scm_media.app.media import empty

NOTHING_RUNS = "Nothing of this page is running. What still waits in the queue ends when its turn comes."


def hidden_clock() -> gr.Number:
    """Returns a component that is not shown, whose place among the inputs of a click is taken by its time."""
    return gr.Number(None, visible=False)


def timed(num_inputs: int) -> str:
    """Returns JavaScript that puts the page's time in milliseconds in the place of the first of several inputs.

    num_inputs: their number, at least 2; Gradio hands over the values of the outputs after them.
    """
    return f"(...values) => [performance.now(), ...values.slice(1, {num_inputs})]"


def click_time(value: Any) -> float:
    """Returns the time of a click; infinity for a click that carries none, which no earlier cancel reaches."""
    return float(value) if isinstance(value, int | float) else math.inf


def connect_cancel(app: App, button: gr.Button, clock: gr.Number, note: gr.HTML, begins: Sequence[gr.Button]) -> None:
    """Lets a button cancel what its page asked for until then.

    note: says that nothing was running, until one of ``begins`` is pressed. It is no message of Gradio's, which are
    not shown by handlers that do not wait in the queue, and a cancel must not wait there.
    """

    def on_cancel(clicked: Any, request: gr.Request) -> str:
        return "" if app.jobs.stop(session_of(request), click_time(clicked)) else empty(NOTHING_RUNS)

    quiet: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
    button.click(guarded(on_cancel), clock, note, js="() => performance.now()", **quiet)
    for begin in begins:
        begin.click(lambda: "", None, note, **quiet)

"""Shows what a job makes while it makes it, and what is left of it after a stop or an error."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from scm_media.app.context import App, session_of
from scm_media.app.jobs import Cancelled, Report, check
from scm_media.app.making import Made
from scm_media.app.media import empty, facts, show

Begin = Callable[[threading.Event, Report], Iterator[Made]]
"""A function of this type begins a job; it is given what is set to stop it, and what is told how much is done."""


def show_job(
    app: App, request: gr.Request, num: Any, progress: Any, begin: Begin, clicked: float = math.inf
) -> Iterator[Any]:
    """Yields HTML of a line of facts and of the results so far; an error is raised again after the line is cleared.

    num: how many samples are asked for. progress: the page's. clicked: when, as ``Jobs.running`` has it.
    """
    begun, made = time.perf_counter(), None
    with app.jobs.running(session_of(request), clicked) as stopped:
        yield "", empty("The first result is on its way.")  # else the progress lies over the last line
        try:
            check(stopped)
            progress(0, desc="waiting for the model")
            for made in begin(stopped, lambda done: progress(done, desc="making")):
                yield line(made, begun), show(made.results, app.url)
        except Cancelled:
            done = len(made.results) if made else 0
            yield empty(f"Cancelled after {done} of {num} samples."), gr.skip() if done else empty()
        except Exception:
            yield "", gr.skip() if made else empty()
            raise


def line(made: Made, begun: float) -> str:
    """Returns HTML that says how much is made, how long it took, and what was said of texts."""
    pairs = [
        ("samples", f"{len(made.results)} of {made.num}"),
        ("evaluations a sample", str(made.evaluations)),
        ("network", f"{made.sampling:.0f} ms"),
        ("decoding", f"{made.decoding:.0f} ms"),
        ("in all", f"{time.perf_counter() - begun:.1f} s"),
    ]
    return facts(pairs) + "".join(empty(each) for each in made.warnings)

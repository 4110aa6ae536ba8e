"""This module reports the progress of running jobs by network evaluation, and stops them at the next one."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from scm_media.pipeline import Pipeline, SamplingRequest
from scm_media.pipeline.sampling import SamplingMethod

MOST_CANCELLED = 1024
"""The last cancels of so many sessions are remembered; the oldest is forgotten first."""

Report = Callable[[float], None]
"""A function of this type is told the fraction that is done."""


class Cancelled(ValueError):
    """Says that the user stopped a job."""


class Jobs:
    """These are the running jobs of each session, which another request of the session may stop.

    Times are those of the session's own page, in any unit.
    """

    def __init__(self) -> None:
        self._stops: dict[str, set[threading.Event]] = {}
        self._cancelled: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def running(self, session: str, clicked: float = math.inf) -> Iterator[threading.Event]:
        """Yields what is set when the session's jobs are to stop.

        clicked: when the job was asked for. It is set at once for a job that was cancelled while it waited.
        """
        stop = threading.Event()
        with self._lock:
            if clicked <= self._cancelled.get(session, -math.inf):
                stop.set()
            self._stops.setdefault(session, set()).add(stop)
        try:
            yield stop
        finally:
            with self._lock:
                self._stops[session].discard(stop)
                if not self._stops[session]:
                    del self._stops[session]

    def stop(self, session: str, clicked: float = math.inf) -> int:
        """Stops all jobs of a session at their next network evaluation, and returns how many there are.

        clicked: a job that was asked for until then, and has not begun, stops when it does. No such job is remembered
        where it is infinite.
        """
        with self._lock:
            if math.isfinite(clicked):
                self._cancelled.pop(session, None)
                self._cancelled[session] = clicked
                if len(self._cancelled) > MOST_CANCELLED:
                    del self._cancelled[next(iter(self._cancelled))]
            found = self._stops.get(session, set())
            for stop in found:
                stop.set()
            return len(found)

    def end(self, session: str) -> None:
        """Stops all jobs of a session that has ended."""
        self.stop(session)
        with self._lock:
            self._cancelled.pop(session, None)


def check(stop: threading.Event) -> None:
    """Raises ``Cancelled`` if a job is to stop."""
    if stop.is_set():
        raise Cancelled("stopped")


@contextmanager
def watched(
    pipeline: Pipeline, request: SamplingRequest, stop: threading.Event, report: Report | None = None
) -> Iterator[None]:
    """Watches the network of a request, whose lock the caller holds: each evaluation is reported and may stop the job.

    A guided sampler calls the network twice in a step, which the fraction allows for.
    """
    method = pipeline.method(request)
    network: nn.Module = pipeline.network("teacher" if request.teacher else "student")
    batches = -(-request.num // request.batch_size)
    total, calls = max(1, batches * calls_of_a_batch(method)), 0

    def count(*_: Any) -> None:
        nonlocal calls
        check(stop)
        if report is not None:
            report(min(calls / total, 0.99))
        calls += 1

    handle = network.register_forward_pre_hook(count)
    try:
        yield
    finally:
        handle.remove()


def calls_of_a_batch(method: SamplingMethod) -> int:
    """Returns about how often a batch's sampler calls its network: Heun's method does twice a step, but the last."""
    steps = method.num_steps
    return 2 * steps - 1 if method.teacher else steps

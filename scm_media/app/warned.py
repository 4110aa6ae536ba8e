"""Collects what a pipeline warns of, by thread: ``warnings.catch_warnings`` would mix the users up."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scm_media.pipeline.texts import TextWarning

_thread = threading.local()


@contextmanager
def text_warnings(into: list[str]) -> Iterator[None]:
    """Appends what is said of texts in this thread, once each; other warnings go where they always do."""
    _install()
    _thread.into = into
    try:
        yield
    finally:
        _thread.into = None


def _install() -> None:
    if isinstance(warnings.showwarning, _Show):
        return
    warnings.simplefilter("always", TextWarning)
    warnings.showwarning = _Show(warnings.showwarning)


class _Show:
    """Shows a warning, unless a thread collects it."""

    def __init__(self, otherwise: Any) -> None:
        self.otherwise = otherwise

    def __call__(self, message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        into = getattr(_thread, "into", None)
        if into is None or not issubclass(category, TextWarning):
            self.otherwise(message, category, *where, **more)
        elif str(message) not in into:
            into.append(str(message))

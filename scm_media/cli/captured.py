"""Takes the parsers of commands without running a command, for completion and for the page of the command line."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CAPTURING: ContextVar[bool] = ContextVar("capturing", default=False)


class CapturedParser(BaseException):
    """Carries the parser of a command, which is raised in place of parsing while parsers are captured."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def command_parser(name: str) -> argparse.ArgumentParser:
    """Returns the parser of a command, which is not run."""
    with _capture_parsers():
        try:
            importlib.import_module(f"scm_media.cli.{name}").run([])
        except CapturedParser as captured:
            return captured.parser
    raise ValueError(f"the command {name} parses nothing; it has to make its parser by scm_media.cli.arguments.parser")


def capturing() -> bool:
    """Returns whether parsers are captured, so that a command goes no other way than to its parser."""
    return _CAPTURING.get()


@contextmanager
def _capture_parsers() -> Iterator[None]:
    """Makes commands raise their parser as ``CapturedParser`` when they are about to parse."""
    token = _CAPTURING.set(True)
    try:
        yield
    finally:
        _CAPTURING.reset(token)

"""This module says errors in words: users see their own as they are; of others the log has the trace."""

from __future__ import annotations

import functools
import html
import inspect
import logging
import secrets
from collections.abc import Callable
from typing import Any

import gradio as gr

from scm_media.display import printable

LONGEST = 600
"""A message has at most this many characters; lists of hundreds of classes are cut."""

logger = logging.getLogger("scm_media.app")


def in_words(error: Exception) -> str:
    """Returns an error as one line of text; one that is not the user's goes to the log under a short number."""
    text = "; ".join(part.strip() for part in str(error).splitlines() if part.strip())
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror  # without the path: it is the server's
    elif not isinstance(error, ValueError) or not text:
        number = secrets.token_hex(3)
        logger.error("error %s", number, exc_info=error)
        text = f"something went wrong inside scm-media ({type(error).__name__}); the server's log has it as {number}"
    text = printable(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def guarded(function: Callable[..., Any], page: bool = True) -> Callable[..., Any]:
    """Returns a function, or generator function, whose errors are shown to the user as one line of text.

    page: shows them on the page, which takes messages for HTML; else they are text for programs.
    """

    def shown(error: Exception) -> gr.Error:
        text = in_words(error)
        return gr.Error(html.escape(text, quote=False) if page else text, duration=None, print_exception=False)

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generate(*arguments: Any, **named: Any) -> Any:
            try:
                yield from function(*arguments, **named)
            except gr.Error:
                raise
            except Exception as error:
                raise shown(error) from None

        return generate

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except gr.Error:
            raise
        except Exception as error:
            raise shown(error) from None

    return call

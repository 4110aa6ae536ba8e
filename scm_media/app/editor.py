"""Bounds what the canvas of the edit tab keeps of what pages send.

Gradio makes a list as long as the number of a layer says, and keeps every drawing until it is asked for. Its class is
changed, and not extended: Gradio writes a file beside each module that extends a component.
"""

from __future__ import annotations

import functools
from typing import Any

import gradio as gr

MOST_LAYERS = 8
"""A drawing has at most this many layers; the tab offers one."""
MOST_DRAWINGS = 64
"""At most this many drawings are kept until they are asked for; the oldest goes first."""


def bound_editors() -> None:
    """Makes all image editors of this process refuse higher layers and forget the oldest drawings."""
    accept = gr.ImageEditor.accept_blobs
    if hasattr(accept, "__wrapped__"):
        return

    @functools.wraps(accept)  # with the attribute by which Gradio knows what pages may call
    def accept_blobs(self: gr.ImageEditor, data: Any) -> None:
        index = data.data.get("index")
        if index not in (None, "", "null") and not 0 <= int(index) < MOST_LAYERS:
            raise ValueError(f"a drawing has {MOST_LAYERS} layers at most, got layer {index!s:.20}")
        accept(self, data)
        while len(self.blob_storage) > MOST_DRAWINGS:
            del self.blob_storage[next(iter(self.blob_storage))]

    gr.ImageEditor.accept_blobs = accept_blobs  # type: ignore[method-assign]

"""The canvas of the edit tab bounds what a page may send to it."""

from __future__ import annotations

import gradio as gr
import pytest
from gradio.components.image_editor import AcceptBlobs

from scm_media.app.editor import MOST_DRAWINGS, MOST_LAYERS, bound_editors


@pytest.fixture
def editor() -> gr.ImageEditor:
    bound_editors()
    bound_editors()  # a second page of the same process
    return gr.ImageEditor(render=False)


def part(name: str, index: int | None = None, kind: str = "layer") -> AcceptBlobs:
    fields = {"type": kind, "index": index, "id": name, "file": b""}
    return AcceptBlobs(data=fields, files=[("file", b"pixels")])


@pytest.mark.parametrize("index", [10**9, MOST_LAYERS, -1])
def test_layers_that_no_drawing_has_are_refused(editor: gr.ImageEditor, index: int) -> None:
    with pytest.raises(ValueError, match="a drawing has 8 layers at most, got layer"):
        editor.accept_blobs(part("a", index))
    assert not editor.blob_storage


def test_drawings_that_nobody_asks_for_are_forgotten(editor: gr.ImageEditor) -> None:
    for number in range(MOST_DRAWINGS + 5):
        editor.accept_blobs(part(str(number), 1))
        editor.accept_blobs(part(str(number), kind="background"))
    assert list(editor.blob_storage) == [str(number) for number in range(5, MOST_DRAWINGS + 5)]
    kept = editor.blob_storage[str(MOST_DRAWINGS)]
    assert kept.layers == [None, b"pixels"] and kept.background == b"pixels"


def test_pages_may_still_send_drawings(editor: gr.ImageEditor) -> None:
    assert editor.get_config()["server_fns"] == ["accept_blobs"]

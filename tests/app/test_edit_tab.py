"""The edit tab opens, plays and keeps files, here without a browser."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
import torch

from scm_media.app import edit_source, edit_tab
from scm_media.app.context import App
from scm_media.app.settings import ServerSettings
from tests.pipeline.tiny_media import write_tiny


@pytest.fixture
def app(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    model = str(write_tiny("audio", tmp_path / "audio"))
    made = App(ServerSettings(models=(model,), out=tmp_path / "out", device="cpu"))
    yield made
    made.close()


def test_another_file_of_the_same_name_is_played_under_another_address(app, monkeypatch):
    with gr.Blocks(analytics_enabled=False):
        tab = edit_tab._Tab(app)
    request = SimpleNamespace(session_hash="me")
    pipeline = app.models.pipeline("audio")
    played = []
    for number in range(1, 10):
        file = app.folders.root / str(number) / "take.wav"  # where uploads of one name and other contents go
        file.parent.mkdir()
        pipeline.modality.write(file, torch.full((1, 4000), number / 20), {})
        preview = tab.on_upload("audio", "continue", str(file), request)[4]["value"]
        played.append(Path(re.search(r'src="gradio_api/file=([^"]+)"', preview)[1]))
        levels = pipeline.modality.read(played[-1]).mean()
        assert levels == pytest.approx(number / 20, abs=1e-3)
    assert len(set(played)) == 9
    assert [file.exists() for file in played] == [False] * 3 + [True] * edit_source.KEPT

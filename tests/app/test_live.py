"""Users of the live tab do not wait for each other's models, nor for values that a page has replaced."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from scm_media.app.context import App
from scm_media.app.live_tab import _Tab
from scm_media.app.newest import Newest
from scm_media.app.settings import ServerSettings
from tests.app.client import Client
from tests.app.conftest import Served

SECONDS = 20


def wait_until(true: Callable[[], bool]) -> None:
    """Returns once something is true; fails after ``SECONDS``."""
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def test_the_newest_of_a_session_is_next_and_those_before_it_are_left_out() -> None:
    newest, ended = Newest(), threading.Event()
    began = threading.Event()

    def ask(session: str, last: threading.Event | None = None) -> bool:
        with newest.turn(session) as taken:
            began.set()
            if last is not None:
                last.wait(SECONDS)
            return taken

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(ask, "me", ended)
        assert began.wait(SECONDS)
        waiting = pool.submit(ask, "me")
        wait_until(lambda: newest._newest["me"] == 1)
        later = pool.submit(ask, "me")
        assert waiting.result(SECONDS) is False, "it ends at once, while the first one still runs"
        assert not first.done() and not later.done()
        assert pool.submit(ask, "you").result(SECONDS) is True
        ended.set()
        assert (first.result(SECONDS), later.result(SECONDS)) == (True, True)
    assert newest._newest == {} and newest._running == set()


def test_an_error_gives_the_turn_back() -> None:
    newest = Newest()
    with pytest.raises(ValueError, match="wrong"), newest.turn("me"):
        raise ValueError("wrong")
    with newest.turn("me") as taken:
        assert taken


def test_of_many_positions_of_a_slider_the_first_and_the_last_are_made(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    app = App(ServerSettings(models=("image/fashion",), out=tmp_path, device="cpu"))
    evaluations: list[int] = []
    app.models.pipeline("image/fashion").network("student").register_forward_hook(lambda *_: evaluations.append(1))
    with gr.Blocks(analytics_enabled=False):
        tab = _Tab(app)
    try:
        with ThreadPoolExecutor(20) as pool:
            with app.models.lock("image/fashion"):
                asked = []
                for seed in range(20):
                    values = ["image/fashion", "", "any", None, None, None, seed, "1", 1.0, 0, 0]
                    asked.append(pool.submit(tab.on_change, SimpleNamespace(session_hash="me"), *values))
                    wait_until(lambda seed=seed: tab.newest._newest.get("me") == seed)
                assert [each.result(SECONDS) for each in asked[1:-1]] == [[gr.skip()] * 4] * 18
            shown = [asked[place].result(SECONDS)[1] for place in (0, -1)]
    finally:
        app.close()
    assert "seed 0<" in shown[0] and "seed 19<" in shown[1]
    assert len(evaluations) == 2


def ask_live(served: Served, session: str, model: str, seed: int) -> str:
    """Returns what the queue tells a page that presses Show in the live tab."""
    client = Client(served.url)
    config = json.loads(client.fetch("/config")[1])
    names = {each["id"]: each["props"].get("elem_id") for each in config["components"]}
    live = next(
        each["id"]
        for each in config["dependencies"]
        if len(each["targets"]) > 2 and any(names.get(target) == "scm-live-show" for target, _ in each["targets"])
    )
    values: list[Any] = [model, "", "any", None, None, None, seed, "1", 1.0, 0, 0]
    body = json.dumps({"data": values, "fn_index": live, "session_hash": session}).encode()
    assert client.fetch("/gradio_api/queue/join", body)[0] == 200
    return client.fetch(f"/gradio_api/queue/data?session_hash={session}")[1].decode()


def test_one_users_busy_model_keeps_no_other_user_waiting(served: Served) -> None:
    with ThreadPoolExecutor(4) as pool:
        with served.app.models.lock("audio/notes"):
            slow = pool.submit(ask_live, served, "slow-one", "audio/notes", 1)
            quick = [pool.submit(ask_live, served, f"quick-{seed}", "image/fashion", seed) for seed in (501, 502)]
            told = [each.result(SECONDS) for each in quick]
            assert not slow.done()
        assert "seed 1<" in slow.result(SECONDS)
    for text, seed, other in zip(told, (501, 502), (502, 501), strict=True):
        assert f"seed {seed}<" in text and f"seed {other}<" not in text

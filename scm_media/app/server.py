"""Builds the page from its tabs, and serves it."""

from __future__ import annotations

import hmac
import inspect
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import gradio as gr
from fastapi.middleware import Middleware

from scm_media.app import edit_tab, generate_tab, live_tab, rest, runs_tab, steer_tab
from scm_media.app.context import App, session_of
from scm_media.app.guard import Guard
from scm_media.app.settings import ServerSettings, is_local
from scm_media.app.style import CSS, THEME

TABS: tuple[ModuleType, ...] = (generate_tab, live_tab, edit_tab, steer_tab, runs_tab)
"""These are the tabs, from left to right: modules with ``TITLE`` and ``build(app)``."""
HEARTBEAT = "2"
"""Gradio, which takes it from the environment, looks after so many seconds whether a page is still open."""
WORKERS = 4
"""So many handlers of one kind run at once; each model serves one at a time."""


def build(app: App) -> gr.Blocks:
    """Returns the page, with all tabs and the REST interface."""
    os.environ["GRADIO_TEMP_DIR"] = str(app.folders.root)  # where uploads go
    os.environ.setdefault("GRADIO_HEARTBEAT_INTERVAL", HEARTBEAT)
    with gr.Blocks(title="scm-media", analytics_enabled=False) as blocks:
        rest.build(app)  # before the tabs, so that no handler of theirs takes the name of an endpoint
        gr.HTML('<h1 class="scm-title">scm-media</h1>')
        for tab in TABS:
            with gr.Tab(tab.TITLE):
                tab.build(app)

        def on_open(request: gr.Request) -> None:
            app.folders.open(session_of(request))

        def on_close(request: gr.Request) -> None:
            app.jobs.end(session_of(request))
            app.folders.end(session_of(request))

        blocks.load(on_open, queue=False, api_visibility="private", show_progress="hidden")
        blocks.unload(on_close)
    blocks.queue(max_size=app.settings.queue, default_concurrency_limit=WORKERS, api_open=False)  # no way around it
    return blocks


def start(app: App, blocks: gr.Blocks) -> str:
    """Starts to serve in threads of this process and returns the page's address.

    Raises ValueError where the port is taken.
    """
    settings = app.settings
    auth: Any = None
    if settings.password is not None:
        password = settings.password.encode()

        def auth(name: str, given: str) -> bool:
            return hmac.compare_digest(given.encode(), password)

    local = settings.password is None
    guard = Middleware(Guard, root=app.folders.root, max_upload=settings.upload_bytes, local=local)
    try:
        _, url, _ = blocks.launch(
            server_name=settings.host,
            server_port=settings.port,
            auth=auth,
            auth_message="Any name, and the password that scm-media app was started with.",
            max_file_size=settings.upload_bytes,
            prevent_thread_lock=True,
            quiet=True,
            inbrowser=False,
            share=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            **_known({"run_history": False}),
            footer_links=["api"],
            show_error=False,
            theme=THEME,
            css=CSS,
            app_kwargs={"middleware": [guard]},
        )
    except OSError as error:
        raise ValueError(f"--port {settings.port}: {error}; choose another one, or leave --port out") from error
    return str(url)


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that this version of Gradio has: the first ones of version 6 keep no histories."""
    return {name: value for name, value in settings.items() if name in inspect.signature(gr.Blocks.launch).parameters}


class Server(NamedTuple):
    """This is a running server."""

    app: App
    blocks: gr.Blocks
    url: str


@contextmanager
def running(settings: ServerSettings) -> Iterator[Server]:
    """Serves within the context, and deletes all files at its end."""
    app = App(settings)
    try:
        blocks = build(app)
        try:
            yield Server(app, blocks, start(app, blocks))
        finally:
            blocks.close(verbose=False)
    finally:
        app.close()


def serve(settings: ServerSettings) -> None:
    """Serves until the process is interrupted or terminated, then deletes all files of all sessions."""
    ended = threading.Event()
    before = {each: signal.signal(each, lambda *_: ended.set()) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        with running(settings) as server:
            who = "this computer alone" if is_local(settings.host) else "everyone with the password"
            root = server.app.folders.root
            print(f"scm-media app: {server.url} for {who}; Ctrl-C ends it and deletes {root}", flush=True)
            ended.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

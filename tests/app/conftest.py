"""These fixtures serve the bundled models to all tests of a file, and open a page in a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import BrowserContext

from scm_media.app.server import Server, running
from scm_media.app.settings import ServerSettings
from tests.app.browser import context, playwright
from tests.app.client import Client
from tests.app.page import User

MOST_UPLOADED = 0.2


@dataclass
class Served:
    """This is a running server, with a user of it."""

    server: Server

    def __post_init__(self) -> None:
        self.app, self.client = self.server.app, Client(self.server.url.rstrip("/"))

    @property
    def url(self) -> str:
        """Returns the page's address."""
        return self.client.url


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with running(ServerSettings(max_upload=MOST_UPLOADED, queue=40, most=4, device="cpu")) as server:
        yield Served(server)


@pytest.fixture
def locked(monkeypatch) -> Iterator[Served]:
    """Yields a second server, which asks for a password; the first one is not used meanwhile."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", os.environ.get("GRADIO_TEMP_DIR", ""))  # set back afterwards
    settings = ServerSettings(models=("image/fashion",), password="correct horse", device="cpu")
    with running(settings) as server:
        yield Served(server)


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    """Yields a browser with an empty folder of its own."""
    with playwright() as started, context(started) as made:
        yield made


@pytest.fixture(scope="module")
def user(served: Served, browser: BrowserContext) -> Iterator[User]:
    """Yields a user whose page is open."""
    page = browser.new_page()
    user = User(page, served.url)
    page.on("request", lambda request: user.requests.append(request.url))
    page.on("dialog", lambda dialog: (user.dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(served.url)
    page.locator("#scm-go").wait_for()
    yield user
    page.close()

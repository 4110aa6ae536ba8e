"""Starts Debian's chromium for tests, and says how to get it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, Playwright, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def playwright() -> Iterator[Playwright]:
    """Yields Playwright; raises RuntimeError, which says what to install, where there is no browser."""
    if not CHROMIUM.exists():
        raise RuntimeError(f"{CHROMIUM} is missing, which these tests drive: apt-get install -y chromium")
    with sync_playwright() as started:
        yield started


@contextmanager
def context(started: Playwright, width: int = 1280, height: int = 900) -> Iterator[BrowserContext]:
    """Yields a browser with an empty folder of its own, as if for one user."""
    folder = tempfile.mkdtemp(prefix="chromium-")
    made = started.chromium.launch_persistent_context(
        folder,
        executable_path=CHROMIUM,
        headless=True,
        args=FLAGS,
        viewport={"width": width, "height": height},
        accept_downloads=True,
    )
    made.set_default_timeout(20_000)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)


def open_page(of: BrowserContext, url: str) -> Page:
    """Returns a page that has loaded the app."""
    page = of.new_page()
    page.goto(url)
    page.locator("#scm-go").wait_for()
    return page

"""Uses the page as people do: chooses, clicks, drops and saves."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Page, expect

expect.set_options(timeout=20_000)


@dataclass
class User:
    """This is a page, with all that it asked for or complained of."""

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


def choose(page: Page, label: str, option: str) -> None:
    """Chooses an option of the visible list with this label."""
    field = page.get_by_label(label, exact=True).locator("visible=true")
    if field.input_value() == option:
        return
    field.click()
    page.get_by_role("option", name=option, exact=True).locator("visible=true").click()


def tab(page: Page, name: str) -> None:
    """Opens a tab."""
    page.get_by_role("tab", name=name, exact=True).click()


def tabs(page: Page) -> list[str]:
    """Returns the titles of the tabs that are visible."""
    return [each.inner_text() for each in page.get_by_role("tab").all() if each.is_visible()]


def generate(page: Page, seed: int, num: int = 1, steps: str = "1") -> None:
    """Presses Generate, and returns when the results of this seed are there."""
    page.get_by_label("Seed", exact=True).locator("visible=true").fill(str(seed))
    page.get_by_role("spinbutton", name="number input for Number of samples").fill(str(num))
    page.get_by_role("radio", name=steps, exact=True).locator("visible=true").check()
    page.locator("#scm-go").click()
    expect(page.locator("#scm-made figcaption").filter(has_text=f"seed {seed}")).to_have_count(num)


def save(page: Page, place: Path, which: str = "#scm-made") -> Path:
    """Returns the file that the first link saves."""
    with page.expect_download() as started:
        page.locator(f"{which} a[download]").first.click()
    file = place / started.value.suggested_filename
    started.value.save_as(file)
    return file


def drop(page: Page, selector: str, name: str, content: bytes, kind: str = "image/png") -> None:
    """Drops a file with the mouse's own events."""
    transfer = page.evaluate_handle(
        """([name, content, kind]) => {
            const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, {type: kind}));
            return transfer;
        }""",
        [name, base64.b64encode(content).decode(), kind],
    )
    target = page.locator(f"{selector} .upload-container")
    for event in ("dragenter", "dragover", "drop"):
        target.dispatch_event(event, {"dataTransfer": transfer})


def forget(page: Page) -> None:
    """Closes all messages."""
    for close in page.locator(".toast-close").all():
        close.click()
    expect(page.locator(".toast-body")).to_have_count(0)

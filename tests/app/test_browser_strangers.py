"""The page shows what strangers send as text in a real browser, or refuses it in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.app.conftest import MOST_UPLOADED
from tests.app.page import User, choose, drop, forget, tab
from tests.app.test_restore import write_png

SCRIPT = "<img src=x onerror=\"alert('taken over')\"><script>alert('taken over')</script>"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "drawing.svg",
            b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
            "is of a kind that the models here do not",
        ),
        ("fake.png", b"<script>alert(1)</script>", "fake.png cannot be read as a PNG"),
        ("page.html", b"<script>alert(1)</script>", "is of a kind that the models here do not"),
        ("large.png", bytes(int(MOST_UPLOADED * 1e6) + 10_000), "exceed the maximum"),
    ],
)
def test_hostile_uploads_are_refused_in_words(user: User, name: str, content: bytes, message: str) -> None:
    page = user.page
    tab(page, "Generate")
    drop(page, "#scm-drop", name, content)
    expect(page.locator(".toast-body").filter(has_text=message).first).to_be_visible()
    forget(page)
    assert user.dialogs == []


def test_script_in_settings_and_fields_is_shown_as_text(user: User, tmp_path: Path) -> None:
    page = user.page
    tab(page, "Generate")
    record = {"model": "image/fashion", "seed": 1, "index": 0, "label": SCRIPT}
    drop(page, "#scm-drop", "x.png", write_png(tmp_path, record).read_bytes())
    expect(page.locator(".toast-body").filter(has_text="<img src=x onerror").first).to_be_visible()
    forget(page)
    record = {"model": SCRIPT, "seed": 1, "index": 0, "label": None}
    drop(page, "#scm-drop", "y.png", write_png(tmp_path, record).read_bytes())
    expect(page.locator(".toast-body").filter(has_text="<script>alert").first).to_be_visible()
    forget(page)
    choose(page, "Model", "image/fashion")
    page.get_by_label("class", exact=True).locator("visible=true").fill(SCRIPT)
    page.keyboard.press("Enter")
    page.locator("#scm-go").click()
    expect(page.locator(".toast-body").filter(has_text="knows no label").first).to_contain_text("<img src=x onerror")
    forget(page)
    choose(page, "class", "any")
    assert user.dialogs == [] and page.locator("img[src='x']").count() == 0

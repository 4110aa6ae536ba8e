"""The page as users see it, in a real browser: with mouse, keyboard, a phone's width, and files of strangers."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from modalities.image.writing import read_metadata
from tests.app.browser import context, open_page, playwright
from tests.app.conftest import MOST_UPLOADED, Served
from tests.app.test_restore import write_png

expect.set_options(timeout=20_000)


@dataclass
class User:
    """A page, and all that it asked for or complained of."""

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    with playwright() as started, context(started) as made:
        yield made


@pytest.fixture(scope="module")
def user(served: Served, browser: BrowserContext) -> Iterator[User]:
    page = browser.new_page()
    user = User(page, served.url)
    page.on("request", lambda request: user.requests.append(request.url))
    page.on("dialog", lambda dialog: (user.dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(served.url)
    page.locator("#scm-go").wait_for()
    yield user
    page.close()


def choose(page: Page, label: str, option: str) -> None:
    """Chooses an option of the visible list with this label."""
    field = page.get_by_label(label, exact=True).locator("visible=true")
    if field.input_value() == option:
        return
    field.click()
    page.get_by_role("option", name=option, exact=True).locator("visible=true").click()


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def number(page: Page, label: str, value: int) -> None:
    page.get_by_label(label, exact=True).locator("visible=true").first.fill(str(value))


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


@pytest.mark.parametrize(
    ("model", "label", "medium", "ready"),
    [
        ("image/fashion", ("class", "Bag"), "img", "e => e.complete && e.naturalWidth == 32"),
        ("image/emoji-text", None, "img", "e => e.complete && e.naturalWidth == 64"),
        ("audio/notes", ("family", "guitar"), "audio", "e => e.readyState >= 1 && e.duration > 1"),
        (
            "video/scenes",
            ("scenario", "basic"),
            "video",
            "e => e.readyState >= 2 && e.videoWidth == 64 && e.duration > 1.5",
        ),
    ],
)
def test_each_modality_is_made_shown_and_saved(
    served: Served, user: User, tmp_path: Path, model, label, medium, ready
) -> None:
    page = user.page
    choose(page, "Model", model)
    if label:
        choose(page, *label)
    else:
        page.get_by_label("Prompt").locator("visible=true").fill("blue heart")
    seed = 300 + len(model)  # another one for each model, whose results lie in the same place
    generate(page, seed)
    element = page.locator(f"#scm-made {medium}").last
    element.scroll_into_view_if_needed()
    page.wait_for_function(f"e => ({ready})(e)", arg=element.element_handle())
    if medium == "audio":
        view = page.locator("#scm-made img.scm-mel")
        page.wait_for_function("e => e.complete && e.naturalWidth > 100", arg=view.element_handle())
    file = save(page, tmp_path)
    record = served.app.models.pipeline(model).modality.read_metadata(file)
    assert (record["model"], record["seed"], record["steps"]) == (model, seed, 1)
    assert record.get("prompt") == "blue heart" if label is None else label[1] in record["label"]
    assert "1 of 1" in page.locator("#scm-status").inner_text()


def test_a_live_slider_shows_a_result_at_once_and_the_teacher_beside_it(user: User) -> None:
    page = user.page
    tab(page, "Live")
    seed = page.get_by_role("slider", name="range slider for Seed").locator("visible=true")
    seed.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#scm-live figcaption")).to_contain_text("seed 1")
    begun = time.perf_counter()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#scm-live figcaption")).to_contain_text("seed 2")
    assert time.perf_counter() - begun < 5
    assert "ms" in page.locator("#scm-live-status").inner_text()
    way = page.get_by_role("slider", name="range slider for Way from seed to second seed")
    way.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#scm-live figcaption")).to_contain_text("seed 2, 3% of the way to seed 1")
    page.locator("#scm-live-teach").click()
    expect(page.locator("#scm-live-teacher figcaption")).to_contain_text("seed 2, 3% of the way to seed 1")
    label = page.locator("#scm-live figcaption b").inner_text()
    assert page.locator("#scm-live-teacher figcaption b").inner_text() == label
    assert "126" in page.locator("#scm-live-teacher-status").inner_text()


def test_a_prompt_is_live(user: User) -> None:
    page = user.page
    tab(page, "Live")
    choose(page, "Model", "image/emoji-text")
    prompt = page.get_by_label("Prompt").locator("visible=true")
    prompt.fill("blue heart")  # as if pasted, without a key
    expect(page.locator("#scm-live figcaption")).to_contain_text("blue heart")
    choose(page, "Model", "image/fashion")
    expect(page.locator("#scm-live figcaption")).not_to_contain_text("blue heart")
    assert page.locator(".toast-body").count() == 0  # no message for each letter


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


def test_a_dropped_file_brings_its_settings_back(served: Served, user: User, tmp_path: Path) -> None:
    page = user.page
    tab(page, "Generate")
    choose(page, "Model", "video/scenes")
    record = {"model": "image/fashion", "seed": 77, "index": 2, "label": "Sandal", "steps": 4, "sampler": "consistency"}
    drop(page, "#scm-drop", "made.png", write_png(tmp_path, record).read_bytes())
    expect(page.get_by_label("Seed", exact=True).locator("visible=true")).to_have_value("77")
    expect(page.get_by_label("Model", exact=True).locator("visible=true")).to_have_value("image/fashion")
    expect(page.get_by_label("class", exact=True).locator("visible=true")).to_have_value("Sandal")
    expect(page.get_by_role("radio", name="4", exact=True).locator("visible=true")).to_be_checked()
    page.locator("#scm-go").click()
    expect(page.locator("#scm-made figcaption")).to_contain_text("Sandalseed 77, sample 2")
    file = save(page, tmp_path)
    assert {key: read_metadata(file)[key] for key in record} == record
    forget(page)


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


def test_a_teacher_can_be_cancelled(user: User) -> None:
    page = user.page
    tab(page, "Generate")
    choose(page, "Model", "video/scenes")
    page.get_by_role("spinbutton", name="number input for Number of samples").fill("4")
    page.get_by_role("radio", name="teacher", exact=True).locator("visible=true").check()
    page.locator("#scm-go").click()
    expect(page.locator("#scm-status")).to_contain_text("%")
    page.locator("#scm-stop").click()
    expect(page.locator("#scm-status")).to_contain_text("Cancelled after 0 of 4 samples")
    choose(page, "Model", "image/fashion")


def test_the_keyboard_is_enough(user: User) -> None:
    page = user.page
    tab(page, "Generate")
    page.get_by_role("tab", name="Generate", exact=True).focus()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        here = page.evaluate(
            "() => [document.activeElement.id, document.activeElement.getAttribute('aria-label') || '']"
        )
        reached.append(here)
        if here[0] == "scm-go":
            break
    else:
        raise AssertionError(f"the button is never reached: {reached}")
    assert any("Model" in name for _, name in reached) or len(reached) > 4
    before = page.locator("#scm-status").inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("#scm-made figure").first).to_be_visible()
    page.wait_for_function("before => document.querySelector('#scm-status').innerText != before", arg=before)


NAMELESS = """() => {
    const named = e => (e.getAttribute('aria-label') || '').trim() || e.innerText?.trim() || e.title
        || (e.labels && [...e.labels].some(l => l.innerText.trim()))
        || (e.getAttribute('aria-labelledby') || '').split(' ')
            .some(id => document.getElementById(id)?.innerText.trim());
    const seen = e => e.offsetParent !== null && getComputedStyle(e).visibility != 'hidden';
    const all = [...document.querySelectorAll('input, textarea, select, button, audio, video, a[href]')];
    const silent = [...document.querySelectorAll('img')].filter(e => seen(e) && e.getAttribute('alt') === null);
    return [...all.filter(e => seen(e) && !named(e)), ...silent].map(e => e.outerHTML.slice(0, 300));
}"""


TOO_WIDE = """() => [...document.querySelectorAll('button, input, figure, img')]
    .filter(e => e.offsetParent && e.getBoundingClientRect().right > 391).map(e => e.outerHTML.slice(0, 200))"""


def tabs(page: Page) -> list[str]:
    return [each.inner_text() for each in page.get_by_role("tab").all() if each.is_visible()]


def test_everything_has_a_name_for_screen_readers(user: User) -> None:
    for name in tabs(user.page):
        tab(user.page, name)
        assert user.page.evaluate(NAMELESS) == [], name


def test_a_phone_needs_no_sideways_scrolling(user: User) -> None:
    page = user.page
    page.set_viewport_size({"width": 390, "height": 844})
    try:
        for name in ("Generate", "Live"):
            if name not in tabs(page):
                page.locator("button.overflow-menu, .overflow-menu button").first.click()
            tab(page, name)
            page.wait_for_timeout(100)
            assert page.evaluate("() => document.documentElement.scrollWidth") <= 390, name
            assert page.evaluate(TOO_WIDE) == [], name
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})


def test_two_users_at_once_and_a_closed_page(
    served: Served, user: User, browser: BrowserContext, tmp_path: Path
) -> None:
    folders = set(served.app.folders._of.values())
    pages = [user.page, open_page(browser, served.url)]
    tab(user.page, "Generate")
    for seed, page in enumerate(pages, start=501):
        page.get_by_label("Seed", exact=True).locator("visible=true").fill(str(seed))
        page.get_by_role("spinbutton", name="number input for Number of samples").fill("2")
    for page in pages:
        page.locator("#scm-go").click()
    for seed, page in enumerate(pages, start=501):
        expect(page.locator("#scm-made figcaption").filter(has_text=f"seed {seed}")).to_have_count(2)
        assert read_metadata(save(page, tmp_path))["seed"] == seed
    (made,) = set(served.app.folders._of.values()) - folders
    assert made.is_dir()
    pages[1].close()
    deadline = time.monotonic() + 20
    while made.exists():
        assert time.monotonic() < deadline, "the folder of a closed page is still there"
        time.sleep(0.1)
    assert all(folder.is_dir() for folder in folders)


def test_a_full_queue_is_said(served: Served, user: User, monkeypatch) -> None:
    monkeypatch.setattr(served.server.blocks._queue, "max_size", 0)
    user.page.locator("#scm-go").click()
    expect(user.page.locator(".toast-body").first).to_contain_text("busy. Please try again")
    forget(user.page)


def test_without_a_browser_the_tests_say_how_to_get_it(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.app.browser.CHROMIUM", tmp_path / "chromium")
    with pytest.raises(RuntimeError, match="apt-get install -y chromium"), playwright():
        pass


def test_nothing_was_asked_of_other_servers(user: User) -> None:
    others = [url for url in user.requests if not url.startswith((user.url, "data:", "blob:"))]
    assert len(user.requests) > 20 and others == []

"""The page makes samples in a real browser as users see it: shown, saved, live, cancelled, for two users at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from modalities.image.writing import read_metadata
from scm_media.app.cancelling import NOTHING_RUNS
from scm_media.app.server import WORKERS
from tests.app.browser import open_page, playwright
from tests.app.client import Client
from tests.app.conftest import Served
from tests.app.page import User, choose, drop, forget, generate, save, tab
from tests.app.test_restore import write_png


def wait_until(true: Callable[[], bool]) -> None:
    """Returns once something is true; fails after twenty seconds."""
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


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


def test_a_teacher_can_be_cancelled(served: Served, user: User) -> None:
    page, evaluations = user.page, []
    tab(page, "Generate")
    choose(page, "Model", "video/scenes")
    choose(page, "scenario", "basic")  # the page has drawn the steps anew by then
    page.get_by_role("spinbutton", name="number input for Number of samples").fill("4")
    page.get_by_role("radio", name="teacher", exact=True).locator("visible=true").check()
    network = served.app.models.pipeline("video/scenes").network("teacher")

    def count_slowly(*_: object) -> None:
        evaluations.append(1)
        time.sleep(0.3)  # so that it is cancelled in time where the browser is slow

    counting = network.register_forward_hook(count_slowly)
    try:
        page.locator("#scm-go").click()
        wait_until(lambda: len(evaluations) > 0)  # the page may still show how far the last request came
        expect(page.locator("#scm-status")).to_contain_text("%")
        page.locator("#scm-stop").click()
        expect(page.locator("#scm-status")).to_contain_text("Cancelled after 0 of 4 samples")
        assert 1 <= len(evaluations) < 63, "it ends within the first sample"
        assert page.locator("#scm-made figure").count() == 0
    finally:  # the tests after it go on from here
        counting.remove()
        choose(page, "Model", "image/fashion")
        expect(page.get_by_label("class", exact=True).locator("visible=true")).to_be_visible()


@pytest.mark.parametrize(
    ("title", "go", "stop", "note", "status", "said"),
    [
        ("Generate", "#scm-go", "#scm-stop", "#scm-note", "#scm-status", "Cancelled after 0 of 4 samples"),
        ("Live", "#scm-live-teach", "#scm-live-stop", "#scm-live-note", "#scm-live-teacher-status", "Stopped."),
    ],
)
def test_what_waits_in_the_queue_can_be_cancelled(
    served: Served, user: User, title, go, stop, note, status, said
) -> None:
    page, evaluations, queue = user.page, [], served.server.blocks._queue
    tab(page, title)
    if title == "Generate":
        page.get_by_role("spinbutton", name="number input for Number of samples").fill("4")
    pipeline = served.app.models.pipeline("image/fashion")
    networks = [pipeline.network(name) for name in ("student", "teacher")]
    counting = [each.register_forward_hook(lambda *_: evaluations.append(1)) for each in networks]
    with ThreadPoolExecutor(WORKERS) as pool:
        with served.app.models.lock("audio/notes"):  # so that the others keep all places
            others = [pool.submit(Client(served.url).generate, model="audio/notes", steps="1") for _ in range(WORKERS)]
            places = queue.event_queue_per_concurrency_id
            wait_until(lambda: "make" in places and places["make"].current_concurrency == WORKERS)
            page.locator(go).click()
            wait_until(lambda: len(queue) == 1)
            page.locator(stop).click()
            expect(page.locator(note)).to_contain_text(NOTHING_RUNS)
            assert len(queue) == 1, "it waits still"
        assert [len(each.result()) for each in others] == [1] * WORKERS
    expect(page.locator(status)).to_contain_text(said)
    assert evaluations == []
    page.locator(go).click()  # what is asked for afterwards is made
    expect(page.locator(note)).not_to_contain_text(NOTHING_RUNS)
    wait_until(lambda: len(evaluations) > 0)
    expect(page.locator(status)).to_contain_text("evaluations")
    for each in counting:
        each.remove()


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
    page = user.page
    tab(page, "Generate")
    before = len(list(served.app.folders.root.rglob("*.png")))
    monkeypatch.setattr(served.server.blocks._queue, "max_size", 0)
    page.locator("#scm-go").click()
    expect(page.locator(".toast-body").first).to_contain_text("busy. Please try again")
    forget(page)
    assert len(list(served.app.folders.root.rglob("*.png"))) == before
    monkeypatch.undo()
    generate(page, seed=777)
    assert len(list(served.app.folders.root.rglob("*.png"))) == before + 1, "it goes on once there is room"


def test_without_a_browser_the_tests_say_how_to_get_it(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.app.browser.CHROMIUM", tmp_path / "chromium")
    with pytest.raises(RuntimeError, match="apt-get install -y chromium"), playwright():
        pass


def test_nothing_was_asked_of_other_servers(user: User) -> None:
    others = [url for url in user.requests if not url.startswith((user.url, "data:", "blob:"))]
    assert len(user.requests) > 20 and others == []

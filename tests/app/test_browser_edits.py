"""In a real browser, what is drawn on, chosen or kept is edited rightly, keys steer, and runs are followed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect

from scm_media.app import runs_tab
from scm_media.app.server import Server, running
from scm_media.app.settings import ServerSettings
from tests.app.browser import context, playwright
from tests.app.run_folders import finish, write_figures, write_run, write_sheet
from tests.app.small_models import write_steered
from tests.pipeline.tiny_media import write_tiny

WAIT = 60_000
"""Tests wait so many milliseconds, since they share their core with others."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Returns a run whose student is at step 10 of 40, while a line is being written."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "image" / "main", {"teacher": 20, "student": 40})
    write_figures(folder / "teacher", [{"step": 20, "loss": 0.5}])
    finish(folder / "teacher", 20)
    write_figures(folder / "student", [{"step": n, "loss": 1 / n} for n in range(1, 11)], '{"step": 11, "lo')
    write_sheet(folder / "student", 5)
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory, run) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    models = [str(write_tiny(kind, folder / kind)) for kind in ("image", "audio", "video")]
    models.append(str(write_steered(folder / "clips")))
    settings = ServerSettings(models=tuple(models), most=2, device="cpu", runs=run.parent.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs_tab, "SECONDS", 0.5)
        with running(settings) as server:
            yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    with playwright() as started, context(started, 1200, 1000) as made:
        made.set_default_timeout(WAIT)
        yield made


@pytest.fixture
def page(served, browser) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(served.url)
    yield page
    page.close()


def open_tab(page: Page, title: str) -> None:
    page.get_by_role("tab", name=title).click()


def choose(page: Page, model: str) -> None:
    """Chooses a model in the tab that is shown."""
    page.get_by_label("Model", exact=True).locator("visible=true").click()
    page.get_by_role("option", name=model, exact=True).click()


def upload(page: Page, file: Path, words: str) -> None:
    """Uploads a file to be edited, and waits for what is said of it."""
    page.locator("#scm-edit-file input[type=file]").set_input_files(file)
    expect(page.locator("#scm-edit-words")).to_contain_text(words, timeout=WAIT)


def drag(page: Page, box: Any, first: tuple[float, float], last: tuple[float, float]) -> None:
    """Drags the mouse between two places of a box, each in parts of its width and height."""
    (x, y), (right, low) = ((box["x"] + a * box["width"], box["y"] + b * box["height"]) for a, b in (first, last))
    page.mouse.move(x, y)
    page.mouse.down()
    for part in (0.25, 0.5, 0.75, 1.0):
        page.mouse.move(x + part * (right - x), y + part * (low - y))
    page.mouse.up()


def download(page: Page, place: str, folder: Path) -> Path:
    """Saves the file of the first result in a part of the page."""
    with page.expect_download() as found:
        page.locator(f"{place} a[download]").first.click()
    file = folder / found.value.suggested_filename
    found.value.save_as(file)
    return file


def test_what_is_not_drawn_on_stays(page, served, tmp_path):
    picture = tmp_path / "square.png"
    levels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(levels).save(picture)
    page.set_viewport_size({"width": 390, "height": 700})  # a phone's canvas takes less time to draw
    open_tab(page, "Edit")
    upload(page, picture, "the model gets 16×16 pixels, in colour")
    canvas = page.locator("#scm-edit-editor canvas").first
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(700)  # the picture is scaled to the canvas
    drag(page, canvas.bounding_box(), (0.45, 0.5), (0.55, 0.5))
    page.wait_for_timeout(300)
    page.locator("#scm-edit-go").click()
    expect(page.locator("#scm-edit-status")).to_contain_text("samples 2 of 2", timeout=WAIT)
    file = download(page, "#scm-edited", tmp_path)
    changed = (np.asarray(Image.open(file)) != levels).any(-1)
    rows, columns = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
    assert 2 <= changed.sum() <= 40
    assert rows.min() >= 5 and rows.max() <= 10, "the brush went through the middle"
    assert columns.min() >= 4 and columns.max() <= 11
    told = served.app.models.pipeline("image").modality.read_metadata(file)
    assert (told["task"], told["input"], told["seed"]) == ("inpaint", "square.png", 0)


def test_a_dragged_stretch_of_a_sound_is_made_anew_alone(page, served, tmp_path):
    modality = served.app.models.pipeline("audio").modality
    sound = tmp_path / "tone.wav"
    modality.write(sound, 0.5 * torch.sin(torch.arange(4000) * 0.2)[None], {})
    open_tab(page, "Edit")
    choose(page, "audio")
    expect(page.get_by_text("audio/tiny cannot set a picture in motion")).to_be_visible(timeout=WAIT)
    upload(page, sound, "0.5 seconds")
    line = page.locator("#scm-edit-timeline .timeline")
    line.scroll_into_view_if_needed()
    drag(page, line.bounding_box(), (0.25, 0.5), (0.5, 0.5))
    start, end = (page.locator(f"#scm-edit-{name} input") for name in ("start", "end"))
    expect(end).to_have_value("0.25", timeout=WAIT)
    expect(start).to_have_value("0.125")
    page.locator("#scm-edit-go").click()
    expect(page.locator("#scm-edit-status")).to_contain_text("samples 2 of 2", timeout=WAIT)
    made, source = modality.read(download(page, "#scm-edited", tmp_path)), modality.read(sound)
    fade = 80
    assert torch.equal(made[:, : 1000 - fade], source[:, : 1000 - fade])
    assert torch.equal(made[:, 2000 + fade :], source[:, 2000 + fade :])
    assert (made - source)[:, 1000:2000].abs().mean() > 0.01


def test_a_continued_clip_begins_with_what_is_kept(page, served, tmp_path):
    modality = served.app.models.pipeline("video").modality
    text = tmp_path / "text.mp4"
    text.write_text("no clip")
    clip, frames = tmp_path / "clip.mp4", torch.linspace(-0.9, 0.9, 7)[None, :, None, None].expand(3, 7, 16, 24)
    modality.write(clip, frames, {})
    open_tab(page, "Edit")
    choose(page, "video")
    expect(page.locator("#scm-edit-keep")).to_be_visible(timeout=WAIT)
    page.locator("#scm-edit-file input[type=file]").set_input_files(text)
    expect(page.get_by_text("text.mp4 cannot be decoded as a video")).to_be_visible(timeout=WAIT)
    upload(page, clip, "7 frames")
    page.locator("#scm-edit-keep input").fill("2")
    page.locator("#scm-edit-go").click()
    expect(page.locator("#scm-edit-status")).to_contain_text("samples 2 of 2", timeout=WAIT)
    file = download(page, "#scm-edited", tmp_path)
    made = modality.read(file)
    assert made.shape[1] == 5
    assert (made[:, :2] - frames[:, -2:]).abs().mean() < 0.05, "but for the compression"
    assert (made[:, 2:] - frames[:, -1:]).abs().mean() > 0.2
    told = modality.read_metadata(file)
    assert (told["task"], told["keep"], told["input"]) == ("continue", 2, "clip.mp4")


def test_keys_and_buttons_steer(page, served, tmp_path):
    open_tab(page, "Steer")
    page.locator("#scm-steer-begin").click()
    line = page.locator("#scm-steer-line")
    expect(line).to_contain_text("frames 5", timeout=WAIT)
    page.keyboard.press("ArrowLeft")
    expect(line).to_contain_text("frames 9", timeout=WAIT)
    expect(line).to_contain_text("last left")
    page.keyboard.down("w")
    page.keyboard.down("d")
    expect(line).to_contain_text("frames 13", timeout=WAIT)
    page.keyboard.up("w")
    page.keyboard.up("d")
    page.locator("#scm-steer-pad [data-move=fire]").click()
    expect(line).to_contain_text("frames 17", timeout=WAIT)
    page.locator("#scm-steer-save").click()
    file = download(page, "#scm-steer-saved", tmp_path)
    modality = served.app.models.pipeline("clips").modality
    assert modality.read(file).shape[1] == 17
    assert modality.read_metadata(file)["actions"] == "none*5,left*4,ahead+right*4,fire*4"


def test_a_run_is_followed(page, run):
    open_tab(page, "Runs")
    overview = page.locator("#scm-runs-overview")
    expect(overview).to_contain_text("10 of 40", timeout=WAIT)
    expect(overview).to_contain_text("stopped")
    expect(page.locator("#scm-runs-sheet")).to_contain_text("student, samples after 5 steps")
    curves = page.get_by_alt_text("loss over steps")
    expect(curves).to_be_visible()
    drawn = curves.get_attribute("src")
    with (run / "student" / "metrics.jsonl").open("a") as lines:
        lines.write('ss": 0.1}\n' + json.dumps({"step": 12, "loss": 0.05, "samples_per_second": 2.0}) + "\n")
    write_sheet(run / "student", 12)
    expect(overview).to_contain_text("12 of 40", timeout=WAIT)
    expect(page.locator("#scm-runs-sheet")).to_contain_text("student, samples after 12 steps", timeout=WAIT)
    expect(curves).not_to_have_attribute("src", drawn, timeout=WAIT)
    parts = overview.locator("progress").evaluate_all("all => all.map(each => each.value)")
    assert parts == [1.0, 0.3]
    read = page.locator("#scm-runs-sheet img").evaluate("""async image => {
        await image.decode();
        const canvas = document.createElement("canvas");
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        return context.getImageData(0, 0, 1, 1).data[0];
    }""")
    assert read == 12, "the red of a sheet is its step"
    follow = page.get_by_label("Refresh every")
    follow.uncheck()
    page.wait_for_timeout(1000 * runs_tab.SECONDS)  # a look that had begun ends
    with (run / "student" / "metrics.jsonl").open("a") as lines:
        lines.write(json.dumps({"step": 13, "loss": 0.04}) + "\n")
    page.wait_for_timeout(4000 * runs_tab.SECONDS)
    expect(overview).to_contain_text("12 of 40")
    follow.check()
    expect(overview).to_contain_text("13 of 40", timeout=WAIT)

"""Starts the browser app and takes the pictures of docs/app.md: one of each modality.

    python examples/app_screenshots.py --out docs/images

It needs the extras app and dev, and Debian's chromium (apt-get install -y chromium).
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from scm_media.app.server import running
from scm_media.app.settings import ServerSettings

CHROMIUM = Path("/usr/bin/chromium")
WIDTH, HEIGHT = 1280, 800
COLOURS = 200
"""A picture has this many colours: a page has few, and files become several times smaller."""


def main() -> None:
    """Writes app-image.png, app-text.png, app-audio.png and app-video.png."""
    commands = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands.add_argument("--out", type=Path, default=Path("docs/images"), metavar="DIR")
    out = commands.parse_args().out
    if not CHROMIUM.exists():
        raise SystemExit(f"{CHROMIUM} is missing: apt-get install -y chromium")
    out.mkdir(parents=True, exist_ok=True)
    with running(ServerSettings()) as server, sync_playwright() as started, tempfile.TemporaryDirectory() as own:
        browser = started.chromium.launch_persistent_context(
            own,
            executable_path=CHROMIUM,
            headless=True,
            args=["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
            viewport={"width": WIDTH, "height": HEIGHT},
        )
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(server.url)
        page.locator("#scm-go").wait_for()
        generate(page, "image/fashion", num=8)
        save(page, out / "app-image.png")
        generate(page, "video/scenes", num=8)
        save(page, out / "app-video.png")
        page.get_by_role("tab", name="Live").click()
        choose(page, "Model", "image/emoji-text")
        page.get_by_label("Prompt").locator("visible=true").fill("woman scientist")
        teach(page, "woman scientist")
        save(page, out / "app-text.png")
        choose(page, "Model", "audio/notes")
        choose(page, "family", "guitar")
        teach(page, "guitar")
        save(page, out / "app-audio.png")
        browser.close()


def choose(page: Page, label: str, option: str) -> None:
    """Chooses an option of the visible list with this label."""
    field = page.get_by_label(label, exact=True).locator("visible=true")
    if field.input_value() != option:
        field.click()
        page.get_by_role("option", name=option, exact=True).locator("visible=true").click()


def generate(page: Page, model: str, num: int) -> None:
    """Generates and waits until everything is shown."""
    choose(page, "Model", model)
    page.get_by_role("spinbutton", name="number input for Number of samples").fill(str(num))
    page.locator("#scm-go").click()
    page.locator("#scm-made").locator("video" if model.startswith("video") else "img").nth(num - 1).wait_for()


def teach(page: Page, label: str) -> None:
    """Waits for a live result of a label, and for the teacher's beside it."""
    page.locator("#scm-live figcaption").filter(has_text=label).wait_for()
    page.locator("#scm-live-teach").click()
    page.locator("#scm-live-teacher figcaption").filter(has_text=label).wait_for()


def save(page: Page, file: Path) -> None:
    """Writes a picture of the page with few colours."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(800)  # until pictures and clips are drawn
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True)))
    picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

"""Builds the documentation site: without a warning, with nothing from elsewhere, and every page in its menu."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.docs.blocks import REPOSITORY

FETCHED = re.compile(
    r"<(?:script|img|iframe)[^>]+src=\"?(?:https?:)?//|<link[^>]+href=\"?(?:https?:)?//|@import|url\(http"
)


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(REPOSITORY, folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_page_is_built(site):
    for page in (REPOSITORY / "docs").rglob("*.md"):
        place = page.relative_to(REPOSITORY / "docs").with_suffix(".html")
        assert (site / (place.with_name("index.html") if page.stem == "README" else place)).is_file(), page


def test_every_page_is_in_the_menu(site):
    menu = (site / "tour.html").read_text(encoding="utf-8")
    for page in (REPOSITORY / "docs").rglob("*.md"):
        name = "index" if page.stem == "README" else page.stem
        assert f'{name}.html"' in menu or name in ("tour", "index"), page


def test_the_reader_s_browser_fetches_nothing_from_elsewhere(site):
    fetched = {page.name for page in site.rglob("*.html") if FETCHED.search(page.read_text(encoding="utf-8"))}
    assert fetched == set()
    assert not FETCHED.search("<a href='https://arxiv.org'>")
    assert FETCHED.search('<link rel="stylesheet" href="https://fonts.example/css">')


def test_the_interface_has_names_arguments_and_docstrings(site):
    losses = (site / "api" / "losses.html").read_text(encoding="utf-8")
    assert 'id="scm_media.losses.ConsistencyLoss"' in losses
    assert 'id="scm_media.losses.ConsistencyLoss.forward"' in losses
    assert "tangent_warmup" in losses
    assert ":::" not in losses


def test_links_out_of_the_pages_are_names_of_files(site):
    page = (site / "architecture.html").read_text(encoding="utf-8")
    assert "tests/packaging/plugin</code>" in page
    assert 'href="../' not in page


def test_comments_for_tests_are_left_out(site):
    assert "tested:" not in (site / "tour.html").read_text(encoding="utf-8")


def test_links_that_lead_nowhere_are_named_and_end_the_build(tmp_path):
    links = ("nowhere.md", "runs.md#nowhere", "../nowhere.md")
    (tmp_path / "docs").mkdir()
    config = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    without = re.sub(r"^nav:.*?^(?=\w)|^  - mkdocstrings:.*", "", config, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "mkdocs.yml").write_text(without, encoding="utf-8")
    shutil.copy(REPOSITORY / "docs" / "hooks.py", tmp_path / "docs")
    (tmp_path / "docs" / "README.md").write_text("# Home\n\n" + " ".join(f"[there]({link})" for link in links))
    (tmp_path / "docs" / "runs.md").write_text("# Runs\n\n## There\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    warnings = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
    assert [sum(f"'{link}'" in line for line in warnings) for link in links] == [1, 1, 1], done.stderr
    (tmp_path / "docs" / "README.md").write_text("# Home\n\nIt is [there](runs.md#there).\n")
    assert build(tmp_path, tmp_path / "site").returncode == 0


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", REPOSITORY / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see [../SECURITY.md](../SECURITY.md)", "see `SECURITY.md`"),
        ("[a plugin](../tests/packaging/plugin)", "a plugin (`tests/packaging/plugin`)"),
        ("[runs.md](runs.md#stopping)", "[runs.md](runs.md#stopping)"),
        ("[there](https://arxiv.org/abs/1)", "[there](https://arxiv.org/abs/1)"),
        ("[gone](../gone.md)", "[gone](../gone.md)"),
        ("![a sheet](images/notes.png)", "![a sheet](images/notes.png)"),
        ("```\n[x](../SECURITY.md) <!-- a -->\n```", "```\n[x](../SECURITY.md) <!-- a -->\n```"),
        ("a line:\n- one\n- two", "a line:\n\n- one\n- two"),
        ("<!-- tested: a -->\ntext", "text"),
    ],
)
def test_what_is_changed_on_the_way_into_the_site(hooks, text, expected):
    page = SimpleNamespace(file=SimpleNamespace(src_uri="runs.md"))
    assert hooks.on_page_markdown(text, page=page) == expected


def test_links_are_resolved_from_the_page_s_folder(hooks):
    page = SimpleNamespace(file=SimpleNamespace(src_uri="api/README.md"))
    assert hooks.on_page_markdown("[CHANGELOG.md](../../CHANGELOG.md)", page=page) == "`CHANGELOG.md`"

"""The documentation points to files, headings and names that exist."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PLACES = ("*.md", "docs/**/*.md", "integrations/*/README.md")
PAGES = sorted([each for place in PLACES for each in REPOSITORY.glob(place)])
OLD_NAMES = "names before version 0.1"
"""The heading of the glossary below which names are listed that are no longer there."""

INSTALLED = {"scm_media.configs", "scm_media.modalities", "scm_media.models", "scm_media.recipes"}
"""Groups of entry points, and folders that only the wheel has below the package."""

FOLDERS = "scm_media|modalities|integrations|tests|benchmarks|examples|configs|recipes|docs"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(rf"`((?:{FOLDERS})/[\w./-]+\.(?:py|md|yaml|json))(?:::(\w+))?`|`…?::(\w+)`")
"""A file, perhaps with a test in it; or the name of another test in the file that was named last."""

FOLDER = re.compile(rf"`((?:{FOLDERS})/[\w./-]*)/`")
NAME = re.compile(r"(?<![\w./-])((?:scm_media|modalities)(?:\.\w+)+)(?![\w/]|\.\w|-)")


def text_of(page: Path) -> str:
    """Returns a page without the list of old names, and without what commands print."""
    text = page.read_text(encoding="utf-8")
    kept = []
    for section in re.split(r"^(?=## )", text, flags=re.MULTILINE):
        if not section.lower().startswith(f"## {OLD_NAMES}"):
            kept.append(section)
    return "".join(kept)


def anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub gives to a page's headings."""
    found = set()
    in_code = False
    for line in page.read_text(encoding="utf-8").splitlines():
        in_code ^= line.startswith("```")
        if not in_code and (heading := re.match(r"#{1,6} (.*)", line)):
            words = re.sub(r"[^\w\s-]", "", re.sub(r"\]\([^)]*\)", "]", heading[1]).lower())
            found.add(re.sub(r"\s", "-", words.strip()))
    return found


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Yields the file and the anchor of each link of a page into the repository."""
    for target in LINK.findall(re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)):
        if not re.match(r"\w+:", target):
            file, _, anchor = target.partition("#")
            yield file, anchor


def exists(dotted: str) -> bool:
    """Returns whether a dotted name is a module, or an attribute that can be reached from one."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            if error.name is None or not dotted.startswith(error.name):
                raise
            continue
        for part in parts[end:]:
            if part not in getattr(found, "__annotations__", {}) and not hasattr(found, part):
                return False
            found = getattr(found, part, None)
        return True
    return False


def is_a_file(dotted: str) -> bool:
    """Returns whether a dotted name is the name of a file in a sentence, as in ``scm_media.yaml``."""
    return dotted.rsplit(".", 1)[1] in {"py", "md", "yaml", "json", "safetensors"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_link_leads_to_a_file_and_a_heading(page):
    wrong = []
    for file, anchor in links(page):
        target = page if not file else (page.parent / file).resolve()
        if not target.exists():
            wrong.append(file)
        elif anchor and anchor not in anchors(target):
            wrong.append(f"{file}#{anchor}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_path_is_a_file_of_the_repository(page):
    text = text_of(page)
    paths: list[tuple[str, str]] = []
    for path, test, another in PATH.findall(text) if page.name != "CHANGELOG.md" else []:
        if "NAME" not in path:
            paths.append((path or paths[-1][0], test or another))
    wrong = [path for path, _ in paths if not (REPOSITORY / path).is_file()]
    for path, test in paths:
        if test and (REPOSITORY / path).is_file():
            tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
            names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            wrong += [] if test in names else [f"{path}::{test}"]
    wrong += [path for path in FOLDER.findall(text) if not (REPOSITORY / path).is_dir()]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_dotted_name_is_there(page):
    if page.name == "CHANGELOG.md":  # it also names what was
        return
    names = {name for name in NAME.findall(text_of(page)) if not is_a_file(name)}
    assert sorted(name for name in names - INSTALLED if not exists(name)) == []


def test_every_page_is_listed():
    docs = REPOSITORY / "docs"
    listed = {file for file, _ in links(docs / "README.md")}
    assert {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")} - {"README.md"} <= listed


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) < 200

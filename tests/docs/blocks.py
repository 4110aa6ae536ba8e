"""Reads the fenced blocks of README.md and docs/ that a reader may type, and what becomes of each.

The line above a block is a comment:

- ``<!-- tested: FILE::TEST -->``: that test reads the block from its page and runs it.
- ``<!-- from: FILE -->``: the block is a part of that file, which has tests of its own.
- ``<!-- needs: gpu, cluster, download, time: 40 minutes -->`` (one or more of them): it is not run. Its commands are
  parsed and its recipes composed with these overrides all the same (``test_commands.py::test_composed``), its Python is
  compiled and its imports are made.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
SHELLS = ("console", "bash", "sh")
FENCE = re.compile(
    r"^(?P<mark>[^\n]*)\n(?P<fence> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
MARK = re.compile(r"^\s*<!-- (?P<kind>tested|needs|from): (?P<what>.*) -->$")
NEEDS = re.compile(r"(gpu|cluster|download|time: \d+ minutes)(, (gpu|cluster|download|time: \d+ minutes))*")


@dataclass(frozen=True)
class Command:
    """Holds the words of one command, the file that its output goes to, and the variables before it."""

    words: tuple[str, ...]
    output: str | None = None
    variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Block:
    """Holds a fenced block: where it stands, its language, its text, and what its comment says."""

    page: str
    line: int
    language: str
    text: str
    kind: str | None
    what: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[Command]:
        """Returns the commands of a block of a shell; in ``console``, those after ``$``."""
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        if self.language == "console":
            lines = [line.strip().removeprefix("$ ") for line in lines if line.strip().startswith("$ ")]
        found = []
        for line in lines:
            words: list[str] = []
            for word in [*shlex.split(line, comments=True), "&&"]:
                if word != "&&":
                    words.append(word)
                elif words:
                    found.append(_command(words))
                    words = []
        return found


def _command(words: list[str]) -> Command:
    variables, output = [], None
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        variables.append((name, value))
    if ">" in words:
        place = words.index(">")
        output, words = words[place + 1], words[:place]
    return Command(tuple(words), output, tuple(variables))


def blocks_of(path: Path) -> list[Block]:
    """Returns all fenced blocks of a page, of any language."""
    text = "\n" + path.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        mark = MARK.match(match["mark"])
        line = text.count("\n", 0, match.start("fence"))
        kind, what = (mark["kind"], mark["what"]) if mark else (None, "")
        page = path.relative_to(REPOSITORY).as_posix()
        found.append(Block(page, line, match["language"], match["text"], kind, what))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
TYPED = [block for block in BLOCKS if block.language in (*SHELLS, "python")]


def blocks_run_by(test: str) -> dict[str, list[Block]]:
    """Returns the blocks of each page that say that a test of ``test_commands.py`` runs them, in order."""
    found: dict[str, list[Block]] = {}
    for block in TYPED:
        if block.kind == "tested" and block.what == f"tests/docs/test_commands.py::{test}":
            found.setdefault(block.page, []).append(block)
    return found

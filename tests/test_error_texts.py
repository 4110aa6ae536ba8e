"""Reads every text that a user may be shown when something is wrong, as a beginner reads it.

The texts are collected from the sources: what is raised as ValueError and its kinds, what ends a command for wrong
usage, and what is printed or warned of. A placeholder stands as {}.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FEWEST = 850
"""Texts that there are at least: fewer would say that the collection misses some."""

REMEDY = re.compile(
    r"[:;,(]|\b(must|expected|needs?|give|set|pass|choose|use|leave|takes?|names?|write|at least|instead|beyond|cannot|"
    r"another|does not|do not|is no|has no|holds no|than|first|in place of|goes? with|without|already|exists|lies?|too|"
    r"samples|twice|missing|are mappings|have no|are no|differ|such|is damaged|of another)\b"
)
"""What is wrong is said with what would be right: a sentence of several parts, or one of these words."""

CONCRETE = re.compile(r"\{\}|--\w|[\w-]+=|\w+\.\w+|['\"`]|[A-Z]{3,}|\d|π|\b\w+_\w+\b")
"""A key, a flag, a file, a value or a name stands in the text."""

EMPTY_TALK = re.compile(
    r"\b(invalid (input|value|argument|data|config\w*|file)|bad (input|value|argument)|illegal|something went wrong|"
    r"an error occurred|unknown error|unexpected error|internal error|oops|sorry|please|not allowed here)\b|!$",
    re.IGNORECASE,
)
INTERNAL = re.compile(
    r"\bself\b|(?<![\w.{}])_(?!target_|partial_)[a-z]\w+|__\w+__|\bNoneType\b|\bTraceback\b|\bassert\b|\bkwargs\b|<class|0x[0-9a-f]{6}"
)
ENDS = re.compile(r"[:;,.\s]$|\s{2}\S|(?<!\w)\(\)|''|\"\"")


@dataclass(frozen=True)
class Text:
    """Holds a text with {} for what is filled in, the place that it stands at, and its kind."""

    place: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def written(node: ast.expr) -> str:
    """Returns the text of an expression, with {} for what is filled in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "{}"
    if isinstance(node, ast.JoinedStr):
        return "".join(written(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return written(node.left) + written(node.right)
    if isinstance(node, ast.IfExp):
        return written(node.body)
    return "{}"


def kind_of(node: ast.AST) -> tuple[str, ast.expr] | None:
    """Returns the kind of a node that says something to the user, and what it says."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
        name = ast.unparse(node.exc.func).rpartition(".")[2]
        return (name, node.exc.args[0]) if name in ("ValueError", "UnsupportedError", "ImportError") else None
    if not isinstance(node, ast.Call) or not node.args:
        return None
    if getattr(node.func, "attr", getattr(node.func, "id", None)) not in ("error", "warn", "print"):
        return None  # before the name is put together, which is slow
    name = ast.unparse(node.func)
    if name in ("commands.error", "warnings.warn"):
        return name, node.args[0]
    streams = [ast.unparse(each.value) for each in node.keywords if each.arg == "file"]
    return ("print", node.args[0]) if name == "print" and streams == ["sys.stderr"] else None


def collect() -> list[Text]:
    found = []
    for package in ("scm_media", "modalities"):
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if (kind := kind_of(node)) is not None:
                    place = f"{file.relative_to(REPOSITORY)}:{node.lineno}"  # type: ignore[attr-defined]
                    found.append(Text(place, kind[0], written(kind[1])))
    return found


TEXTS = collect()
PARTS = (
    *("its header lacks", "it is damaged: zeros", "it is a {}", "is neither a regular file", "config and info"),
    *("parts and figures in its header", "mean or covariance", "a sample is not finite", "is a pipe, a device"),
)
"""Beginnings of texts that another text takes up, which names the file."""

REFUSALS = [
    each
    for each in TEXTS
    if each.kind != "print" and re.search(r"[a-z]", each.text.replace("{}", "")) and not each.text.startswith(PARTS)
]
"""The texts that say no, without those that are put together elsewhere."""

TYPED = [each for each in REFUSALS if not each.place.startswith("scm_media/app/")]
"""Those that answer something typed; those of the app answer a click, and name what is to be clicked or drawn."""


def failing(texts: list[Text], wrong) -> list[str]:
    return [str(each) for each in texts if wrong(each.text)]


def test_the_collection_finds_the_texts():
    assert len(TEXTS) > FEWEST
    kinds = {each.kind for each in TEXTS}
    assert kinds == {"ValueError", "UnsupportedError", "ImportError", "commands.error", "warnings.warn", "print"}
    assert any(
        "no such folder: {}" in each.text for each in TEXTS if each.place.startswith("scm_media/cli/proposals.py")
    )


def test_each_names_the_key_the_file_or_the_value():
    assert failing(TYPED, lambda text: not CONCRETE.search(text)) == []


def test_each_says_what_was_expected_or_what_to_do():
    assert failing(REFUSALS, lambda text: not REMEDY.search(text.rstrip("{}"))) == []


def test_none_talks_emptily_or_of_the_insides():
    assert failing(TEXTS, EMPTY_TALK.search) == []
    assert failing(TEXTS, INTERNAL.search) == []


def test_none_ends_in_the_middle():
    assert failing([each for each in TEXTS if each.kind != "print"], ENDS.search) == []


def test_each_is_one_line_of_a_length_that_is_read():
    assert failing(REFUSALS, lambda text: "\n" in text or len(text) > 330) == []
    assert failing(TYPED, lambda text: len(text.split()) < 4 and "{}" not in text) == []


def test_each_begins_in_the_middle_of_a_line():
    """Expects no capital where no name begins, since a text follows "scm-media COMMAND: "."""
    names = re.compile(r"^[A-Z]\w*[A-Z_.]|^[A-Z]+\b|^NumPy|^PyTorch|^Conditioning|^This|^[A-Z]\w+ needs|^\w+Loss")
    assert failing(REFUSALS, lambda text: text[:1].isupper() and not names.search(text)) == []


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("invalid input", {"CONCRETE", "EMPTY_TALK"}),
        ("something went wrong in _load_part", {"EMPTY_TALK", "INTERNAL"}),
        ("cannot read:", {"ENDS"}),
        ("data.root={} is no folder", set()),
    ],
)
def test_the_rules_tell_a_bad_text_from_a_good_one(text, rules):
    found = {
        name
        for name, rule, wanted in (
            ("CONCRETE", CONCRETE, True),
            ("EMPTY_TALK", EMPTY_TALK, False),
            ("INTERNAL", INTERNAL, False),
            ("ENDS", ENDS, False),
        )
        if bool(rule.search(text)) != wanted
    }
    assert rules <= found and (rules or not found)

"""Counts pairs of repeated code in scm_media/ and modalities/, and the lines of both.

    python benchmarks/duplicates.py [FOLDER ...] [--root CLONE] [--least 6] [--json]

A pair is two runs of at least six consecutive code lines. Blank lines, comments, docstrings and imports are left out
before lines are compared, and indentation does not matter. Two lines are equal where their tokens are, and of the same
shape where their tokens are once every name, number and string is replaced by a placeholder; keywords and operators
stay. Every pair is reported once, by its longest run, as ``file:first-last ~ file:first-last``: as equal where all of
its lines are, else as same-shaped with the number of lines that are equal. A passage that stands in three places makes
three pairs. The two runs of a pair never overlap: code that is repeated in a row is cut into its repetitions.

Runs that only look repeated are not counted: a run needs at least four distinct line shapes. Six keyword arguments
(``name=name,``) have one, six lines of ``self.x = x`` have one, and a table of numbers has one.

Compare only counts that one version of Python made: up to Python 3.11 an f-string is one string, later it is several.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import keyword
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDERS = ("scm_media", "modalities")
LEAST_LINES, LEAST_SHAPES = 6, 4
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
PLACEHOLDERS = {tokenize.NUMBER: "0", tokenize.STRING: "''"}


@dataclass(frozen=True)
class Line:
    """One line of code: its file, its number, its tokens, and its tokens with placeholders."""

    file: str
    number: int
    text: str
    shape: str


@dataclass(frozen=True)
class Counts:
    """Numbers of lines; ``text`` counts the lines of docstrings and those of comments alone."""

    all: int = 0
    code: int = 0
    text: int = 0
    blank: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


@dataclass(frozen=True)
class Pair:
    """Two runs that repeat each other; ``num_equal`` of their ``length`` lines are equal."""

    first: str
    second: str
    length: int
    num_equal: int

    @property
    def kind(self) -> str:
        """Returns "equal" where all lines are, else "same-shaped"."""
        return "equal" if self.num_equal == self.length else "same-shaped"

    def __str__(self) -> str:
        equal = "" if self.kind == "equal" else f", {self.num_equal} of them equal"
        return f"{self.first} ~ {self.second}  ({self.length} lines{equal})"


def read_lines(source: str, file: str) -> tuple[list[Line], Counts]:
    """Returns the lines of a file that are compared, and counts of all of its lines."""
    docstrings, imports = _line_numbers(ast.parse(source))
    texts: dict[int, list[str]] = defaultdict(list)
    shapes: dict[int, list[str]] = defaultdict(list)
    comments = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        if token.type in LAYOUT:
            continue
        is_name = token.type == tokenize.NAME and not keyword.iskeyword(token.string)
        shape = "x" if is_name else PLACEHOLDERS.get(token.type, token.string)
        parts = token.string.splitlines()  # of a string that covers several lines, each is a line of code
        for number, part in enumerate(parts, token.start[0]):
            texts[number].append(part.strip())
            shapes[number].append(shape)
    code = {number for number in texts if number not in docstrings}
    text = docstrings | (comments - code)
    num_lines = len(source.splitlines())
    counts = Counts(num_lines, len(code), len(text), num_lines - len(code) - len(text))
    lines = [Line(file, number, " ".join(texts[number]), " ".join(shapes[number])) for number in sorted(code - imports)]
    return lines, counts


def _line_numbers(tree: ast.Module) -> tuple[set[int], set[int]]:
    """Returns the numbers of the lines of docstrings (of attributes too), and of imports."""
    docstrings, imports = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return docstrings, imports


def find_pairs(files: Sequence[Sequence[Line]], least: int = LEAST_LINES) -> list[Pair]:
    """Returns the pairs of repeated runs in the lines of files, the longest first.

    least: the number of lines of the shortest run that counts.
    """
    lines = [line for file in files for line in file]
    starts = _starts_by_shape(files, least)
    found = []
    for places in starts.values():
        for number, one in enumerate(places):
            for other in places[number + 1 :]:
                if _num_before(lines, one, other) % (other - one):
                    continue  # within a run that began earlier
                length = _run_length(lines, one, other)
                run = lines[one : one + length]
                if length >= least and len({line.shape for line in run}) >= LEAST_SHAPES:
                    found.append(_pair(run, lines[other : other + length]))
    return sorted(found, key=lambda pair: (-pair.length, -pair.num_equal, pair.first, pair.second))


def _starts_by_shape(files: Sequence[Sequence[Line]], least: int) -> dict[tuple[str, ...], list[int]]:
    """Returns the places where runs of ``least`` lines begin, by the shapes of these lines."""
    starts: dict[tuple[str, ...], list[int]] = defaultdict(list)
    before = 0
    for file in files:
        shapes = [line.shape for line in file]
        for place in range(len(file) - least + 1):
            starts[tuple(shapes[place : place + least])].append(before + place)
        before += len(file)
    return starts


def _num_before(lines: Sequence[Line], one: int, other: int) -> int:
    """Returns how many lines before two places have the same shapes, within the files of the places."""
    files, num = (lines[one].file, lines[other].file), 0
    while num < one:
        a, b = lines[one - num - 1], lines[other - num - 1]
        if (a.file, b.file) != files or a.shape != b.shape:
            break
        num += 1
    return num


def _run_length(lines: Sequence[Line], one: int, other: int) -> int:
    """Returns how many lines from two places on have the same shapes, within their files and without overlapping."""
    length, files = 0, (lines[one].file, lines[other].file)
    while other + length < len(lines) and one + length < other:
        a, b = lines[one + length], lines[other + length]
        if (a.file, b.file) != files or a.shape != b.shape:
            break
        length += 1
    return length


def _pair(run: Sequence[Line], other: Sequence[Line]) -> Pair:
    first, second = (f"{each[0].file}:{each[0].number}-{each[-1].number}" for each in (run, other))
    return Pair(first, second, len(run), sum(a.text == b.text for a, b in zip(run, other, strict=True)))


def measure(root: Path, folders: Iterable[str] = FOLDERS, least: int = LEAST_LINES) -> dict[str, Any]:
    """Returns {pairs, num_equal, num_same_shaped, lines: {folder: {all, code, text, blank}}} of a clone.

    Raises ValueError for a folder without Python files.
    """
    files, counts = [], {}
    for folder in folders:
        paths = sorted((root / folder).rglob("*.py"))
        if not paths:
            raise ValueError(f"{root / folder} holds no Python file: name a folder of the clone {root}")
        counts[folder] = Counts()
        for path in paths:
            lines, own = read_lines(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix())
            files.append(lines)
            counts[folder] += own
    pairs = find_pairs(files, least)
    equal = [pair for pair in pairs if pair.kind == "equal"]
    return {
        "least": least,
        "num_equal": len(equal),
        "num_same_shaped": len(pairs) - len(equal),
        "lines": {folder: asdict(own) for folder, own in counts.items()},
        "lines_in_all": asdict(sum(counts.values(), Counts())),
        "pairs": [{**asdict(pair), "kind": pair.kind, "text": str(pair)} for pair in pairs],
    }


def report(found: dict[str, Any]) -> str:
    """Returns what ``measure`` found as text."""
    texts = []
    for kind, num in (("equal", found["num_equal"]), ("same-shaped", found["num_same_shaped"])):
        texts.append(f"{kind}: {num} pairs of {found['least']} and more lines")
        texts += [f"  {pair['text']}" for pair in found["pairs"] if pair["kind"] == kind]
    texts.append(f"pairs in all: {found['num_equal'] + found['num_same_shaped']}")
    for folder, counts in {**found["lines"], " and ".join(found["lines"]): found["lines_in_all"]}.items():
        texts.append(
            f"lines of {folder}: {counts['all']} ({counts['code']} code, {counts['text']} docstrings and comments, "
            f"{counts['blank']} blank)"
        )
    return "\n".join(texts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the pairs and the counts."""
    commands = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands.add_argument("folders", nargs="*", default=FOLDERS, metavar="FOLDER", help="default: scm_media modalities")
    commands.add_argument("--root", type=Path, default=ROOT, metavar="CLONE", help="default: this clone")
    commands.add_argument("--least", type=int, default=LEAST_LINES, metavar="N", help="lines of a run; default: 6")
    commands.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parsed = commands.parse_args(arguments)
    try:
        found = measure(parsed.root, parsed.folders, parsed.least)
    except (ValueError, SyntaxError) as error:
        commands.error(str(error))
    print(json.dumps(found, indent=2) if parsed.json else report(found))


if __name__ == "__main__":
    main()

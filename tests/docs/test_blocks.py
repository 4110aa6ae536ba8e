"""Checks that every fenced block that a reader may type is run by a test, or says what it needs."""

from __future__ import annotations

import ast
import re
import textwrap

import pytest

from tests.docs.blocks import BLOCKS, NEEDS, REPOSITORY, TYPED, blocks_of

TYPED_WITHOUT_LANGUAGE = re.compile(r"^\s*(\$ |scm-media |python |pip |import |from \w+ import )", re.MULTILINE)


def test_every_block_is_run_or_says_what_it_needs():
    assert [str(block) for block in TYPED if block.kind is None] == []
    wrong = [f"{block}: {block.what}" for block in TYPED if block.kind == "needs" and not NEEDS.fullmatch(block.what)]
    assert wrong == []


def test_the_tests_that_blocks_name_exist():
    for block in TYPED:
        if block.kind == "tested":
            file, _, test = block.what.partition("::")
            tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
            assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, block


def without_empty_lines(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if line.strip())


def test_blocks_of_files_are_parts_of_them():
    quoted = [block for block in BLOCKS if block.kind == "from"]
    assert {block.page for block in quoted} == {"docs/adding-a-modality.md"}
    for block in quoted:
        text = without_empty_lines((REPOSITORY / block.what).read_text(encoding="utf-8"))
        quoted_text = without_empty_lines(block.text)  # of methods, whose indentation a formatter takes away
        assert quoted_text in text or textwrap.indent(quoted_text, "    ") in text, block


def test_blocks_that_are_typed_have_a_language():
    others = [block for block in BLOCKS if block.language == ""]
    assert [str(block) for block in others if TYPED_WITHOUT_LANGUAGE.search(block.text)] == []


def test_blocks_are_split_into_commands(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.docs.blocks.REPOSITORY", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\n<!-- tested: a.py::test_b -->\n```console\n"
        "$ A=1 scm-media check a.yaml \\\n    'data.root=my files'  "
        "# why\nwhat it prints\n$ pip install x && cd x > out.txt\n```\n\n```python\nprint(1)\n```\n"
    )
    first, second = blocks_of(page)
    assert (first.kind, first.what, first.line) == ("tested", "a.py::test_b", 4)
    assert [(each.words, each.output, each.variables) for each in first.commands()] == [
        (("scm-media", "check", "a.yaml", "data.root=my files"), None, (("A", "1"),)),
        (("pip", "install", "x"), None, ()),
        (("cd", "x"), "out.txt", ()),
    ]
    assert (second.kind, second.language) == (None, "python")


@pytest.mark.parametrize("what", ["gpu", "download, time: 40 minutes", "time: 5 minutes"])
def test_needs_are_written_in_one_way(what):
    assert NEEDS.fullmatch(what)
    assert not NEEDS.fullmatch(what + ", patience")

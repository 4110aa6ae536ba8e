"""Repeated code is found once, by its longest run, whatever stands between its lines; trivial runs are not counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.duplicates import find_pairs, main, measure, read_lines

BODY = """\
total = 0
for value in values:
    if value > 1:
        total += value * 2
    else:
        total -= 1
print(total)
return_value = [total, 1]
"""
RENAMED = BODY.replace("total", "amount").replace("value", "each").replace("2", "3.5")
APART = '''\
"""Says something."""
total = 0

import os

for value in values:  # each of them
    # the large ones
    if value > 1:
        total += value * 2
    else:

        total -= 1
print(total)
return_value = [total, 1]
'''


def pairs_of(*sources: str, least: int = 6) -> list[str]:
    files = [read_lines(source, f"{name}.py")[0] for name, source in zip("abc", sources, strict=False)]
    return [f"{pair.kind} {pair.first} ~ {pair.second} {pair.num_equal}" for pair in find_pairs(files, least)]


def indented(source: str) -> str:
    return "def function(values):\n" + "".join(f"    {line}\n" for line in source.splitlines())


def test_equal_runs_are_one_pair_of_their_first_and_last_lines():
    assert pairs_of("first = 1\n" + BODY + "last()\n", BODY + "end = {}\n") == ["equal a.py:2-9 ~ b.py:1-8 8"]


def test_comments_docstrings_imports_blank_lines_and_indentation_do_not_matter():
    assert pairs_of(BODY, APART) == ["equal a.py:1-8 ~ b.py:2-14 8"]
    assert pairs_of(BODY, indented(BODY)) == ["equal a.py:1-8 ~ b.py:2-9 8"]


def test_names_numbers_and_strings_may_differ_but_not_keywords_and_operators():
    assert pairs_of(BODY, RENAMED) == ["same-shaped a.py:1-8 ~ b.py:1-8 1"]  # "else:" is the equal line
    assert pairs_of(BODY, BODY.replace("total += value", "total -= value")) == []
    assert pairs_of(BODY, BODY.replace("for value in values", "while value in values")) == [
        "equal a.py:3-8 ~ b.py:3-8 6"
    ]


def test_a_run_ends_with_its_file_and_does_not_overlap_its_repetition():
    head = "head()\n" * 4
    assert pairs_of(head, BODY, head + BODY) == ["equal b.py:1-8 ~ c.py:5-12 8"]
    assert pairs_of(BODY + BODY + BODY) == [
        "equal a.py:1-8 ~ a.py:17-24 8",
        "equal a.py:1-8 ~ a.py:9-16 8",
        "equal a.py:9-16 ~ a.py:17-24 8",
    ]


def test_three_places_are_three_pairs():
    assert pairs_of(BODY, RENAMED, BODY) == [
        "equal a.py:1-8 ~ c.py:1-8 8",
        "same-shaped a.py:1-8 ~ b.py:1-8 1",
        "same-shaped b.py:1-8 ~ c.py:1-8 1",
    ]


@pytest.mark.parametrize(
    "trivial",
    [
        "".join(f"self.name{number} = name{number}\n" for number in range(12)),
        "call(\n" + "".join(f"    key{number}=key{number},\n" for number in range(12)) + ")\n",
        "table = (\n" + "    (1, 2, 3),\n" * 12 + ")\n",
    ],
    ids=["attributes", "keywords", "table"],
)
def test_runs_of_fewer_than_four_shapes_are_not_counted(trivial):
    assert pairs_of(trivial, trivial) == []


def test_five_lines_are_too_few():
    six = "".join(BODY.splitlines(keepends=True)[:5]) + "        pass\n"
    five = six.replace("pass", "break")
    assert pairs_of(six, five) == []
    assert pairs_of(six, six) == ["equal a.py:1-6 ~ b.py:1-6 6"]
    assert pairs_of(six, five, least=5) == ["equal a.py:1-5 ~ b.py:1-5 5"]


def test_lines_are_counted_by_what_they_hold():
    counts = read_lines(APART + 'text = """one\n\nthree"""  # a remark\n', "a.py")[1]
    assert (counts.all, counts.code, counts.text, counts.blank) == (17, 12, 2, 3)


def test_a_clone_is_measured_and_printed(tmp_path: Path, capsys):
    for folder, source in (("scm_media", BODY), ("modalities", APART)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.py").write_text(source)
    found = measure(tmp_path)
    assert (found["num_equal"], found["num_same_shaped"]) == (1, 0)
    assert [pair["text"] for pair in found["pairs"]] == ["scm_media/one.py:1-8 ~ modalities/one.py:2-14  (8 lines)"]
    main(["--root", str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out) == found
    main(["--root", str(tmp_path)])
    text = capsys.readouterr().out
    assert "pairs in all: 1" in text and "lines of scm_media and modalities: 22 (" in text


def test_a_folder_without_code_is_refused(tmp_path: Path, capsys):
    with pytest.raises(SystemExit):
        main(["--root", str(tmp_path)])
    assert "holds no Python file" in capsys.readouterr().err

"""Compares docs/command-line.md with the parsers, whatever the version of Python and the width of the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from scm_media.cli import COMMANDS, main
from scm_media.cli.arguments import parser
from scm_media.cli.captured import command_parser
from scm_media.cli.reference import describe_parser, reference_page

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"


def test_the_page_is_what_the_parsers_say():
    assert PAGE.read_text(encoding="utf-8") == reference_page(COMMANDS), "scm-media --reference > docs/command-line.md"


def test_the_command_prints_the_page(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--reference"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == PAGE.read_text(encoding="utf-8")


def test_a_width_of_the_terminal_changes_nothing(monkeypatch):
    wide = describe_parser(command_parser("recipes"))
    monkeypatch.setenv("COLUMNS", "40")
    assert describe_parser(command_parser("recipes")) == wide


def test_a_long_description_is_wrapped_as_other_pages_are():
    text = describe_parser(parser("try", "word " * 60))
    lines = [line for line in text.splitlines() if line.startswith("word")]
    assert [len(line.split()) for line in lines] == [24, 24, 12] and max(map(len, lines)) == 119


def test_flags_values_and_bars_are_shown_as_they_are_typed():
    commands = parser("try", "Does <this>.")
    commands.add_argument("place", metavar="HERE|THERE", help="one or the other")
    commands.add_argument("more", nargs="*", metavar="KEY=VALUE")
    commands.add_argument("-p", "--pair", nargs=2, metavar=("LOW", "HIGH"), help="a | b", required=True)
    commands.add_argument("--kind", choices=("x", "y"), default="x", help="default: %(default)s")
    text = describe_parser(commands)
    assert "\nscm-media try HERE or THERE [KEY=VALUE …] [flags]\n" in text
    assert "\nDoes &lt;this>.\n" in text
    assert "| `-p LOW HIGH`, `--pair LOW HIGH` | a \\| b (must be given) |" in text
    assert "| `--kind {x,y}` | default: x |" in text
    assert "--help" not in text

"""Text of unknown origin is shown in one line, without anything that acts on a terminal, a browser or YAML."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scm_media.display import byte_size, printable, printable_lines
from tests.properties import repeatable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Größe 日本 👩‍🚀 naïve", "Größe 日本 👩‍🚀 naïve"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31mred\x1b[0m \x9b2J \x7f", r"\x1b[31mred\x1b[0m \x9b2J \x7f"),
        ("safe\u202egnp.exe\u2066", r"safe\u202egnp.exe\u2066"),
        ("a\u2028b\u2029\x85", r"a\u2028b\u2029\x85"),
        (b"caf\xe9.png".decode("utf-8", "surrogateescape"), r"caf\xe9.png"),
        ("\ud800", r"\ud800"),
        ("back\\slash", "back\\slash"),
    ],
)
def test_what_acts_is_escaped_and_all_else_stays(text, shown):
    assert printable(text) == shown


@repeatable
@given(st.text(st.characters()))
def test_shown_text_is_one_line_that_every_utf_8_terminal_takes(text):
    shown = printable(text)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown


def test_lines_stay_lines():
    assert printable_lines("a\n\x1b[2Jb") == "a\n\\x1b[2Jb"


@pytest.mark.parametrize(
    ("num", "shown"),
    [
        (0.007 * 2**30, "7.2 MiB"),
        (102 * 2**20, "102 MiB"),
        (0.1 * 2**30, "0.1 GiB"),
        (2.34 * 2**30, "2.3 GiB"),
        (123.4 * 2**30, "123 GiB"),
        (0.1 * 2**20, "0.1 MiB"),
        (4000, "3.9 KiB"),
        (1, "0.00098 KiB"),
        (0, "0 KiB"),
    ],
)
def test_sizes_are_in_the_unit_that_suits_them(num, shown):
    assert byte_size(num) == shown

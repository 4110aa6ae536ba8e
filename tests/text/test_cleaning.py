"""One form of the same words."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scm_media.text import clean_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a dog", "a dog"),
        ("  a\t\tdog \r\n", "a dog"),
        ("a\u00a0\u3000dog\u2028", "a dog"),
        ("a\x00\x1b\x85dog", "a dog"),
        ("cafe\u0301", "caf\u00e9"),
        ("a \udc80\ud83d", "a \ufffd\ufffd"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        ("\n \x00", ""),
        ("", ""),
    ],
)
def test_the_same_words_have_one_form(text, expected):
    assert clean_text(text) == expected


@given(st.text(st.characters(codec=None)))
def test_what_is_clean_stays_and_can_be_written_as_utf_8(text):
    found = clean_text(text)
    assert clean_text(found) == found
    found.encode()
    assert not any(each != " " and (each.isspace() or unicodedata.category(each) == "Cc") for each in found)
    assert "  " not in found and found == found.strip()


@pytest.mark.parametrize("text", [None, 3, b"a dog", ["a dog"]])
def test_what_is_no_string_is_refused(text):
    with pytest.raises(ValueError, match=f"must be a string, got {type(text).__name__}"):
        clean_text(text)

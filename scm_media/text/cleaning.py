"""Brings texts into one form, so that the same words give the same embeddings."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACES = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
"""Matches runs of whitespace and of control characters (Unicode's category Cc)."""


def clean_text(text: Any) -> str:
    """Returns a text in Unicode's form NFC, in which every run of whitespace and control characters is one space.

    Spaces at both ends are removed. Surrogates, which UTF-8 has no bytes for, become U+FFFD. Raises ValueError for
    anything but a string.
    """
    if not isinstance(text, str):
        raise ValueError(f"a text must be a string, got {type(text).__name__} {text!r:.80}; write it in quotes")
    normal = unicodedata.normalize("NFC", _SURROGATE.sub("\ufffd", text))
    return _SPACES.sub(" ", normal).strip(" ")

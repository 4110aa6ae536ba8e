"""Makes values fit to be shown: text of unknown origin (file names, labels, messages of decoders), and sizes."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_UNDECODED = range(0xDC80, 0xDD00)
"""Code points that stand for single bytes of a file name that is not UTF-8 (PEP 383)."""

_UNSEEN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that act instead of being shown: control characters, lone surrogates, line separators."""

_DIRECTING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
"""Marks that reverse or hide the text around them; other format characters (emoji, Persian) belong to words."""


def printable(text: object) -> str:
    """Returns the text in one line without characters that a terminal, a browser or a YAML reader would act on.

    Control characters, line breaks, lone surrogates and marks of direction become escapes as in Python's strings
    (``\\n``, ``\\x1b``, ``\\u202e``); a byte that is not UTF-8 becomes ``\\xff``. All else stays as it is.
    """
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(map(_escape, shown))


def byte_size(num: float) -> str:
    """Returns a number of bytes in the largest of KiB, MiB and GiB of which it is a tenth, with at least two digits."""
    unit, size = next((each for each in UNITS if num >= 0.1 * each[1]), UNITS[-1])
    value = num / size
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"


def span(values: Collection[float], spec: str = "") -> str:
    """Returns "LEAST to GREATEST" of numbers in this format, or one of them where both are written alike."""
    low, high = format(min(values), spec), format(max(values), spec)
    return low if low == high else f"{low} to {high}"


def printable_lines(text: str) -> str:
    """Returns text of several lines, each as ``printable`` has it."""
    return "\n".join(map(printable, text.split("\n")))


def _escape(character: str) -> str:
    if ord(character) in _UNDECODED:
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character in _DIRECTING or unicodedata.category(character) in _UNSEEN:
        return character.encode("unicode_escape").decode("ascii")
    return character

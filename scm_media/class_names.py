"""Reads class names as labels hold them, and the lists of names that a recipe gives."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
_WHOLE = re.compile(r"(-?\d+)\.0+")
BOOLEANS = (("true", "false"), ("yes", "no"), ("on", "off"))
"""Words that YAML reads as booleans if they are not in quotes."""


def utf8_text(text: str) -> str:
    r"""Returns the text with every byte that is not UTF-8 written as ``\xNN``, so that it can be printed and saved."""

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"

    return _SURROGATE.sub(escape, text)


def class_name(value: Any) -> str:
    r"""Returns the class name of a label's value.

    Text is brought to Unicode's form NFC, and bytes that are not UTF-8 are written as ``\xNN``. Booleans are named as
    JSON writes them (true, false); 1.0 is called 1.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return unicodedata.normalize("NFC", utf8_text(str(value)))


def find_class(value: Any, classes: Sequence[str]) -> str | None:
    """Returns the class that a label's value names, None if it is not in ``classes``; "1.0" names the class "1"."""
    name = class_name(value)
    if name in classes:
        return name
    whole = _WHOLE.fullmatch(name)
    return whole[1] if whole is not None and whole[1] in classes else None


def name_bytes(text: str) -> bytes:
    """Returns the bytes of a file's name, for a digest; names that no file can have are encoded too."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def names_of(value: Any, key: str) -> list[str]:
    """Returns the names that a recipe's key lists; raises ValueError for a value that is no list of names."""
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        shown = value if isinstance(value, str) else repr(value)
        raise ValueError(f"{key} must be a list of names, got {value!r}: write {key}=[{shown}]")
    names = list(value)
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise ValueError(
                f"{key} must be a list of names, got {names!r}: yes, no, on, off, true, false and null need quotes"
            )
    return [str(name) for name in names]


def classes_of(value: Any, key: str, words: Mapping[str, Iterable[Any]] | None = None) -> dict[str, tuple[str, ...]]:
    """Returns label to its classes in order, as a recipe's key gives them.

    words: label to the values in the data, which show whether a boolean in the recipe stands for yes, on or true.
    Raises ValueError for a value that is no mapping of labels to lists, for classes that are named twice, and for
    booleans whose word the data do not show.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{key} must map labels to lists of classes, got {value!r}: write {key}={{label: [a, b]}}")
    return {
        str(label): _classes(given, f"{key}.{label}", (words or {}).get(label, ())) for label, given in value.items()
    }


def _classes(given: Any, key: str, words: Iterable[Any]) -> tuple[str, ...]:
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        shown = given if isinstance(given, str) else repr(given)
        raise ValueError(f"{key} must be a list of classes, got {given!r}: write {key}=[{shown}]")
    listed = list(given)
    if any(value is None for value in listed):
        raise ValueError(f"{key} lists null, which is no class: put it in quotes if it is the name of one")
    if any(isinstance(value, bool) for value in listed):
        spelled = _find_spelling({class_name(word) for word in words}, key)
        listed = [spelled[not value] if isinstance(value, bool) else value for value in listed]
    names = [class_name(value) for value in listed]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{key} names {', '.join(twice)} twice: a class has one spelling and one index")
    return tuple(names)


def _find_spelling(words: set[str], key: str) -> tuple[str, str]:
    """Returns the words of the data for true and false."""
    found = [
        (change(true), change(false))
        for true, false in BOOLEANS
        for change in (str.lower, str.title, str.upper)
        if {change(true), change(false)} & words
    ]
    if len(found) != 1:
        raise ValueError(
            f"{key} holds true or false, which YAML makes of yes, no, on, off, true and false without quotes, and the "
            f"data {'have several of these words' if found else 'have none of these words'}: put the classes in quotes"
        )
    return found[0]

"""Reads the structure of JPEG files: segments, and the entropy-coded data between them (ITU-T T.81)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_MARKER = re.compile(rb"\xff([\x01-\xfe])")
_END, _SCAN, _TABLES, _RESTART_INTERVAL, _QUIET = 0xD9, 0xDA, 0xC4, 0xDD, (0x01, *range(0xD0, 0xD9))
_RESTART = range(0xD0, 0xD8)
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_HUFFMAN, _PROGRESSIVE = (0xC0, 0xC1, 0xC2), (0xC2, 0xCA)
_APPLICATION = range(0xE0, 0xF0)
_COLOUR = (0xE0, 0xEE)
"""Application segments that say how colours are coded (JFIF and Adobe)."""


@dataclass(frozen=True)
class Coding:
    """Properties of the entropy-coded data of a scan.

    zeros: a long run of zeros can be data. mute: no data changes a pixel. refines: data are the last bits of
    coefficients, which may change no pixel.
    """

    zeros: bool
    mute: bool
    refines: bool


@dataclass(frozen=True)
class Stretch:
    """Entropy-coded data of a scan, from ``start`` to ``end``, between two markers."""

    start: int
    end: int
    scan: int
    coding: Coding


@dataclass
class Layout:
    """The structure of a file. ended: it has an end marker. end: the position of the marker, or the file's end.

    whole: every coefficient is sent to its last bit. short: a scan has fewer stretches than its picture needs. gaps:
    bytes between segments that belong to none. metadata: application segments that a decoder of pixels does not need.
    """

    stretches: list[Stretch] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    metadata: list[tuple[int, int]] = field(default_factory=list)
    ended: bool = False
    end: int = 0
    whole: bool = False
    short: bool = False
    progressive: bool = False


def read_layout(content: bytes) -> Layout:
    """Returns the structure of a JPEG file, read from its markers."""
    found, tables, frame = Layout(end=len(content)), _Tables(), _Frame()
    scan, restart, position = 0, 0, 2
    while marker := _MARKER.search(content, position):
        code = marker[1][0]
        found.gaps.append((position, marker.start()))
        position = marker.end()
        if code == _END:
            found.ended, found.end = True, marker.start()
            break
        if code in _QUIET:
            continue
        length = int.from_bytes(content[position : position + 2], "big")
        body, position = content[position + 2 : position + length], position + length
        if code in _FRAMES:
            frame.begin(code, body)
        elif code == _TABLES:
            tables.read(body)
        elif code == _RESTART_INTERVAL:
            restart = int.from_bytes(body[:2], "big")
        elif code in _APPLICATION and code not in _COLOUR:
            found.metadata.append((marker.start(), position))
        elif code == _SCAN:
            scan += 1
            coding = frame.scan(body, tables)
            stretches = [Stretch(start, end, scan, coding) for start, end in _stretches(content, position)]
            found.short |= bool(restart) and len(stretches) * restart < frame.num_units(body)
            found.stretches += stretches
            position = stretches[-1].end
    else:
        found.gaps.append((position, len(content)))
        found.end = position
    found.whole, found.progressive = frame.whole, frame.progressive
    return found


def _stretches(content: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Yields the entropy-coded stretches of a scan, which restart markers separate."""
    for marker in _MARKER.finditer(content, start):
        # A marker may be preceded by any number of bytes 0xFF, which are no data.
        yield start, start + len(content[start : marker.start()].rstrip(b"\xff"))
        if marker[1][0] not in _RESTART:
            return
        start = marker.end()
    yield start, start + len(content[start:].rstrip(b"\xff"))


class _Tables:
    """The Huffman tables of a file: the symbols of each, of which the first has the code of zeros alone."""

    def __init__(self) -> None:
        self._symbols: dict[int, bytes] = {}

    def read(self, body: bytes) -> None:
        """Takes a segment of tables."""
        while len(body) >= 17:
            num = sum(body[1:17])
            self._symbols[body[0]] = body[17 : 17 + num]
            body = body[17 + num :]

    def constant(self, number: int) -> bytes:
        """Returns the symbols of a table of DC coefficients."""
        return self._symbols.get(number, b"")

    def others(self, number: int) -> bytes:
        """Returns the symbols of a table of AC coefficients."""
        return self._symbols.get(0x10 | number, b"")


class _Frame:
    """The frame of a file: its coding, its size, its components, and which coefficients the scans have sent."""

    def __init__(self) -> None:
        self._code, self._height, self._width = 0, 0, 0
        self._sampling: dict[int, tuple[int, int]] = {}
        self._bits: dict[int, list[int]] = {}

    def begin(self, code: int, body: bytes) -> None:
        """Takes the header of a frame."""
        self._code = code
        self._height, self._width = (int.from_bytes(body[position : position + 2], "big") for position in (1, 3))
        components = [body[position : position + 3] for position in range(6, len(body) - 2, 3)]
        self._sampling = {number: (max(1, both >> 4), max(1, both & 15)) for number, both, _ in components}
        self._bits = {number: [-1] * 64 for number in self._sampling}

    @property
    def progressive(self) -> bool:
        """Returns whether coefficients are sent by several scans, from coarse to fine."""
        return self._code in _PROGRESSIVE

    @property
    def whole(self) -> bool:
        """Returns whether every coefficient has come to its last bit."""
        return bool(self._bits) and all(bits == [0] * 64 for bits in self._bits.values())

    def num_units(self, body: bytes) -> int:
        """Returns how many units, which restart intervals count, the scan with this header has."""
        if not self._sampling or len(body) < 2:
            return 0
        most = [max(sides) for sides in zip(*self._sampling.values(), strict=True)]
        own = self._sampling.get(body[1], (1, 1)) if body[0] == 1 else (1, 1)
        if body[0] == 1:  # one component alone: its own blocks, without those that fill up the last unit
            sides = [-(-size * by // big) for size, by, big in zip((self._width, self._height), own, most, strict=True)]
            return -(-sides[0] // 8) * -(-sides[1] // 8)
        return -(-self._width // (8 * most[0])) * -(-self._height // (8 * most[1]))

    def scan(self, body: bytes, tables: _Tables) -> Coding:
        """Takes the header of a scan; returns the properties of its data."""
        num = body[0] if body else 0
        components = [
            (body[1 + 2 * position], body[2 + 2 * position]) for position in range(num) if 2 + 2 * position < len(body)
        ]
        first, last, bits = (*body[1 + 2 * num : 4 + 2 * num], 0, 63, 0)[:3] if self.progressive else (0, 63, 0)
        for component, _ in components:
            if component in self._bits:
                self._bits[component][first : last + 1] = [bits & 15] * (min(last, 63) + 1 - first)
        refines = bits >> 4 > 0
        if self._code not in _HUFFMAN or (refines and not first):
            return Coding(zeros=True, mute=False, refines=refines)  # arithmetic coding, or bits without a code
        constant = [] if first else [tables.constant(both >> 4) for _, both in components]
        others = [tables.others(both & 15) for _, both in components] if last else []
        # Symbols below 16 are coefficients without a zero before them, and 0 is the end of a block.
        zeros = self.progressive or not any(table and 0 < table[0] < 16 for table in others)
        return Coding(zeros, all(len(table) == 1 and not table[0] & 15 for table in constant + others), refines)

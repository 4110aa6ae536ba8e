"""Reads pages of Ogg files: finds chains (complete streams, one behind the other) and the start of the last page."""

from __future__ import annotations

import io
import re
import struct
from functools import lru_cache
from typing import IO

import numpy as np

from modalities.audio.recording import File, Recording, content_of, format_change, name_of, version_of

PAGE = re.compile(rb"OggS\x00")
FIRST_PAGE = re.compile(rb"OggS\x00[\x02\x06]")
"""Matches the head of a page that begins a stream (RFC 3533, section 6: version 0, flag "beginning of stream")."""
HEAD = 27
"""Bytes of a page's head before the segment table."""
LONGEST_PAGE = HEAD + 255 + 255 * 255
NO_POSITION = -1
"""The granule position of a page on which no packet ends."""
BLOCK = 1 << 22
"""Bytes that are searched at once."""


def chain_links(file: File) -> tuple[int, ...]:
    """Returns the offsets in bytes at which the links of a chained Ogg file begin; empty for any other file.

    The whole file is read for it, and one on a disk is read once. Streams that begin together (a video and its sound)
    are one link.
    """
    with content_of(file) as content:
        if content.read(4) != b"OggS":
            return ()
    version = version_of(file)
    links = _links(file) if version is None else _cached_links(*version)
    return links if len(links) > 1 else ()


@lru_cache(maxsize=1 << 18)
def _cached_links(path: str, size: int, changed: int) -> tuple[int, ...]:
    return _links(path)


def _links(file: File) -> tuple[int, ...]:
    starts, expected = [], -1
    with content_of(file) as content:
        for offset in _first_pages(content):
            if offset != expected:
                starts.append(offset)
            content.seek(offset + HEAD - 1)
            segments = content.read(1 + 255)
            expected = offset + HEAD + segments[0] + sum(segments[1 : 1 + segments[0]]) if segments else -1
    return tuple(starts)


def _first_pages(content: IO[bytes]) -> list[int]:
    """Returns the offsets of all pages that begin a stream."""
    found, offset, tail = [], 0, b""
    content.seek(0)
    while block := content.read(BLOCK):
        searched = tail + block
        found += [offset - len(tail) + match.start() for match in FIRST_PAGE.finditer(searched)]
        tail, offset = searched[-5:], offset + len(block)  # a head may lie across two blocks
    return found


def last_page_begin(file: File) -> int:
    """Returns the number of samples before the last page of an Ogg stream; 0 if it is the only one."""
    with content_of(file) as content:
        size = content.seek(0, 2)
        content.seek(max(0, size - 3 * LONGEST_PAGE))
        tail = content.read()
    heads = [match.start() for match in PAGE.finditer(tail) if match.start() + HEAD <= len(tail)]
    positions = [struct.unpack_from("<q", tail, head + 6)[0] for head in heads]
    positions = [position for position in positions if position != NO_POSITION]
    return max(0, positions[-2]) if len(positions) > 1 else 0


class ChainedRecording:
    """Joins the links of a chained Ogg file to one recording.

    links: the recording of each link, in order. Raises SoundError if they differ in rate or channels.
    """

    def __init__(self, file: File, links: list[Recording]) -> None:
        self.file, self._links = file, links
        self.rate, self.channels = links[0].rate, links[0].channels
        self.frames = sum(link.frames for link in links)
        for link in links[1:]:
            if (link.rate, link.channels) != (self.rate, self.channels):
                self.close()
                raise format_change(file, (self.rate, self.channels), (link.rate, link.channels))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns frames as ``Recording.read``."""
        found, begin = [np.empty((0, self.channels), np.float32)], 0
        for link in self._links:
            first, last = max(start, begin), min(stop, begin + link.frames)
            if last > first:
                part = link.read(first - begin, last - begin)
                found.append(part)
                if len(part) < last - first:  # samples behind a gap would lie at wrong positions
                    break
            begin += link.frames
        return np.concatenate(found)

    def close(self) -> None:
        """Closes the file."""
        for link in self._links:
            link.close()


def link_contents(file: File, starts: tuple[int, ...]) -> list[IO[bytes]]:
    """Returns the content of each link as a file in memory that bears the whole file's name."""
    contents: list[IO[bytes]] = []
    with content_of(file) as content:
        content.seek(0, 2)
        ends = (*starts[1:], content.tell())
        for start, end in zip(starts, ends, strict=True):
            content.seek(start)
            link = io.BytesIO(content.read(end - start))
            link.name = name_of(file)
            contents.append(link)
    return contents

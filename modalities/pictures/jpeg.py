"""Finds damage in JPEG files that decoders do not report: data that are missing, or replaced by zeros.

A decoder that runs out of data fills the rest with grey, and one that reads zeros decodes them as coefficients; neither
raises an error. This module finds such files by their structure, without decoding them in Python. If the structure
leaves a doubt, it asks the decoder: data that lie after the last block of a picture can be changed without changing a
pixel, and data inside it cannot.
"""

from __future__ import annotations

import io
import re

from PIL import Image

from modalities.pictures.jpeg_layout import Layout, Stretch, read_layout

END = b"\xff\xd9"
CUT = "it is cut short: its pixels end before the picture does"
ZEROED = "it is damaged: zeros stand in place of a part of its pixels"
LONGEST_ZEROS = 64
"""Runs of so many zero bytes are examined. Zeros are the code of the most frequent symbol: in flat pictures of the end
of a block, so that their data can be zeros throughout; but if it is the smallest coefficient, 512 bits of zeros are a
whole block of 63 equal ones, which no picture has."""
LONGEST_ZEROS_AT_END = 4
"""The same at the end of a file without an end marker: encoders fill the last byte with ones."""
PATTERNS = tuple(bytes(pattern) * 22 for pattern in ((0xAA,) * 3, (0x92, 0x49, 0x24), (0x55,) * 3, (0x6D, 0xB6, 0xDB)))
"""Bytes that do not decode to flat blocks, whatever the lengths of codes are."""
NUM_BYTES_TRIED = 8
MAX_STRETCHES_TRIED = 4

_ZEROS = re.compile(rb"\0+")


def check_structure(content: bytes) -> bytes:
    """Returns the file's bytes, with an end marker if only that is missing.

    Raises ValueError for a file that is cut short, or in which zeros stand in place of data.
    """
    found = read_layout(content)
    if any(bytes(LONGEST_ZEROS) in content[start:end] for start, end in found.gaps):
        raise ValueError("it is damaged: zeros stand where a segment should begin")
    whole = content if found.ended else content[: found.end] + END
    _check_zeros(content, whole, found)
    if found.short or not found.whole or (not found.ended and is_cut(whole, found.stretches[-1])):
        raise ValueError(CUT)
    return whole


def check_pixels(content: bytes, picture: Image.Image, thorough: bool) -> None:
    """Raises ValueError if a decoder has run out of data before the end marker.

    content: a file that ``check_structure`` has returned. picture: its decoded pixels, of which the last are grey where
    data of the first scan are missing. Where data of a later scan of a progressive file are missing, details are
    missing: these are found by decoding twice more, if ``thorough``.
    """
    found = read_layout(content)
    if thorough and found.progressive and is_cut(content, found.stretches[-1]):
        raise ValueError(CUT)
    # Of the last block, and apart from what smooth enlarging of colours mixes in from the blocks before it.
    left, top = (max(8 * ((side - 1) // 8), side - 4) for side in picture.size)
    corner = picture.crop((left, top, *picture.size))
    if not set(corner.tobytes()) <= {127, 128}:
        return
    if is_cut(content, [stretch for stretch in found.stretches if stretch.scan == 1][-1]):
        raise ValueError(CUT)


def without_metadata(content: bytes) -> bytes:
    """Returns the file without application segments, except those that say how colours are coded."""
    kept, position = [], 0
    for start, end in read_layout(content).metadata:
        kept.append(content[position:start])
        position = end
    return b"".join([*kept, content[position:]])


def _check_zeros(content: bytes, whole: bytes, found: Layout) -> None:
    """Raises ValueError if zeros stand in place of entropy-coded data."""
    doubtful = []
    for stretch in found.stretches:
        zeros = _longest_zeros(content, stretch, found)
        if zeros and not (stretch.coding.zeros and found.whole):
            raise ValueError(ZEROED)
        if zeros and not stretch.coding.mute:
            doubtful.append((zeros, stretch))
    doubtful.sort(key=lambda each: -each[0])
    for _, stretch in doubtful[:MAX_STRETCHES_TRIED]:
        if is_cut(whole, stretch) or (not stretch.coding.refines and has_surplus(whole, stretch)):
            raise ValueError(ZEROED)


def _longest_zeros(content: bytes, stretch: Stretch, found: Layout) -> int:
    """Returns the length of the longest run of zeros that is too long for a stretch; 0 if none is."""
    runs, position = [], stretch.start
    while (position := content.find(bytes(LONGEST_ZEROS), position, stretch.end)) >= 0:
        run = _ZEROS.match(content, position, stretch.end)
        assert run is not None
        runs.append(len(run[0]))
        position = run.end()
    if not found.ended and stretch.end == found.end:
        last = stretch.end - len(content[stretch.start : stretch.end].rstrip(b"\0")) - stretch.start
        runs += [last] if last >= LONGEST_ZEROS_AT_END else []
    return max(runs, default=0)


def is_cut(content: bytes, stretch: Stretch) -> bool:
    """Returns whether a stretch ends before its blocks do: then bytes that are added behind it change pixels."""
    pixels = _pixels(content)
    ends = (content[: stretch.end] + pattern + content[stretch.end :] for pattern in PATTERNS[:2])
    return any(_pixels(end) != pixels for end in ends)


def has_surplus(content: bytes, stretch: Stretch) -> bool:
    """Returns whether the blocks of a stretch end before its data do: then no pixel depends on its last bytes."""
    pixels, start = _pixels(content), max(stretch.start, stretch.end - NUM_BYTES_TRIED)
    while start > stretch.start and content[start - 1] == 0xFF:
        start -= 1  # a byte 0xFF and the zero behind it belong together
    num = stretch.end - start
    return all(_pixels(content[:start] + pattern[:num] + content[stretch.end :]) == pixels for pattern in PATTERNS)


def _pixels(content: bytes) -> bytes | None:
    """Returns the decoded pixels, None if the decoder refuses."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return picture.tobytes()
    except Exception:
        return None

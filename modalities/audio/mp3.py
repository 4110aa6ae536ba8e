"""Reads the length of an MP3 from the tag in its first frame."""

from __future__ import annotations

import struct
from typing import IO

from modalities.audio.recording import File, content_of

DECODER_DELAY = 529
"""Samples of delay of every MP3 decoder; gapless players skip them besides the encoder's own delay."""
GAPLESS_ENCODERS = (b"LAME", b"Lavf", b"Lavc")
"""Encoders that write their delay and padding into the tag, by FFmpeg's list."""
TRAILER = 4096
"""Bytes by which a file may be longer than its tag says: it does not count tags at the end (ID3v1, Lyrics3, APE)."""


def promised_samples(file: File) -> int | None:
    """Returns the number of samples by an MP3's own tag, without encoder delay and padding.

    Returns None if there is no reliable tag: it is missing, lacks the number of frames or bytes (a stream that was not
    finished), or the file is longer than it says (two joined files). Source: the Xing and LAME tags as
    described by G. Smith and by LAME's tag specification, revision 1.
    """
    with content_of(file) as content:
        begin = _end_of_id3(content)
        content.seek(begin)
        frame = content.read(256)
        content.seek(0, 2)
        size = content.tell() - begin
    if not is_frame(frame):
        return None
    version = frame[1] >> 3 & 3  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    mono = frame[3] >> 6 == 3
    tag = 4 + ({True: 17, False: 32} if version == 3 else {True: 9, False: 17})[mono]
    if frame[1] >> 1 & 3 != 1 or frame[tag : tag + 4] not in (b"Xing", b"Info") or len(frame) < tag + 144:
        return None
    flags, frames, num_bytes = struct.unpack(">III", frame[tag + 4 : tag + 16])
    if flags & 3 != 3 or frames == 0 or num_bytes == 0 or size > num_bytes + TRAILER:
        return None
    samples = frames * (1152 if version == 3 else 576)
    # The encoder's name follows the table of contents (100 bytes) and the quality (4), each where it is flagged.
    encoder = tag + 16 + (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
    if frame[encoder : encoder + 4] not in GAPLESS_ENCODERS:
        return samples
    delays = int.from_bytes(frame[encoder + 21 : encoder + 24], "big")
    delay, padding = delays >> 12, delays & 0xFFF
    return max(0, samples - delay - DECODER_DELAY - max(0, padding - DECODER_DELAY))


def is_frame(content: bytes) -> bool:
    """Returns true if these bytes begin with the header of an MPEG audio frame."""
    if len(content) < 4 or content[0] != 0xFF or content[1] & 0xE0 != 0xE0:
        return False
    layer, bit_rate, sample_rate = content[1] >> 1 & 3, content[2] >> 4, content[2] >> 2 & 3
    return layer != 0 and bit_rate != 15 and sample_rate != 3


def _end_of_id3(content: IO[bytes]) -> int:
    """Returns the offset behind the ID3v2 tags at the start; their sizes are in bytes of seven bits."""
    begin = 0
    while True:
        content.seek(begin)
        head = content.read(10)
        if len(head) < 10 or head[:3] != b"ID3":
            return begin
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte & 0x7F
        begin += 10 + size + (10 if head[5] & 0x10 else 0)

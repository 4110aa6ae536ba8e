"""Checks the chunk sizes of a WAV's header before a decoder allocates memory for them."""

from __future__ import annotations

import struct
from typing import IO

MAX_CHUNKS = 1000
HARMLESS = 1 << 20
"""Bytes that a decoder may allocate in vain."""


def claims_too_much(content: IO[bytes]) -> bool:
    """Returns true if a chunk before the samples claims far more bytes than the file has; false for other files."""
    size = content.seek(0, 2)
    content.seek(0)
    head = content.read(12)
    if head[:4] not in (b"RIFF", b"RF64", b"RIFX") or head[8:12] != b"WAVE":
        return False
    order = ">" if head[:4] == b"RIFX" else "<"
    for _ in range(MAX_CHUNKS):
        chunk = content.read(8)
        if len(chunk) < 8 or chunk[:4] == b"data":  # a program that writes to a pipe leaves its length open
            return False
        (length,) = struct.unpack(f"{order}I", chunk[4:])
        if content.tell() + length > size + HARMLESS:
            return True
        content.seek(length + length % 2, 1)
    return True

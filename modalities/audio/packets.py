"""Finds positions in files without an index, by counting the samples of packets from the start."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import av

from modalities.audio.mp3 import is_frame

SKIP_SAMPLES = "skip_samples"
"""FFmpeg's name for the side data of a packet that says how many samples to skip at its start and end."""
MPEG = ("mp3float", "mp3")


def decode_all(container: Any, stream: Any) -> Iterator[tuple[int, Any]]:
    """Yields the position of its first sample and each frame of a container that stands at its start.

    Undecodable bytes at the end (half a packet, padding) are ignored, as by the program ``ffmpeg``. Raises FFmpegError
    if more can be decoded behind undecodable bytes: its position would not be known.
    """
    position, problem = 0, None
    for packet in container.demux(stream):
        try:
            frames = stream.codec_context.decode(packet)
        except av.error.FFmpegError as error:
            problem = problem or error
            continue
        for frame in frames:
            if problem is not None:
                raise problem
            yield position, frame
            position += frame.samples


def decode_from(container: Any, stream: Any, begin: float) -> Iterator[tuple[int, Any]]:
    """Yields positions and frames as ``decode_all``, but decodes no packet that ends at or before ``begin``.

    A packet that cannot be decoded leaves a gap of its own length.
    """
    for packet, _, last in _packets(container, stream):
        if last <= begin:
            continue
        with suppress(av.error.FFmpegError):
            frames = stream.codec_context.decode(packet)
            position = last - sum(frame.samples for frame in frames)
            for frame in frames:
                yield position, frame
                position += frame.samples


def count_samples(container: Any, stream: Any) -> int:
    """Returns the number of samples of a container that stands at its start; decodes its last packet alone.

    A packet that the end of the file cuts does not count, as for the program ``ffmpeg``.
    """
    final, first, last = None, 0, 0
    for final, first, last in _packets(container, stream):  # noqa: B007
        pass
    if final is None:
        return 0
    try:
        stream.codec_context.decode(final)
    except av.error.FFmpegError:
        return first
    return last


def _packets(container: Any, stream: Any) -> Iterator[tuple[Any, int, int]]:
    """Yields each packet with the positions of the first and last + 1 sample that a decoder returns of it."""
    samples = stream.time_base * stream.rate
    numerator, denominator = samples.numerator, samples.denominator  # fractions would cost more than FFmpeg's work
    checks = stream.codec_context.name in MPEG
    position = skipped = 0
    for packet in container.demux(stream):
        if not packet.size or (checks and not is_frame(bytes(packet)[:4])):  # a tag between two joined files
            continue
        num = ((packet.duration or 0) * numerator + denominator // 2) // denominator
        begin, end = _read_skipped(packet)
        skipped = begin or skipped
        kept = max(0, num - skipped)
        skipped -= num - kept
        kept = kept - end if end <= kept else kept
        yield packet, position, position + kept
        position += kept


def _read_skipped(packet: Any) -> tuple[int, int]:
    """Returns how many samples a decoder skips at the start, over several packets, and at the packet's end."""
    if not packet.has_sidedata(SKIP_SAMPLES):
        return 0, 0
    begin, end = struct.unpack_from("<II", bytes(packet.get_sidedata(SKIP_SAMPLES)))
    return begin, end

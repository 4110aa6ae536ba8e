"""Places of samples in files without an index: packets of FFmpeg, counted from the start of the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import av

from modalities.audio.mp3 import is_frame

SKIP_SAMPLES = "skip_samples"
"""FFmpeg's name for what a packet carries beside its content: samples to leave out at its start and at its end."""
MPEG = ("mp3float", "mp3")


def decode_all(container: Any, stream: Any) -> Iterator[tuple[int, Any]]:
    """Yields the place of its first sample and each frame of a container that stands at its start.

    What cannot be decoded at the end (half a packet, padding) is no sample, as for the program ``ffmpeg``. Raises
    FFmpegError where more can be decoded behind it: the places after it would not be known.
    """
    place, problem = 0, None
    for packet in container.demux(stream):
        try:
            frames = stream.codec_context.decode(packet)
        except av.error.FFmpegError as error:
            problem = problem or error
            continue
        for frame in frames:
            if problem is not None:
                raise problem
            yield place, frame
            place += frame.samples


def decode_from(container: Any, stream: Any, begin: float) -> Iterator[tuple[int, Any]]:
    """Yields places and frames as ``decode_all``, but decodes no packet that ends at or before ``begin``.

    A packet that cannot be decoded leaves a gap of its own length.
    """
    for packet, _, last in _packets(container, stream):
        if last <= begin:
            continue
        with suppress(av.error.FFmpegError):
            frames = stream.codec_context.decode(packet)
            place = last - sum(frame.samples for frame in frames)
            for frame in frames:
                yield place, frame
                place += frame.samples


def count_samples(container: Any, stream: Any) -> int:
    """Returns the number of samples of a container that stands at its start; only its last packet is decoded.

    A packet that the end of the file cuts is no sample, as for the program ``ffmpeg``.
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
    """Yields each packet with the places of its first and last + 1 sample that a decoder lets through."""
    samples = stream.time_base * stream.rate
    above, below = samples.numerator, samples.denominator  # fractions would cost more than FFmpeg's own work
    checks = stream.codec_context.name in MPEG
    place = left_out = 0
    for packet in container.demux(stream):
        if not packet.size or (checks and not is_frame(bytes(packet)[:4])):  # a tag between two joined files
            continue
        num = ((packet.duration or 0) * above + below // 2) // below
        begin, end = _skipped(packet)
        left_out = begin or left_out
        heard = max(0, num - left_out)
        left_out -= num - heard
        heard = heard - end if end <= heard else heard
        yield packet, place, place + heard
        place += heard


def _skipped(packet: Any) -> tuple[int, int]:
    """Returns how many samples a decoder leaves out at the start, over several packets, and at the packet's end."""
    if not packet.has_sidedata(SKIP_SAMPLES):
        return 0, 0
    begin, end = struct.unpack_from("<II", bytes(packet.get_sidedata(SKIP_SAMPLES)))
    return begin, end

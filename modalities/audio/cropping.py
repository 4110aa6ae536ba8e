"""Finds the part of a recording between the silence at its ends, without reading its middle."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from modalities.audio.levels import HOP, frame_power
from modalities.audio.reading import open_recording, read_frames
from modalities.audio.recording import Recording, SoundError, version_of

ENDS = 15.0
"""Seconds at either end of a file that are examined; a file that is shorter than both together is examined whole."""


def read_ends(recording: Recording) -> list[np.ndarray]:
    """Returns a recording's frames ``(n, C)``, or those of its first and last ``ENDS`` s; raises as ``read_frames``."""
    num = round(ENDS * recording.rate)
    if recording.frames <= 2 * num:
        return [read_frames(recording, 0, recording.frames)]
    return [read_frames(recording, 0, num), read_frames(recording, recording.frames - num, recording.frames)]


def find_sounding_part(recording: Recording, decibels: float | None) -> tuple[int, int]:
    """Returns the first and last + 1 frame of a recording without the silence at its ends; the whole for None.

    Silence lies more than so many dB below the loudest frame, as in ``librosa.effects.trim``. If the file is longer
    than 30 s, it is looked for in the first and last 15 s, and no more than those are left out. The result for a file
    on a disk is kept. Raises SoundError for a file that is silent from end to end.
    """
    if decibels is None:
        return 0, recording.frames
    version = version_of(recording.file)
    return _search_sound(recording, decibels) if version is None else _cached_search(*version, decibels)


@lru_cache(maxsize=1 << 18)
def _cached_search(path: str, size: int, changed: int, decibels: float) -> tuple[int, int]:
    with open_recording(path) as recording:
        return _search_sound(recording, decibels)


def _search_sound(recording: Recording, decibels: float) -> tuple[int, int]:
    parts = read_ends(recording)
    powers = [frame_power(torch.from_numpy(part.T)) for part in parts]
    loudest = max(power.max().item() for power in powers)
    if loudest == 0 and len(parts) == 1:
        raise SoundError(recording.file, "silent", "is silent from end to end: remove it, or set modality.trim=null")
    above = [(power > loudest * 10 ** (-decibels / 10)).nonzero().flatten() for power in powers]
    first = int(above[0][0]) * HOP if len(above[0]) else len(parts[0])
    left = (int(above[-1][-1]) + 1) * HOP if len(above[-1]) else 0
    return first, min(recording.frames, recording.frames - len(parts[-1]) + left)

"""Sounds as files, with what they were made by inside: WAV, FLAC, Ogg Vorbis, MP3."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from modalities.audio.levels import limit_peak
from modalities.audio.reading import FFMPEG, open_recording
from modalities.audio.recording import decoder_errors, suffix_of
from scm_media.weights import write_whole

FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
BITS = (16, 24, 32)
"""Of a sample in WAV and FLAC; 32 are a floating-point number in WAV, and 24 bits in FLAC, which has none."""
LOSSY = {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}
COMPRESSION = 0.1
"""Of what is lossy, from 0 (largest files) to 1: Vorbis at quality 9, MP3 at variable rate 1."""
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
KEY = "scm_media"
"""Of the object in the comment field under which our metadata stand."""
BLOCK = 1 << 16
"""Frames that are encoded at once: libvorbis takes memory on the stack for all that it is given."""


def write_sound(path: Path, sample: Tensor, rate: int, bits: int, metadata: Mapping[str, Any]) -> str | None:
    """Writes ``(C, T)`` whole or not at all, the metadata as JSON in the comment field; says what was changed of it.

    A peak above 1 is limited: the whole sound is turned down, and that is what is said. Integers are rounded, full
    scale being 2^(bits − 1), so that what was read from such a file is written back to the bit. Raises ValueError for
    samples that are not finite, another suffix, and a rate that the format does not have.
    """
    if sample.ndim != 2 or sample.shape[0] not in (1, 2) or not sample.shape[1]:
        raise ValueError(f"a sound is (1, T) or (2, T), got {tuple(sample.shape)}")
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: sounds are written as {', '.join(FORMATS)}")
    if kind == "MP3" and rate not in MP3_RATES:
        known = ", ".join(map(str, MP3_RATES))
        raise ValueError(
            f"{path}: an MP3 has one of the rates {known} Hz, the sound has {rate}; write WAV, FLAC or OGG"
        )
    sample = sample.detach().float().cpu()
    if not bool(torch.isfinite(sample).all()):
        raise ValueError(f"{path}: a sample is not finite (NaN or infinity), so that no sound can be made of it")
    sample, peak = limit_peak(sample)
    write_whole(path, _encode(sample, rate, kind, bits, json.dumps({KEY: dict(metadata)})))
    if peak <= 1:
        return None
    return f"peak {peak:.3g} ({20 * math.log10(peak):+.1f} dBFS) was limited: the whole sound is turned down to 1"


def _encode(sample: Tensor, rate: int, kind: str, bits: int, comment: str) -> bytes:
    frames, subtype = _quantise(sample, kind, bits)
    content = io.BytesIO()
    quality = {"compression_level": COMPRESSION} if kind in LOSSY else {}
    quality |= {"bitrate_mode": "VARIABLE"} if kind == "MP3" else {}
    with soundfile.SoundFile(content, "w", rate, frames.shape[1], subtype, format=kind, **quality) as sound:
        sound.comment = comment
        for start in range(0, len(frames), BLOCK):
            sound.write(frames[start : start + BLOCK])
    return content.getvalue()


def _quantise(sample: Tensor, kind: str, bits: int) -> tuple[np.ndarray, str]:
    """Frames ``(T, C)`` as the format takes them, and what libsndfile calls such samples."""
    frames = sample.T.contiguous()
    if kind in LOSSY:
        return frames.numpy(), LOSSY[kind]
    if bits == 32 and kind == "WAV":
        return frames.numpy(), "FLOAT"
    bits = min(bits, 24)
    full = 1 << (bits - 1)
    # In 64 bits: 32 hold 24 of a mantissa, which is one too few to round half of a step.
    whole = (frames.double() * full).round().clamp(-full, full - 1)
    if bits == 16:
        return whole.to(torch.int16).numpy(), "PCM_16"
    return (whole.to(torch.int32) << 8).numpy(), "PCM_24"


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Returns the metadata that ``AudioModality.write`` put into a file; empty for a sound without.

    Raises ValueError for a file that is no sound.
    """
    with open_recording(path):
        pass
    for comment in _comments(path):
        try:
            told = json.loads(comment)
        except ValueError:
            continue
        if isinstance(told, dict) and isinstance(told.get(KEY), dict):
            return told[KEY]
    return {}


def _comments(path: str | Path) -> list[str]:
    if suffix_of(path) in FFMPEG:
        return _comments_by_ffmpeg(path)
    try:
        with soundfile.SoundFile(str(path)) as sound:
            found = [sound.comment]
    except RuntimeError:
        found = []
    # libsndfile gives no comment of a WAV that is longer than some thousand letters; FFmpeg does.
    return found if any(found) else _comments_by_ffmpeg(path)


def _comments_by_ffmpeg(path: str | Path) -> list[str]:
    import av

    with decoder_errors(path), av.open(str(path)) as container:
        entries = [*container.metadata.items(), *(pair for own in container.streams for pair in own.metadata.items())]
    return [text for key, text in entries if key.lower() == "comment"]

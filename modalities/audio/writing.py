"""Writes sounds with their metadata inside as WAV, FLAC, Ogg Vorbis or MP3, and reads the metadata."""

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
from scm_media.reading import find_metadata
from scm_media.weights import write_whole

FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
BITS = (16, 24, 32)
"""Bits of a sample in WAV and FLAC; 32 stands for floating point in WAV, and for 24 in FLAC, which has none."""
LOSSY = {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}
COMPRESSION = 0.1
"""Compression of lossy formats, from 0 (largest files) to 1: Vorbis at quality 9, MP3 at variable rate 1."""
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
KEY = "scm_media"
"""Key of our metadata in the JSON object of the comment field."""
BLOCK = 1 << 16
"""Frames that are encoded at once: libvorbis puts a whole block on the stack."""


def write_sound(path: Path, sample: Tensor, rate: int, bits: int, metadata: Mapping[str, Any]) -> str | None:
    """Writes ``(C, T)`` whole or not at all, with the metadata as JSON in the comment field.

    A sound with a peak above 1 is scaled down as a whole; returns a sentence that says so, else None. Integers are
    rounded with a full scale of 2^(bits − 1), so that samples of such a file are written back bit for bit. Raises
    ValueError for samples that are not finite, another suffix, and a rate that the format does not have.
    """
    if sample.ndim != 2 or sample.shape[0] not in (1, 2) or not sample.shape[1]:
        raise ValueError(f"a sound is (1, T) or (2, T), got {tuple(sample.shape)}")
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: sounds are written as {', '.join(FORMATS)}")
    if kind == "MP3" and rate not in MP3_RATES:
        rates = ", ".join(map(str, MP3_RATES))
        raise ValueError(
            f"{path}: an MP3 has one of the rates {rates} Hz, the sound has {rate}; write WAV, FLAC or OGG"
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
    """Returns frames ``(T, C)`` in the format's own type, and libsndfile's name of the type."""
    frames = sample.T.contiguous()
    if kind in LOSSY:
        return frames.numpy(), LOSSY[kind]
    if bits == 32 and kind == "WAV":
        return frames.numpy(), "FLOAT"
    bits = min(bits, 24)
    full = 1 << (bits - 1)
    # In float64: the 24 bits of a float32's mantissa are one too few to round half a step.
    whole = (frames.double() * full).round().clamp(-full, full - 1)
    if bits == 16:
        return whole.to(torch.int16).numpy(), "PCM_16"
    return (whole.to(torch.int32) << 8).numpy(), "PCM_24"


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Returns the metadata that ``AudioModality.write`` put into a file; an empty dictionary for a sound without.

    Raises ValueError for a file that is no sound.
    """
    with open_recording(path):
        pass
    return find_metadata(_comments(path), KEY)


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

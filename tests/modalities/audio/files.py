"""Sound files of every kind, written for tests: WAVs byte by byte, the rest by libsndfile and FFmpeg."""

from __future__ import annotations

import struct
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

PCM, FLOAT = 1, 3


def tone(
    rate: int, seconds: float = 1.0, frequency: float = 440.0, level: float = 0.5, channels: int = 1
) -> np.ndarray:
    """A sine ``(T, channels)`` float32; every channel a little softer than the one before."""
    wave = level * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)
    return np.stack([wave / (1 + place) for place in range(channels)], axis=1).astype(np.float32)


def wav(
    content: bytes, rate: int = 22050, channels: int = 1, kind: int = PCM, bits: int = 16, size: int | None = None
) -> bytes:
    """A WAV around these bytes; size: what its header says that they are."""
    size = len(content) if size is None else size
    frame = channels * bits // 8
    header = struct.pack("<HHIIHH", kind, channels, rate, rate * frame % (1 << 32), frame, bits)
    riff = struct.pack("<I", min(36 + size, 0xFFFFFFFF))
    return b"RIFF" + riff + b"WAVEfmt \x10\0\0\0" + header + b"data" + struct.pack("<I", size) + content


def sixteen(frames: np.ndarray) -> bytes:
    """Frames in [-1, 1] as 16-bit samples."""
    return np.round(frames * 32767).astype("<i2").tobytes()


def by_libsndfile(path: Path, frames: np.ndarray, rate: int, kind: str, subtype: str) -> Path:
    """Writes frames ``(T, C)`` as one of libsndfile's formats."""
    with soundfile.SoundFile(path, "w", rate, frames.shape[1], subtype, format=kind) as file:
        for start in range(0, len(frames), 1 << 16):  # libvorbis crashes on minutes at once
            file.write(frames[start : start + (1 << 16)])
    return path


def by_ffmpeg(path: Path, frames: np.ndarray, rate: int, codec: str, container: str, **options: str) -> Path:
    """Writes frames ``(T, C)``, one or two channels, as one of FFmpeg's formats; options: of codec and container."""
    layout = {1: "mono", 2: "stereo"}[frames.shape[1]]
    experimental = {"strict": "experimental"} if codec in ("vorbis", "opus") else {}
    with av.open(str(path), "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout, options={**experimental, **options})
        if codec in ("aac", "wmav1", "wmav2"):
            stream.bit_rate = 96000 * frames.shape[1]
        if codec == "aac":
            stream.options = {"aac_coder": "fast", **options}
        stream.codec_context.format = av.codec.Codec(codec, "w").audio_formats[0]
        stream.codec_context.open()
        whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(frames.T), format="fltp", layout=layout)
        whole.sample_rate, whole.pts = rate, 0
        to_codec, waiting = av.AudioResampler(format=stream.codec_context.format), av.AudioFifo()
        for frame in to_codec.resample(whole):
            waiting.write(frame)
        place = 0  # the encoder's delay is written to the file where its frames have time stamps
        while frame := waiting.read(stream.codec_context.frame_size or 1024, partial=True):
            frame.pts, frame.time_base = place, Fraction(1, rate)
            place += frame.samples
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def whole(path: Path) -> np.ndarray:
    """FFmpeg's decode of all of a file, ``(T, C)``: delays and edit lists applied, broken packets passed over."""
    raw, found = "g722" if path.suffix == ".g722" else None, []
    with av.open(str(path), format=raw) as container:
        stream, to_float = container.streams.audio[0], av.AudioResampler(format="fltp")
        for packet in container.demux(stream):
            with suppress(av.error.FFmpegError):
                found += stream.codec_context.decode(packet)
        return np.concatenate([part.to_ndarray().T for frame in found for part in to_float.resample(frame)])


def amplitude_at(wave: np.ndarray, rate: int, frequency: float) -> float:
    """The amplitude of the sine of this frequency in ``(T,)``, over a whole number of its periods."""
    periods = int(len(wave) * frequency / rate)
    num = round(periods * rate / frequency)
    turns = np.exp(-2j * np.pi * frequency * np.arange(num) / rate)
    return float(2 * abs(np.mean(wave[:num] * turns)))

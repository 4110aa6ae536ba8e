"""Every container and codec of sound that FFmpeg (as PyAV bundles it) writes: read as FFmpeg itself decodes the whole.

For each entry the number of samples equals that of FFmpeg's decode of the whole file, and windows at the start, in the
middle and at the end hold the same samples. Most agree to the bit. Where libsndfile decodes, another decoder than
FFmpeg's rounds elsewhere: TOLERANCE says by how much.
"""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from modalities.audio.reading import SUFFIXES, open_recording, read_frames
from tests.modalities.audio.files import by_ffmpeg, by_libsndfile, whole

PCM = "pcm_u8 pcm_s16le pcm_s24le pcm_s32le pcm_f32le pcm_f64le pcm_alaw pcm_mulaw"
BIG_ENDIAN = "pcm_s8 pcm_s16be pcm_s24be pcm_s32be pcm_f32be pcm_f64be pcm_alaw pcm_mulaw"
IN_WAV = (
    f"{PCM} pcm_s64le adpcm_ms adpcm_ima_wav adpcm_swf adpcm_yamaha g722 g726 mp2 libmp3lame ac3 eac3 flac dfpwm "
    "libopencore_amrnb wmav1 wmav2"
)
IN_MP4 = (
    "aac alac ac3 eac3 mp2 libmp3lame libopus opus flac vorbis pcm_s16le pcm_s16be pcm_s24le pcm_s24be pcm_s32le "
    "pcm_s32be pcm_f32le pcm_f32be pcm_f64le pcm_f64be"
)
IN_MOV = "adpcm_ima_qt nellymoser libopencore_amrnb pcm_alaw pcm_mulaw pcm_s8 pcm_u8"
MUXERS = {  # name of the file to FFmpeg's format and the codecs that it takes
    "a.wav": ("wav", IN_WAV),
    "a.wave": ("wav", "pcm_s16le"),
    "a.rf64": ("wav", IN_WAV),
    "a.w64": ("w64", IN_WAV),
    "a.aif": ("aiff", "pcm_s16be"),
    "a.aiff": ("aiff", f"{BIG_ENDIAN} pcm_u8 adpcm_ima_qt"),
    "a.aifc": ("aiff", "pcm_s16le"),
    "a.au": ("au", f"{BIG_ENDIAN} g722 g726le"),
    "a.caf": (
        "caf",
        f"{BIG_ENDIAN} pcm_s16le pcm_s24le pcm_s32le pcm_f32le pcm_f64le alac ac3 adpcm_ima_qt adpcm_ima_wav adpcm_ms "
        "flac libmp3lame mp2 libopencore_amrnb",
    ),
    "a.flac": ("flac", "flac"),
    "a.ogg": ("ogg", "vorbis flac libopus opus"),
    "a.oga": ("oga", "vorbis flac libopus opus"),
    "a.opus": ("opus", "libopus opus"),
    "a.mp3": ("mp3", "libmp3lame"),
    "a.m4a": ("ipod", "aac alac ac3"),
    "mp4.m4a": ("mp4", IN_MP4),
    "mov.m4a": ("mov", IN_MOV),
    "a.aac": ("adts", "aac"),
    "latm.aac": ("latm", "aac"),
    "a.g722": ("g722", "g722"),
    "a.wma": ("asf", "wmav1 wmav2 aac ac3 flac g722 libmp3lame vorbis pcm_s16le adpcm_ms"),
}
MP3_KINDS = {  # options of FFmpeg's MP3s: constant and variable bit rates, with and without a tag, the lowest rates
    "cbr-tagged": {},
    "cbr-untagged": {"write_xing": "0", "id3v2_version": "0"},
    "vbr-tagged": {"abr": "1"},
    "vbr-untagged": {"abr": "1", "write_xing": "0"},
}
RATES = {  # Hz and channels of codecs that do not take what the others do
    **dict.fromkeys(("libopus", "opus"), (48000, 2)),
    **dict.fromkeys(("g722",), (16000, 1)),
    **dict.fromkeys(("g726", "g726le", "libopencore_amrnb"), (8000, 1)),
    "nellymoser": (44100, 1),
}
TOLERANCE = {  # of full scale, where libsndfile decodes; 0 where FFmpeg does
    ("AIFF", "IMA_ADPCM"): 1 / 128,  # libsndfile starts each block from the 9 bits of its header, as Apple does not
    **dict.fromkeys([("WAV", "IMA_ADPCM"), ("W64", "IMA_ADPCM")], 2e-3),  # releases of FFmpeg round differently
    **{(kind, "PCM_32"): 1e-7 for kind in ("WAVEX", "RF64", "W64", "AIFF", "AU", "CAF")},  # 32 bits in floats of 24
    ("OGG", "VORBIS"): 1e-6,
    ("OGG", "OPUS"): 1e-4,  # the reference decoder against FFmpeg's
}
ENTRIES = [(name, muxer, codec, {}) for name, (muxer, codecs) in MUXERS.items() for codec in codecs.split()]
ENTRIES += [(f"{kind}.mp3", "mp3", "libmp3lame", options) for kind, options in MP3_KINDS.items()]


def wave(rate: int, channels: int, seconds: float = 1.3) -> np.ndarray:
    """A sweep with an attack in its first samples and hiss below it, ``(T, channels)``, of an odd length."""
    time = np.arange(round(seconds * rate) | 1) / rate
    hiss = np.random.default_rng(0).standard_normal((len(time), channels))
    loudness = 0.3 + 0.5 * np.exp(-time / 0.02)
    return (loudness * np.cos(2 * np.pi * (150 + 500 * time) * time))[:, None].astype(np.float32) + np.float32(
        0.02
    ) * hiss.astype(np.float32)


def tolerance(path) -> float:
    try:
        with soundfile.SoundFile(path) as sound:
            return TOLERANCE.get((sound.format, sound.subtype), 0.0)
    except RuntimeError:
        return 0.0


def check(path):
    expected, allowed = whole(path), tolerance(path)
    with open_recording(path) as recording:
        assert recording.frames == len(expected)
        middle, num = recording.frames // 2, min(2000, recording.frames)
        for start in (0, middle, recording.frames - num):
            stop = min(start + num, recording.frames)
            error = np.abs(read_frames(recording, start, stop) - expected[start:stop]).max()
            assert error <= allowed, (start, error)
    for start in (middle, recording.frames - 100):  # a window alone, as training reads it
        with open_recording(path) as recording:
            assert np.abs(read_frames(recording, start, start + 100) - expected[start : start + 100]).max() <= allowed


def test_every_suffix_is_tried_here():
    assert {f".{name.rpartition('.')[2]}" for name in MUXERS} == SUFFIXES


@pytest.mark.parametrize(("name", "muxer", "codec", "options"), ENTRIES, ids=[f"{e[0]}-{e[2]}" for e in ENTRIES])
def test_samples_are_those_of_ffmpegs_own_decode(tmp_path, name, muxer, codec, options):
    rate, channels = RATES.get(codec, (44100, 2))
    if name.endswith(".rf64"):
        options = {"rf64": "always"}
    check(by_ffmpeg(tmp_path / name, wave(rate, channels), rate, codec, muxer, **options))


def test_gsm_in_wav(tmp_path):
    check(by_libsndfile(tmp_path / "a.wav", wave(8000, 1), 8000, "WAV", "GSM610"))

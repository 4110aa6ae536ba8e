"""Targets that read pictures, sounds and videos."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from benchmarks.fuzzing.target import FileTarget


class Pictures(FileTarget):
    """Reads, resizes and validates pictures of every mode and format, as the files of a folder."""

    def prepare(self, folder: Path) -> None:
        from PIL import Image

        noise = np.random.default_rng(0).integers(0, 256, (40, 48, 4), dtype=np.uint8)
        smooth = np.linspace(0, 255, 40 * 48 * 4).reshape(40, 48, 4).astype(np.uint8)
        for name, values in (("noise", noise), ("smooth", smooth)):
            rgba = Image.fromarray(values, "RGBA")
            for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
                rgba.convert("RGB").convert(mode) if mode == "P" else None
                rgba.convert("RGB" if mode == "P" else mode).convert(mode).save(folder / f"{name}-{mode}.png")
            Image.fromarray(values[..., 0].astype(np.uint16) * 257).save(folder / f"{name}-16.png")
            for mode in ("L", "RGB", "CMYK"):
                rgba.convert("RGB").convert(mode).save(folder / f"{name}-{mode}.jpg", quality=80)
            exif = Image.Exif()
            exif[0x0112], exif[0x010E] = 6, "a picture"
            rgba.convert("RGB").save(folder / f"{name}-progressive.jpeg", progressive=True, exif=exif)
            rgba.save(folder / f"{name}.webp", lossless=True)
            rgba.convert("RGB").save(folder / f"{name}-lossy.webp", quality=60, exif=exif)

    def run(self, made: Path) -> None:
        from modalities.image.modality import ImageModality
        from scm_media.data.entries import Entry

        modality = ImageModality(size=32, channels=3)
        entry = Entry(made, made.name)
        entry.validate(modality)
        sample, _ = entry.read_transformed(modality, None)
        assert sample.shape == (3, 32, 32) and bool(sample.isfinite().all())


class Sounds(FileTarget):
    """Validates, measures and reads sounds of the formats that libsndfile and FFmpeg write."""

    def prepare(self, folder: Path) -> None:
        import av
        import soundfile

        times = np.arange(8000) / 16000
        wave = (0.4 * np.sin(2 * math.pi * 440 * times) * np.exp(-3 * times)).astype(np.float32)
        for suffix, subtypes in {
            "wav": ("PCM_16", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM"), "flac": ("PCM_16",), "ogg": ("VORBIS", "OPUS"),
            "mp3": ("MPEG_LAYER_III",), "aiff": ("PCM_16",), "au": ("PCM_16",), "caf": ("PCM_16",), "w64": ("PCM_16",),
        }.items():  # fmt: skip
            for subtype in subtypes:
                soundfile.write(folder / f"{subtype}.{suffix}", np.stack([wave, -wave], 1), 16000, subtype)
        for name, kind, codec in (("a.m4a", "ipod", "aac"), ("b.aac", "adts", "aac"), ("c.wma", "asf", "wmav2"),
                                  ("d.g722", "g722", "g722")):  # fmt: skip
            with av.open(str(folder / name), "w", format=kind) as container:
                stream = container.add_stream(codec, rate=16000, layout="mono")
                stream.codec_context.format = av.codec.Codec(codec, "w").audio_formats[0]
                if codec != "g722":
                    stream.bit_rate = 48000
                stream.codec_context.open()
                frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16000, 0
                waiting, position = av.AudioFifo(), 0
                for converted in av.AudioResampler(format=stream.codec_context.format).resample(frame):
                    waiting.write(converted)
                while chunk := waiting.read(stream.codec_context.frame_size or 320, partial=True):
                    chunk.pts, position = position, position + chunk.samples
                    container.mux(stream.encode(chunk))
                container.mux(stream.encode(None))

    def run(self, made: Path) -> None:
        from modalities.audio.modality import AudioModality
        from scm_media.data.entries import Entry

        modality = AudioModality(sample_rate=16000, duration=0.25, trim=40)
        entry = Entry(made, made.name)
        entry.validate(modality)
        entry.measure(modality)
        sample, _ = entry.read_transformed(modality, None)
        assert sample.shape == (1, 4000) and bool(sample.isfinite().all())


class Videos(FileTarget):
    """Validates, measures and reads short videos of several containers and codecs, and animations."""

    def prepare(self, folder: Path) -> None:
        import av
        from PIL import Image

        frames = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
        for suffix, codec in (("mp4", "libx264"), ("mp4", "mpeg4"), ("webm", "libvpx-vp9"), ("mkv", "ffv1"),
                              ("avi", "mjpeg"), ("mov", "libx264")):  # fmt: skip
            with av.open(str(folder / f"{codec}.{suffix}"), "w") as container:
                stream = container.add_stream(codec, rate=12)
                stream.width = stream.height = 32
                stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
                for values in frames:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgb24")))
                container.mux(stream.encode(None))
        pictures = [Image.fromarray(values) for values in frames]
        pictures[0].save(folder / "a.gif", save_all=True, append_images=pictures[1:], duration=80)
        pictures[0].save(folder / "b.webp", save_all=True, append_images=pictures[1:], duration=80)

    def run(self, made: Path) -> None:
        from modalities.video.modality import VideoModality
        from scm_media.data.entries import Entry

        modality = VideoModality(num_frames=4, frame_rate=8, size=16, padding="hold")
        entry = Entry(made, made.name)
        entry.validate(modality)
        entry.measure(modality)
        sample, _ = entry.read_transformed(modality, None)
        assert sample.shape == (3, 4, 16, 16) and bool(sample.isfinite().all())

"""What is fuzzed: how a valid input is made, how it is mutated, and what reads it."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import shutil
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.fuzzing import mutations


class Target(ABC):
    """Something that reads what a stranger may have made; inputs lie in a folder of their own."""

    def __init__(self, base: Path, places: Mapping[str, str]) -> None:
        self.base, self.places = base, places
        self.prepared = base / type(self).__name__
        if not self.prepared.is_dir():
            aside = self.prepared.with_suffix(".part")
            aside.mkdir(parents=True, exist_ok=True)
            self.prepare(aside)
            aside.rename(self.prepared)

    @abstractmethod
    def prepare(self, folder: Path) -> None:
        """Writes valid files, once."""

    @abstractmethod
    def make(self, folder: Path, generator: random.Random) -> Path:
        """Writes one mutated input into a folder that is not there yet, and returns what is to be read."""

    @abstractmethod
    def run(self, made: Path) -> None:
        """Reads an input."""

    def valid(self, folder: Path) -> Path:
        """Writes a valid input, so that what is imported when the first one is read is there already."""
        folder.mkdir(parents=True, exist_ok=True)
        file = sorted(self.prepared.iterdir())[0]
        return Path(shutil.copy(file, folder)) if file.is_file() else Path(shutil.copytree(file, folder / file.name))


class _Files(Target):
    """Files of some formats, whose bytes are mutated, or which are given another format's suffix."""

    def make(self, folder: Path, generator: random.Random) -> Path:
        files = sorted(self.prepared.iterdir())
        file = generator.choice(files)
        suffix = generator.choice(files).suffix if generator.random() < 0.05 else file.suffix
        folder.mkdir(parents=True)
        made = folder / f"input{suffix}"
        made.write_bytes(mutations.bytes_of(file.read_bytes(), generator))
        return made


class Pictures(_Files):
    """Pictures of every mode and format, read, brought to a size and measured as a folder's files are."""

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


class Sounds(_Files):
    """Sounds of the formats that libsndfile and FFmpeg write, probed, measured and read."""

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
                waiting, place = av.AudioFifo(), 0
                for converted in av.AudioResampler(format=stream.codec_context.format).resample(frame):
                    waiting.write(converted)
                while piece := waiting.read(stream.codec_context.frame_size or 320, partial=True):
                    piece.pts, place = place, place + piece.samples
                    container.mux(stream.encode(piece))
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


class Videos(_Files):
    """Short clips of several containers and codecs, and animations, probed, measured and read."""

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


class _Pictured(Target):
    """Data sets of six small pictures, whose list of them is mutated."""

    def prepare(self, folder: Path) -> None:
        from PIL import Image

        for number in range(6):
            Image.new("L", (8, 8), 40 * number).save(folder / f"{number}.png")


class Manifests(_Pictured):
    """Manifests in CSV and JSON lines: rows, labels, paths, and the bytes of the file."""

    def make(self, folder: Path, generator: random.Random) -> Path:
        shutil.copytree(self.prepared, folder)
        rows: Any = [{"path": f"{number}.png", "kind": "ab"[number % 2], "size": number / 2} for number in range(6)]
        if generator.random() < 0.7:
            rows = mutations.tree_of(rows, generator, self.places)
        made = folder / f"data.{generator.choice(('jsonl', 'csv'))}"
        if made.suffix == ".jsonl":
            text = "\n".join(json.dumps(row) for row in rows)
        else:
            content = io.StringIO()
            for row in [["path", "kind", "size"], *rows]:
                csv.writer(content).writerow(list(row.values()) if isinstance(row, dict) else [row])
            text = content.getvalue()
        data = text.encode("utf-8", "replace")
        made.write_bytes(mutations.bytes_of(data, generator) if generator.random() < 0.5 else data)
        return made

    def run(self, made: Path) -> None:
        from modalities.image.modality import ImageModality
        from scm_media.data import ManifestDataset

        dataset = ManifestDataset(ImageModality(size=8), made, scalars=["size"], labels=["kind", "size"])
        dataset[0]

    def valid(self, folder: Path) -> Path:
        shutil.copytree(self.prepared, folder)
        lines = [json.dumps({"path": f"{number}.png", "kind": "ab"[number % 2], "size": 1}) for number in range(6)]
        (folder / "data.jsonl").write_text("\n".join(lines))
        return folder / "data.jsonl"


class Tars(_Pictured):
    """WebDataset shards, whose bytes are mutated, and whose members have odd names and kinds."""

    def make(self, folder: Path, generator: random.Random) -> Path:
        folder.mkdir(parents=True)
        made = folder / "data.tar"
        odd = generator.random()
        with tarfile.open(made, "w", format=generator.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))) as tar:
            for file in sorted(self.prepared.iterdir()):
                member = tarfile.TarInfo(file.name)
                content = file.read_bytes()
                if odd < 0.3 and generator.random() < 0.4:
                    member.name = generator.choice(
                        (f"../{file.name}", f"{self.places['sentinel']}/{file.name}", "a/" * 200 + file.name, "x.y.png")
                    )
                    member.type = generator.choice(
                        (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)
                    )
                    member.linkname = f"{self.places['sentinel']}/precious.txt"
                member.size = len(content) if member.isreg() else 0
                tar.addfile(member, io.BytesIO(content))
                label = json.dumps({"kind": generator.choice(("a", "b", None, 1e308, [], "\x1b[0m"))}).encode()
                described = tarfile.TarInfo(f"{Path(file.name).stem}.json")
                described.size = len(label)
                tar.addfile(described, io.BytesIO(label))
        if odd > 0.2:
            made.write_bytes(mutations.bytes_of(made.read_bytes(), generator))
        return made

    def run(self, made: Path) -> None:
        from modalities.image.modality import ImageModality
        from scm_media.data import ShardsDataset

        dataset = ShardsDataset(ImageModality(size=8), made.name, root=made.parent, labels={"kind": "json:kind"})
        dataset[0]

    def valid(self, folder: Path) -> Path:
        return self.make(folder, random.Random(1))


class Recipes(Target):
    """A user's recipe in YAML: values, keys, targets and interpolations, and the bytes of the file."""

    def prepare(self, folder: Path) -> None:
        from scm_media import recipe

        config = recipe.compose("image/tiny")
        (folder / "recipe.json").write_text(json.dumps({**config, "recipe": "mine"}))

    def make(self, folder: Path, generator: random.Random) -> Path:
        folder.mkdir(parents=True)
        config: Any = json.loads((self.prepared / "recipe.json").read_text())
        config = {"defaults": ["image/tiny", "_self_"], **mutations.tree_of(config, generator, self.places)}
        if generator.random() < 0.3:
            config[generator.choice(("a", "b", "hydra", "run_dir"))] = generator.choice(
                ("${b}", "${b}${b}", "${oc.env:PATH}", "${oc.decode:x}", {"searchpath": [self.places["address"]]},
                 {"callbacks": {"x": {"_target_": "subprocess.Popen", "args": "true"}}}, "/etc/x", "../../x")
            )  # fmt: skip
        data = yaml.safe_dump(config, allow_unicode=True).encode("utf-8", "replace")
        made = folder / "mine.yaml"
        made.write_bytes(mutations.bytes_of(data, generator) if generator.random() < 0.3 else data)
        return made

    def run(self, made: Path) -> None:
        from scm_media import recipe
        from scm_media.build import build

        config = recipe.compose(str(made))
        build(config["flow"], "flow")
        modality = build(config["modality"], "modality")
        modality.shape()
        build(config["data"], "data", modality=modality, split="train")
        build(config["student"]["optimizer"], "optimizer", params=[_parameter()])

    def valid(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        (folder / "mine.yaml").write_text("defaults: [image/tiny, _self_]\n")
        return folder / "mine.yaml"


def _parameter() -> Any:
    import torch

    return torch.nn.Parameter(torch.zeros(2))


class _Models(Target):
    """A whole model folder, a file of which is mutated."""

    def prepare(self, folder: Path) -> None:
        from scm_media.pipeline.hub import find_folder

        for name in ("model.json", "student.safetensors", "autoencoder.safetensors", "metrics.json", "recipe.yaml"):
            shutil.copy(find_folder("image/fashion") / name, folder)

    def copied(self, folder: Path, without: str) -> Path:
        """Links the valid files into a folder, but for one."""
        folder.mkdir(parents=True)
        for file in self.prepared.iterdir():
            if file.name != without:
                (folder / file.name).hardlink_to(file)
        return folder

    def valid(self, folder: Path) -> Path:
        return self.copied(folder, "")


class Descriptions(_Models):
    """``model.json``: values, keys, targets, shapes and bytes; the model is loaded and makes one picture."""

    def make(self, folder: Path, generator: random.Random) -> Path:
        description = json.loads((self.prepared / "model.json").read_text())
        if generator.random() < 0.85:
            text = json.dumps(mutations.tree_of(description, generator, self.places)).encode("utf-8", "replace")
        else:
            text = mutations.bytes_of((self.prepared / "model.json").read_bytes(), generator)
        if generator.random() < 0.02:
            text = generator.choice((b"[", b'{"a":', b"9")) * generator.choice((1000, 100_000, 3_000_000))
        (self.copied(folder, "model.json") / "model.json").write_bytes(text)
        return folder

    def run(self, made: Path) -> None:
        from scm_media import load

        clips = load(made, device="cpu")(1, seed=0)
        assert clips.samples.shape[0] == 1


class Headers(_Models):
    """A weight file: its header as JSON, the network's configuration in it, and its bytes."""

    def make(self, folder: Path, generator: random.Random) -> Path:
        name = generator.choice(("student.safetensors", "autoencoder.safetensors"))
        content = (self.prepared / name).read_bytes()
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        uniform = generator.random()
        if uniform < 0.5:
            config = mutations.tree_of(json.loads(header["__metadata__"]["config"]), generator, self.places)
            header["__metadata__"]["config"] = json.dumps(config)
        elif uniform < 0.7:
            header = mutations.tree_of(header, generator, self.places)
        if uniform < 0.7:
            told = json.dumps(header).encode("utf-8", "replace")
            content = len(told).to_bytes(8, "little") + told + content[8 + size :]
        else:
            content = mutations.bytes_of(content[: 8 + size], generator) + content[8 + size :]
        (self.copied(folder, name) / name).write_bytes(content)
        return folder

    def run(self, made: Path) -> None:
        from scm_media import load

        load(made, device="cpu")(1, seed=0)


class Figures(_Models):
    """``metrics.json`` and ``recipe.yaml`` of a model: its card is written, and its recipe is read."""

    def make(self, folder: Path, generator: random.Random) -> Path:
        name = generator.choice(("metrics.json", "recipe.yaml"))
        valid = (self.prepared / name).read_text()
        tree = mutations.tree_of(json.loads(valid) if name == "metrics.json" else yaml.safe_load(valid), generator,
                                 self.places)  # fmt: skip
        text = json.dumps(tree) if name == "metrics.json" else yaml.safe_dump(tree)
        data = text.encode("utf-8", "replace")
        data = mutations.bytes_of(data, generator) if generator.random() < 0.3 else data
        (self.copied(folder, name) / name).write_bytes(data)
        return folder

    def run(self, made: Path) -> None:
        from scm_media.pipeline import ModelFolder
        from scm_media.pipeline.card import format_card

        folder = ModelFolder.open(made)
        format_card(folder)
        folder.recipe()


TARGETS: Mapping[str, type[Target]] = {
    "pictures": Pictures,
    "sounds": Sounds,
    "videos": Videos,
    "manifests": Manifests,
    "tars": Tars,
    "recipes": Recipes,
    "descriptions": Descriptions,
    "headers": Headers,
    "figures": Figures,
}

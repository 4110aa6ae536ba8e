"""Targets that read manifests and shards."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import tarfile
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.corruption import corrupt_bytes, corrupt_tree
from benchmarks.fuzzing.target import Target


class _Pictured(Target):
    """A target whose list of six small pictures is corrupted."""

    def prepare(self, folder: Path) -> None:
        from PIL import Image

        for number in range(6):
            Image.new("L", (8, 8), 40 * number).save(folder / f"{number}.png")


class Manifests(_Pictured):
    """Reads manifests in CSV and JSON lines with corrupted rows, labels, paths and bytes."""

    def make(self, folder: Path, generator: random.Random) -> Path:
        shutil.copytree(self.prepared, folder)
        rows: Any = [{"path": f"{number}.png", "kind": "ab"[number % 2], "size": number / 2} for number in range(6)]
        if generator.random() < 0.7:
            rows = corrupt_tree(rows, generator, self.places)
        made = folder / f"data.{generator.choice(('jsonl', 'csv'))}"
        if made.suffix == ".jsonl":
            text = "\n".join(json.dumps(row) for row in rows)
        else:
            content = io.StringIO()
            for row in [["path", "kind", "size"], *rows]:
                csv.writer(content).writerow(list(row.values()) if isinstance(row, dict) else [row])
            text = content.getvalue()
        data = text.encode("utf-8", "replace")
        made.write_bytes(corrupt_bytes(data, generator) if generator.random() < 0.5 else data)
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
    """Reads WebDataset shards with corrupted bytes, and with members of odd names and types."""

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
            made.write_bytes(corrupt_bytes(made.read_bytes(), generator))
        return made

    def run(self, made: Path) -> None:
        from modalities.image.modality import ImageModality
        from scm_media.data import ShardsDataset

        dataset = ShardsDataset(ImageModality(size=8), made.name, root=made.parent, labels={"kind": "json:kind"})
        dataset[0]

    def valid(self, folder: Path) -> Path:
        return self.make(folder, random.Random(1))

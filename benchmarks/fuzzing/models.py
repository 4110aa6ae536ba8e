"""Targets that read recipes and model folders."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import yaml

from benchmarks.fuzzing.corruption import corrupt_bytes, corrupt_tree
from benchmarks.fuzzing.target import Target


class Recipes(Target):
    """Composes a recipe in YAML with corrupted values, keys, targets, interpolations and bytes."""

    def prepare(self, folder: Path) -> None:
        from scm_media import recipe

        config = recipe.compose("image/tiny")
        (folder / "recipe.json").write_text(json.dumps({**config, "recipe": "mine"}))

    def make(self, folder: Path, generator: random.Random) -> Path:
        folder.mkdir(parents=True)
        config: Any = json.loads((self.prepared / "recipe.json").read_text())
        config = {"defaults": ["image/tiny", "_self_"], **corrupt_tree(config, generator, self.places)}
        if generator.random() < 0.3:
            config[generator.choice(("a", "b", "hydra", "run_dir"))] = generator.choice(
                ("${b}", "${b}${b}", "${oc.env:PATH}", "${oc.decode:x}", {"searchpath": [self.places["address"]]},
                 {"callbacks": {"x": {"_target_": "subprocess.Popen", "args": "true"}}}, "/etc/x", "../../x")
            )  # fmt: skip
        data = yaml.safe_dump(config, allow_unicode=True).encode("utf-8", "replace")
        made = folder / "mine.yaml"
        made.write_bytes(corrupt_bytes(data, generator) if generator.random() < 0.3 else data)
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
    """A target that corrupts one file of a model folder."""

    def prepare(self, folder: Path) -> None:
        from scm_media.pipeline.hub import find_folder

        for name in ("model.json", "student.safetensors", "autoencoder.safetensors", "metrics.json", "recipe.yaml"):
            shutil.copy(find_folder("image/fashion") / name, folder)

    def link_files(self, folder: Path, without: str) -> Path:
        """Links the valid files but one into a folder, and returns it."""
        folder.mkdir(parents=True)
        for file in self.prepared.iterdir():
            if file.name != without:
                (folder / file.name).hardlink_to(file)
        return folder

    def valid(self, folder: Path) -> Path:
        return self.link_files(folder, "")


class Descriptions(_Models):
    """Loads a model with a corrupted ``model.json`` and draws one picture from it."""

    def make(self, folder: Path, generator: random.Random) -> Path:
        description = json.loads((self.prepared / "model.json").read_text())
        if generator.random() < 0.85:
            text = json.dumps(corrupt_tree(description, generator, self.places)).encode("utf-8", "replace")
        else:
            text = corrupt_bytes((self.prepared / "model.json").read_bytes(), generator)
        if generator.random() < 0.02:
            text = generator.choice((b"[", b'{"a":', b"9")) * generator.choice((1000, 100_000, 3_000_000))
        (self.link_files(folder, "model.json") / "model.json").write_bytes(text)
        return folder

    def run(self, made: Path) -> None:
        from scm_media import load

        drawn = load(made, device="cpu")(1, seed=0)
        assert drawn.samples.shape[0] == 1


class Headers(_Models):
    """Loads a model whose weight file has a corrupted header, configuration or bytes."""

    def make(self, folder: Path, generator: random.Random) -> Path:
        name = generator.choice(("student.safetensors", "autoencoder.safetensors"))
        content = (self.prepared / name).read_bytes()
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        uniform = generator.random()
        if uniform < 0.5:
            config = corrupt_tree(json.loads(header["__metadata__"]["config"]), generator, self.places)
            header["__metadata__"]["config"] = json.dumps(config)
        elif uniform < 0.7:
            header = corrupt_tree(header, generator, self.places)
        if uniform < 0.7:
            text = json.dumps(header).encode("utf-8", "replace")
            content = len(text).to_bytes(8, "little") + text + content[8 + size :]
        else:
            content = corrupt_bytes(content[: 8 + size], generator) + content[8 + size :]
        (self.link_files(folder, name) / name).write_bytes(content)
        return folder

    def run(self, made: Path) -> None:
        from scm_media import load

        load(made, device="cpu")(1, seed=0)


class Figures(_Models):
    """Writes the card and reads the recipe of a model with a corrupted ``metrics.json`` or ``recipe.yaml``."""

    def make(self, folder: Path, generator: random.Random) -> Path:
        name = generator.choice(("metrics.json", "recipe.yaml"))
        valid = (self.prepared / name).read_text()
        tree = corrupt_tree(json.loads(valid) if name == "metrics.json" else yaml.safe_load(valid), generator,
                                 self.places)  # fmt: skip
        text = json.dumps(tree) if name == "metrics.json" else yaml.safe_dump(tree)
        data = text.encode("utf-8", "replace")
        data = corrupt_bytes(data, generator) if generator.random() < 0.3 else data
        (self.link_files(folder, name) / name).write_bytes(data)
        return folder

    def run(self, made: Path) -> None:
        from scm_media.pipeline import ModelFolder
        from scm_media.pipeline.card import format_card

        folder = ModelFolder.open(made)
        format_card(folder)
        folder.recipe()

"""Corrupts valid bytes and valid trees of values."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from typing import Any

NAMES = (
    "scm_media.trigflow.TrigFlow", "scm_media.weights.write_whole", "scm_media.pipeline.pipeline.load",
    "modalities.audio.writing.write_sound", "modalities.audio.containers.ContainerRecording", "os.system",
    "modalities.image.modality.ImageModality", "modalities.video.modality.VideoModality", "builtins.eval",
    "lightning_fabric.loggers.CSVLogger", "torch.optim.Adam", "scm_media.data.shards.ShardsDataset", "torch.load",
    "scm_media.nn.transformer.Transformer", "scm_media.nn.unet.UNet", "modalities.audio.mel.LogMelSpectrogram",
    "modalities.audio.pretrained.VocosMel", "modalities.video.pretrained.WanAutoencoder", "subprocess.run",
    "modalities.image.autoencoder.PixelAutoencoder", "scm_media.data.folder.FolderDataset", "", "a", "__import__",
)  # fmt: skip


def corrupt_bytes(valid: bytes, generator: random.Random) -> bytes:
    """Returns bytes that differ from valid ones in one to eight places, ranges or lengths."""
    made = bytearray(valid)
    for _ in range(generator.choice((1, 1, 1, 2, 4, 8))):
        if not made:
            break
        position, length = generator.randrange(len(made)), generator.choice((1, 2, 4, 16, 64, 1024))
        if generator.random() < 0.4:
            position = generator.randrange(min(len(made), 512))  # headers matter most
        kind = generator.randrange(7)
        if kind == 0:
            made[position] ^= 1 << generator.randrange(8)
        elif kind == 1:
            made[position : position + length] = generator.randbytes(min(length, len(made) - position))
        elif kind == 2:
            del made[position : position + length]
        elif kind == 3:
            made[position:position] = made[position : position + length]
        elif kind == 4:
            made[position : position + length] = bytes(min(length, len(made) - position))
        elif kind == 5:
            made[position : position + 4] = generator.choice(
                (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x01")
            )
        else:
            del made[position:]
    return bytes(made)


def corrupt_tree(valid: Any, generator: random.Random, places: Mapping[str, str]) -> Any:
    """Returns a tree of dictionaries and lists in which one to three values, keys or parts differ from a valid one."""
    made = copy.deepcopy(valid)
    for _ in range(generator.choice((1, 1, 2, 3))):
        holder, key = generator.choice(_places(made))
        uniform = generator.random()
        if uniform < 0.08 and isinstance(holder, dict):
            del holder[key]
        elif uniform < 0.14 and isinstance(holder, dict):
            holder[_word(generator, places)] = holder[key]
        elif uniform < 0.2:
            other, position = generator.choice(_places(valid))
            holder[key] = copy.deepcopy(other[position])
        else:
            holder[key] = _value(generator, places)
        if not isinstance(made, dict) or not made:
            break
    return made


def _places(tree: Any) -> list[tuple[Any, Any]]:
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree))
    found = [(tree, key) for key in keys]
    return found + [position for key in keys if isinstance(tree[key], dict | list) for position in _places(tree[key])]


def _word(generator: random.Random, places: Mapping[str, str]) -> str:
    words = (
        "_target_", "_partial_", "../../x", "${oc.env:HOME}", "${name}", "\x1b[31m", "a\nb", "ß" * 300, "\x00", "-",
        "\U0001f600" * 60, "yes", "steps", places["sentinel"], places["address"],
    )  # fmt: skip
    return generator.choice(words)


def _value(generator: random.Random, places: Mapping[str, str]) -> Any:
    sentinel, address = places["sentinel"], places["address"]
    numbers = (0, -1, 1, 2, 7, 255, 1 << 16, 1 << 24, 10**9, 1 << 31, 1 << 53, 1 << 64, 10**30, -(10**9), 10**310)
    floats = (0.5, -0.5, 1e-30, 1e308, -1e308, float("nan"), float("inf"))
    key = generator.choice(("path", "root_dir", "weights", "size", "root"))
    aim = generator.choice((f"{sentinel}/precious.txt", address, f"reference://::{address}", 1 << 20))
    part = {"_target_": generator.choice(NAMES), key: aim}
    deep: Any = []
    for _ in range(generator.choice((5, 50, 300)) if generator.random() < 0.05 else 1):
        deep = [deep]
    text = generator.choice((_word(generator, places), generator.choice(NAMES), f"{sentinel}/precious.wav", address))
    many = [generator.choice(numbers)] * generator.choice((1, 3, 1000))
    number, other = generator.choice(numbers), generator.choice(floats)
    return generator.choice((None, True, False, number, other, text, [], {}, deep, part, many))

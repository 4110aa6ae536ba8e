"""Writes pictures as PNG files, with what they were made by inside, and reads that."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin
from torch import Tensor

from modalities.pictures.pixels import to_bytes
from modalities.pictures.reading import MODES

SUFFIX = ".png"
METADATA_PREFIX = "scm_media:"


def to_picture(sample: Tensor) -> Image.Image:
    """Returns a sample ``(C, H, W)`` in [-1, 1], of one or three channels, as a grey or RGB picture."""
    if sample.ndim != 3 or sample.shape[0] not in MODES:
        raise ValueError(f"a picture is (1, H, W) or (3, H, W), got {tuple(sample.shape)}")
    pixels = to_bytes(sample)
    return Image.fromarray((pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy())


def write_picture(path: Path, sample: Tensor, metadata: Mapping[str, Any]) -> None:
    """Writes ``(C, H, W)``, whole or not at all, as a PNG with the metadata as text entries ``scm_media:<key>``."""
    if path.suffix.lower() != SUFFIX:
        raise ValueError(f"{path}: pictures are written as {SUFFIX}")
    info = PngImagePlugin.PngInfo()
    for key, value in metadata.items():
        info.add_text(METADATA_PREFIX + key, _to_text(value))
    picture = to_picture(sample)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        picture.save(aside, format="PNG", pnginfo=info)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Returns the metadata that ``write_picture`` put into a PNG; empty for a picture without any."""
    with Image.open(path) as picture:
        picture.load()
        texts = getattr(picture, "text", {})
    entries = {key: str(text) for key, text in texts.items() if key.startswith(METADATA_PREFIX)}
    return {key.removeprefix(METADATA_PREFIX): _from_text(text) for key, text in entries.items()}


def _from_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _to_text(value: Any) -> str:
    """Returns strings unchanged, so that any viewer shows them, unless they would be read as something else."""
    if isinstance(value, str) and "\0" not in value and _from_text(value) is value:
        return value
    return json.dumps(value)

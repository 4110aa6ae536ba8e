"""Reads the autoencoder of a folder that a pipeline of diffusers was saved to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scm_media.adapters.autoencoder_classes import AUTOENCODERS
from scm_media.adapters.autoencoders import DiffusersAutoencoder, UnchangedSamples
from scm_media.adapters.loading import INDEX, read_index, read_network
from scm_media.reading import read_json
from scm_media.weights import Component

MARKS = ("autoencoder", "vae", "vqmodel")
"""What the names of parts that are autoencoders contain."""


def read_autoencoder(folder: Path | str) -> Component:
    """Returns the autoencoder of a saved pipeline as a weight file has it, for ``scm_media.networks.restore``.

    Weights are read from safetensors files alone, in float32 where they are float16. A pipeline without an autoencoder
    gives ``UnchangedSamples``. Raises ValueError for a folder that is none, and for an autoencoder that is not known.
    """
    folder = Path(folder)
    info = {"source": folder.resolve().name}
    found = find_autoencoder(folder)
    if found is None:
        return Component({}, describe_autoencoder(folder), info)
    network = read_network(folder / found[0], found[1])
    state = {f"network.{key}": tensor for key, tensor in network.state_dict().items()}
    return Component(state, describe_autoencoder(folder), info)


def describe_autoencoder(folder: Path) -> dict[str, Any]:
    """Returns the configuration of a saved pipeline's autoencoder. Raises ValueError as ``read_autoencoder``."""
    found = find_autoencoder(folder)
    if found is None:
        return {"_target_": _path(UnchangedSamples)}
    config = read_json(folder / found[0] / "config.json")
    # Private keys are about the file, and one of them is its path on the machine that wrote it.
    public = {key: value for key, value in config.items() if not key.startswith("_")}
    return {"_target_": _path(DiffusersAutoencoder), "network": found[1], "config": public}


def find_autoencoder(folder: Path) -> tuple[str, str] | None:
    """Returns the name and the class of a saved pipeline's autoencoder, None for a pipeline without.

    Raises ValueError for an autoencoder that is not known, and for several.
    """
    found = {part: name for part, name in read_index(folder).items() if _is_autoencoder(part, name)}
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(
            f"{folder / INDEX}: {' and '.join(found)} are autoencoders, expected one; save a pipeline with one of them"
        )
    ((part, name),) = found.items()
    if name not in AUTOENCODERS:
        raise ValueError(
            f"{folder / INDEX}: {part} is {name}, an autoencoder that is not known; there are "
            + ", ".join(sorted(AUTOENCODERS))
        )
    return part, name


def _is_autoencoder(part: str, name: str) -> bool:
    return name in AUTOENCODERS or any(mark in each.lower() for each in (part, name) for mark in MARKS)


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"

"""Reads the autoencoder of a folder that a pipeline of diffusers was saved to."""

from __future__ import annotations

from pathlib import Path

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
    found = {part: name for part, name in read_index(folder).items() if _is_autoencoder(part, name)}
    info = {"source": folder.resolve().name}
    if not found:
        return Component({}, {"_target_": _path(UnchangedSamples)}, info)
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
    network = read_network(folder / part, name)
    config = read_json(folder / part / "config.json")
    # Private keys are about the file, and one of them is its path on the machine that wrote it.
    public = {key: value for key, value in config.items() if not key.startswith("_")}
    state = {f"network.{key}": tensor for key, tensor in network.state_dict().items()}
    return Component(state, {"_target_": _path(DiffusersAutoencoder), "network": name, "config": public}, info)


def _is_autoencoder(part: str, name: str) -> bool:
    return name in AUTOENCODERS or any(mark in each.lower() for each in (part, name) for mark in MARKS)


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"

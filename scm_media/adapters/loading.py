"""Reads a folder that a pipeline of diffusers was saved to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from scm_media.adapters.adapter import ADAPTERS
from scm_media.adapters.schedulers import change_of_variables
from scm_media.change_of_variables import ChangeOfVariables
from scm_media.reading import read_json


def load_teacher(folder: Path | str, dtype: torch.dtype | None = None) -> ChangeOfVariables:
    """Returns the network of a saved pipeline as a TrigFlow backbone, frozen and in evaluation mode.

    folder: has ``model_index.json`` and one folder for each part; weights are read from safetensors files alone. dtype:
    None keeps the type of the weights, but for float16, whose range is too small for tangents: float32 is taken, and
    said. Raises ValueError for a folder that is none, and for networks and schedulers that are not known.
    """
    folder = Path(folder)
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(
            f"{folder} has no model_index.json: a folder that a pipeline of diffusers was saved to is expected"
        )
    parts = read_json(index)
    found = [
        (component, entry[1])
        for component, entry in parts.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[1] in ADAPTERS
    ]
    if not found:
        names = [entry[1] for entry in parts.values() if isinstance(entry, list) and len(entry) == 2 and entry[1]]
        raise ValueError(
            f"{index}: none of {', '.join(map(str, names))} is a network that can be converted; there are "
            + ", ".join(sorted(ADAPTERS))
        )
    if len(found) > 1:
        raise ValueError(
            f"{index}: {' and '.join(each for each, _ in found)} share the noise levels of one teacher, which is not "
            "supported: save a pipeline with one of them, and train on its noise levels alone"
        )
    component, name = found[0]
    network = _read_network(folder / component, name, dtype)
    scheduler = folder / "scheduler" / "scheduler_config.json"
    if not scheduler.is_file():
        raise ValueError(f"{scheduler} does not exist: the scheduler says what the network predicts")
    teacher = change_of_variables(network, read_json(scheduler))
    return teacher.eval().requires_grad_(False)


def _read_network(folder: Path, name: str, dtype: torch.dtype | None) -> Any:
    import diffusers

    if dtype is None:
        dtype = _dtype_of(folder)
        if dtype == torch.float16:
            print(f"{folder}: float16 weights are used in float32: tangents leave float16's range", file=sys.stderr)
            dtype = torch.float32
    network = getattr(diffusers, name)
    return network.from_pretrained(str(folder), use_safetensors=True, local_files_only=True, torch_dtype=dtype)


def _dtype_of(folder: Path) -> torch.dtype:
    """Returns the type of the first weight; ValueError for a folder without safetensors files."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has no .safetensors file: weights are read from safetensors alone")
    with safe_open(files[0], "pt") as weights:
        first = next(iter(weights.keys()))
        found: torch.dtype = weights.get_tensor(first).dtype
    return found

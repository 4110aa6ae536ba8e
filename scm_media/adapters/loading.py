"""Reads the parts of a folder that a pipeline of diffusers was saved to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from scm_media.reading import read_json

INDEX = "model_index.json"
"""The file that names the class of each part."""


def read_index(folder: Path) -> dict[str, str]:
    """Returns the class of each part of a saved pipeline by the part's name; ValueError for any other folder."""
    index = folder / INDEX
    if not index.is_file():
        raise ValueError(f"{folder} has no {INDEX}: a folder that a pipeline of diffusers was saved to is expected")
    found = read_json(index)
    if not isinstance(found, dict):
        raise ValueError(f"{index} holds no mapping of a pipeline's parts; save the pipeline again")
    entries = {name: entry for name, entry in found.items() if isinstance(entry, list) and len(entry) == 2}
    return {name: entry[1] for name, entry in entries.items() if isinstance(entry[1], str)}


def read_network(folder: Path, name: str, dtype: torch.dtype | None = None) -> Any:
    """Returns a network of the class ``name`` from its folder. dtype: None keeps the weights' own, but for float16,
    whose range is too small for tangents: float32 is taken, and said.

    Raises ValueError where weights are missing, no safetensors, or of another network.
    """
    import diffusers

    if dtype is None:
        dtype = _dtype_of(folder)
        if dtype == torch.float16:
            print(f"{folder}: float16 weights are used in float32: values leave float16's range", file=sys.stderr)
            dtype = torch.float32
    options = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    try:
        network, report = getattr(diffusers, name).from_pretrained(str(folder), torch_dtype=dtype, **options)
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder} holds no whole {name} ({reason}); save or copy it again") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(
            f"{folder}: {len(missing)} tensors of {name} are missing from its weights ({', '.join(missing[:2])}); save "
            "or copy it again"
        )
    return network


def _dtype_of(folder: Path) -> torch.dtype:
    """Returns the type of the first weight; ValueError for a folder without safetensors files."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has no .safetensors file: weights are read from safetensors alone")
    with safe_open(files[0], "pt") as weights:
        first = next(iter(weights.keys()))
        found: torch.dtype = weights.get_tensor(first).dtype
    return found

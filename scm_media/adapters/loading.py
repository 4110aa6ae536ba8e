"""Reads the parts of a folder that a pipeline of diffusers was saved to."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from scm_media.display import printable
from scm_media.reading import read_json

PART = re.compile(r"(?!\.)[\w.-]+", re.ASCII)
FULL = re.compile(r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors")
"""Matches the files of weights that are read; others are variants of them in another type."""
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
    for name in entries:
        if not PART.fullmatch(name):
            raise ValueError(f"{index}: {printable(name)} is no name of a part, which is a folder beside this file")
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
    file = next((each for each in files if FULL.fullmatch(each.name)), files[0])
    try:
        with safe_open(file, "pt") as weights:
            found: torch.dtype = weights.get_tensor(next(iter(weights.keys()))).dtype
    except (SafetensorError, OSError, StopIteration) as error:
        raise ValueError(f"{file} is no whole safetensors file ({error}); copy it again") from error
    return found

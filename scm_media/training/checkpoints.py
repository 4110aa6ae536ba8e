"""Checkpoints of a training: tensors as safetensors and the rest as JSON, each one complete or absent."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

_TENSOR = "__tensor__"
_NOT_WHOLE = (SafetensorError, json.JSONDecodeError, KeyError, TypeError, AttributeError, FileNotFoundError)


def save(folder: Path, step: int, state: dict[str, Any], keep: int, decisions: Mapping[str, Any] | None = None) -> Path:
    """Writes ``folder/step-N`` aside, then renames it; then removes all but the last ``keep`` checkpoints.

    state: nested dicts and lists of tensors, numbers, strings and None. decisions: what the training follows from, as
    JSON, for ``load_decisions``. OSError where there is no space left: the earlier checkpoints are then untouched.
    """
    final = folder / f"step-{step}"
    aside = folder / f".step-{step}.part"
    for left in folder.glob(".step-*.part"):
        shutil.rmtree(left, ignore_errors=True)
    tensors: dict[str, Tensor] = {}
    skeleton = _without_tensors(state, "", tensors)
    try:
        aside.mkdir(parents=True)
        _write(aside / "state.safetensors", safetensors.torch.save(tensors))
        _write(
            aside / "state.json",
            json.dumps({"step": step, "decisions": dict(decisions or {}), "state": skeleton}).encode(),
        )
        _remove(final)
        os.replace(aside, final)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise OSError(
            error.errno, f"{final} was not saved ({error.strerror or error}); the last good checkpoint is intact"
        ) from error
    for old in steps(folder)[:-keep]:
        _remove(folder / f"step-{old}")
    return final


def steps(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    found = (re.fullmatch(r"step-(\d+)", entry.name) for entry in folder.iterdir())
    return sorted(int(match.group(1)) for match in found if match)


def load(folder: Path, step: int) -> dict[str, Any]:
    """The state that ``save`` was given; ValueError where the checkpoint is cut short or foreign."""
    path = folder / f"step-{step}"
    try:
        tensors = safetensors.torch.load_file(path / "state.safetensors")
        written = json.loads((path / "state.json").read_text())
        return _with_tensors(written["state"], tensors)
    except _NOT_WHOLE as error:
        raise _refusal(path, error) from error


def load_decisions(folder: Path, step: int) -> dict[str, Any]:
    """The decisions that ``save`` was given, none from a checkpoint without; ValueError as ``load``."""
    path = folder / f"step-{step}"
    try:
        written = json.loads((path / "state.json").read_text())
        return dict(written.get("decisions", {}))
    except _NOT_WHOLE as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} is no whole checkpoint ({type(error).__name__}: {error}); delete it to go on from the one before"
    )


def _remove(path: Path) -> None:
    """Removes a checkpoint under another name: a kill while its files go leaves nothing that looks complete."""
    if path.exists():
        aside = path.with_name(f".{path.name}.old.part")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(path, aside)
        shutil.rmtree(aside, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {_TENSOR: name}
    if isinstance(value, dict):
        # Keys may be integers (optimisers count their parameters): pairs keep their type through JSON.
        return {"__items__": [[key, _without_tensors(v, f"{name}/{key}", tensors)] for key, v in value.items()]}
    if isinstance(value, list | tuple):
        return [_without_tensors(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]
    assert value is None or isinstance(value, bool | int | float | str), f"{name}: {type(value)} cannot be saved"
    return value


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {key: _with_tensors(v, tensors) for key, v in value["__items__"]}
    if isinstance(value, list):
        return [_with_tensors(v, tensors) for v in value]
    return value

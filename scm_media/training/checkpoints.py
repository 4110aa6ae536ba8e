"""Checkpoints of a training: tensors as safetensors and the rest as JSON, each one complete or absent."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_TENSOR = "__tensor__"
_EIGHT_BIT = "torchao.optim.subclass_8bit.OptimState8bit"
"""The averages of torchao's 8-bit optimisers: the one kind of tensor that consists of others."""
_DIGEST = "sha256"
_NOT_WHOLE = (
    SafetensorError,
    json.JSONDecodeError,
    UnicodeDecodeError,
    KeyError,
    TypeError,
    AttributeError,
    OSError,
)


class DamagedCheckpoint(ValueError):
    """Raised for a checkpoint that is cut short, damaged or of another program; ``reason`` says in which way."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is no whole checkpoint ({reason}); delete it to go on from the one before")
        self.reason = reason


def save(
    folder: Path, step: int, state: dict[str, Any], keep: int, training_fingerprint: Mapping[str, Any] | None = None
) -> Path:
    """Writes ``folder/step-N`` under another name, renames it, and removes all but the last ``keep`` checkpoints.

    state: nested dicts and lists of tensors, numbers, strings and None. training_fingerprint: JSON values, for
    ``load_training_fingerprint``. Raises OSError where no space is left; the earlier checkpoints are then untouched.
    """
    final = folder / f"step-{step}"
    aside = folder / f".step-{step}.part"
    for left in folder.glob(".step-*.part"):
        shutil.rmtree(left, ignore_errors=True)
    tensors: dict[str, Tensor] = {}
    skeleton = _without_tensors(state, "", tensors)
    content = safetensors.torch.save(tensors)
    written = {"step": step, "training_fingerprint": dict(training_fingerprint or {}), "state": skeleton}
    digest = _digest(io.BytesIO(content), written)
    try:
        aside.mkdir(parents=True)
        _write(aside / "state.safetensors", content)
        _write(aside / "state.json", json.dumps({**written, _DIGEST: digest}).encode())
        _remove(final)
        os.replace(aside, final)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise OSError(
            error.errno,
            f"{final} was not saved ({error.strerror or error}); the last good checkpoint is intact, and the same "
            "command goes on from it once there is space",
        ) from error
    for old in steps(folder)[:-keep]:
        _remove(folder / f"step-{old}")
    return final


def steps(folder: Path) -> list[int]:
    """Returns the steps of the complete checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    found = (re.fullmatch(r"step-(\d+)", entry.name) for entry in folder.iterdir())
    return sorted(int(match.group(1)) for match in found if match)


def load(folder: Path, step: int) -> dict[str, Any]:
    """Returns the state that ``save`` was given.

    Raises DamagedCheckpoint where the checkpoint is cut short, of another program, or does not match its digest (old
    checkpoints have none).
    """
    path = folder / f"step-{step}"
    try:
        written = json.loads((path / "state.json").read_text(encoding="utf-8"))
        expected = written.pop(_DIGEST, None)
        if expected is not None:
            with open(path / "state.safetensors", "rb") as file:
                if _digest(file, written) != expected:
                    raise DamagedCheckpoint(path, "its content does not have its digest, SHA-256")
        tensors = safetensors.torch.load_file(path / "state.safetensors")
        return _with_tensors(written["state"], tensors)
    except PermissionError:
        raise
    except _NOT_WHOLE as error:
        raise DamagedCheckpoint(path, f"{type(error).__name__}: {error}") from error


def load_training_fingerprint(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Returns the step and the training fingerprint of the newest readable checkpoint; None where there is none.

    The fingerprint is empty where ``save`` was given none.
    """
    for step in reversed(steps(folder)):
        try:
            written = json.loads((folder / f"step-{step}" / "state.json").read_text(encoding="utf-8"))
            return step, dict(written.get("training_fingerprint", {}))
        except PermissionError:
            raise
        except _NOT_WHOLE:
            continue  # a damaged one is set aside before a training goes on
    return None


def set_damaged_aside(folder: Path, stage: str) -> None:
    """Renames damaged checkpoints newer than the last whole one to ``step-N.damaged``, and prints which one is used.

    Raises ValueError when there are checkpoints and none of them is whole.
    """
    damaged: dict[int, str] = {}
    for step in reversed(steps(folder)):
        try:
            load(folder, step)
        except DamagedCheckpoint as error:
            damaged[step] = error.reason
            continue
        for number, reason in damaged.items():
            path, kept = folder / f"step-{number}", folder / f"step-{number}.damaged"
            shutil.rmtree(kept, ignore_errors=True)
            os.replace(path, kept)
            print(
                f"{stage}: {path} is damaged ({reason}): training goes on from step-{step}, the one before; the "
                f"damaged one is now {kept.name}",
                file=sys.stderr,
            )
        return
    if damaged:
        found = "; ".join(f"step-{number}: {reason}" for number, reason in damaged.items())
        raise ValueError(
            f"{folder} holds no whole checkpoint ({found}): put back a copy, or delete it to train the stage "
            f"{stage} anew"
        )


def _digest(tensors: IO[bytes], written: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the tensors' file and of what is written beside it."""
    digest = hashlib.file_digest(tensors, "sha256")  # type: ignore[arg-type]
    digest.update(json.dumps(written).encode())
    return digest.hexdigest()


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
    if is_traceable_wrapper_subclass(value):
        return _without_codes(value, name, tensors)
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


def _without_codes(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Returns what restores an average of torchao's 8-bit optimisers, whose codes, scales and map become tensors."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    assert kind == _EIGHT_BIT, f"{name}: {kind} cannot be saved"
    parts, (signed, dtype) = value.__tensor_flatten__()
    inner = {part: _without_tensors(getattr(value, part), f"{name}/{part}", tensors) for part in parts}
    return {_EIGHT_BIT: {"parts": inner, "signed": signed, "dtype": str(dtype).removeprefix("torch.")}}


def _with_codes(written: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    try:
        from torchao.optim.subclass_8bit import OptimState8bit
    except ImportError as error:
        raise ValueError(
            f"the checkpoint has averages in 8 bits, which need torchao ({error}): pip install 'scm-media[quantized]'"
        ) from error
    parts = {name: _with_tensors(part, tensors) for name, part in written["parts"].items()}
    return OptimState8bit.__tensor_unflatten__(parts, [written["signed"], getattr(torch, written["dtype"])])


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if _EIGHT_BIT in value:
            return _with_codes(value[_EIGHT_BIT], tensors)
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {key: _with_tensors(v, tensors) for key, v in value["__items__"]}
    if isinstance(value, list):
        return [_with_tensors(v, tensors) for v in value]
    return value

"""Checkpoints of a training: tensors as safetensors and the rest as JSON, each one complete or absent."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from scm_media.training.sharding import is_sharded_tensor

Target = Callable[[str, torch.Size, torch.dtype], Tensor | None]
"""``(name, size, dtype) -> tensor`` that an entry of a checkpoint is read into; None for a new one on the CPU."""
_TENSOR = "__tensor__"
_EIGHT_BIT = "torchao.optim.subclass_8bit.OptimState8bit"
"""The averages of torchao's 8-bit optimisers: the one kind of tensor that consists of others."""
_DIGEST = "sha256"
_TENSORS, _PARTS = "state.safetensors", "parts"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
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
    tensors: dict[str, Tensor] = {}
    skeleton = without_tensors(state, tensors)
    content = safetensors.torch.save(tensors)
    make_part_folder(folder, step)
    try:
        _write(part_folder(folder, step) / _TENSORS, content)
    except OSError as error:
        shutil.rmtree(part_folder(folder, step), ignore_errors=True)
        raise not_saved(folder / f"step-{step}", error) from error
    return complete(folder, step, skeleton, keep, training_fingerprint)


def part_folder(folder: Path, step: int) -> Path:
    """Returns the folder that a checkpoint is written to before it gets its name."""
    return folder / f".step-{step}.part"


def make_part_folder(folder: Path, step: int) -> None:
    """Makes the folder that a checkpoint is written to, and removes those that interrupted runs have left.

    Raises OSError where there is no space.
    """
    for left in folder.glob(".step-*.part"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        part_folder(folder, step).mkdir(parents=True)
    except OSError as error:
        raise not_saved(folder / f"step-{step}", error) from error


def complete(
    folder: Path,
    step: int,
    skeleton: Any,
    keep: int,
    training_fingerprint: Mapping[str, Any] | None = None,
    parts: Mapping[str, str] | None = None,
) -> Path:
    """Gives a checkpoint whose tensors are written its name, and removes all but the last ``keep`` checkpoints.

    skeleton: what ``without_tensors`` returned. parts: the SHA-256 of files of tensors by their names, where several
    devices wrote them. Raises OSError where no space is left.
    """
    final, part = folder / f"step-{step}", part_folder(folder, step)
    written = {"step": step, "training_fingerprint": dict(training_fingerprint or {}), "state": skeleton}
    if parts is not None:
        written[_PARTS] = dict(parts)
    try:
        digest = _digest(part, written)
        _write(part / "state.json", json.dumps({**written, _DIGEST: digest}).encode())
        _remove(final)
        os.replace(part, final)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise not_saved(final, error) from error
    for old in steps(folder)[:-keep]:
        _remove(folder / f"step-{old}")
    return final


def not_saved(path: Path, error: Exception) -> Exception:
    """Returns the error for a checkpoint that could not be written."""
    intact = "the last good checkpoint is intact, and the same command goes on from it"
    if isinstance(error, OSError):
        space = " once there is space" if error.errno in _NO_SPACE else ""
        return OSError(error.errno, f"{path} was not saved ({error.strerror or error}); {intact}{space}")
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    return RuntimeError(f"{path} was not saved ({reason}); {intact}")


def steps(folder: Path) -> list[int]:
    """Returns the steps of the complete checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    found = (re.fullmatch(r"step-(\d+)", entry.name) for entry in folder.iterdir())
    return sorted(int(match.group(1)) for match in found if match)


def load(folder: Path, step: int, target: Target | None = None) -> dict[str, Any]:
    """Returns the state that was saved.

    target: gives the tensors that entries of a sharded training's checkpoint are read into, by names /PATH/TO/ENTRY.
    Raises DamagedCheckpoint where the checkpoint is cut short, of another program, or does not match its digest. Old
    checkpoints have no digest, and the content of parts is left to ``check``, so that devices read their own parts
    alone.
    """
    path = folder / f"step-{step}"
    with _not_whole_is_damaged(path):
        written = _verified(path, parts=False)
        if _PARTS not in written:
            return _with_tensors(written["state"], safetensors.torch.load_file(path / _TENSORS))
        from scm_media.training.sharded_checkpoints import read_parts  # takes a second to import

        return _with_tensors(written["state"], read_parts(path, target))


def check(folder: Path, step: int) -> None:
    """Raises DamagedCheckpoint where a checkpoint is not as it was saved."""
    path = folder / f"step-{step}"
    with _not_whole_is_damaged(path):
        if _PARTS not in _verified(path, parts=True):
            load(folder, step)


@contextmanager
def _not_whole_is_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise
    except _NOT_WHOLE as error:
        raise DamagedCheckpoint(path, f"{type(error).__name__}: {error}") from error


def _verified(path: Path, parts: bool) -> dict[str, Any]:
    """Returns what is written beside a checkpoint's tensors; DamagedCheckpoint where the digest is another.

    parts: whether the files of several devices are read and compared as well.
    """
    written: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
    expected = written.pop(_DIGEST, None)
    if expected is not None and _digest(path, written) != expected:
        raise DamagedCheckpoint(path, "its content does not have its digest, SHA-256")
    if _PARTS in written and {each.name for each in path.glob("*.safetensors")} != written[_PARTS].keys():
        raise DamagedCheckpoint(path, f"its parts are not {', '.join(written[_PARTS])}")
    for name, digest in written.get(_PARTS, {}).items() if parts else ():
        with open(path / name, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise DamagedCheckpoint(path, f"{name} does not have its digest, SHA-256")
    return written


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
            check(folder, step)
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


def _digest(path: Path, written: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the tensors' file and of what is written beside it; of that alone where there are parts.

    The digests of parts are written there.
    """
    if _PARTS in written:
        digest = hashlib.sha256()
    else:
        with open(path / _TENSORS, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
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


def without_tensors(state: Any, tensors: dict[str, Tensor], copied: bool = True) -> Any:
    """Returns a state as JSON values, with names in the place of tensors, which it adds to a dictionary.

    copied: the tensors are copied to the CPU; false adds them as they are, sharded ones included.
    """
    return _without_tensors(state, "", tensors, copied)


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor], copied: bool) -> Any:
    sharded = not copied and is_sharded_tensor(value)
    if is_traceable_wrapper_subclass(value) and not sharded:
        return _without_codes(value, name, tensors, copied)
    if isinstance(value, Tensor):
        kept = value.detach()
        tensors[name] = kept.cpu().clone(memory_format=torch.contiguous_format) if copied else kept
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        # Keys may be integers (optimisers count their parameters): pairs keep their type through JSON.
        return {"__items__": [[key, _without_tensors(v, f"{name}/{key}", tensors, copied)] for key, v in value.items()]}
    if isinstance(value, list | tuple):
        return [_without_tensors(v, f"{name}/{i}", tensors, copied) for i, v in enumerate(value)]
    assert value is None or isinstance(value, bool | int | float | str), f"{name}: {type(value)} cannot be saved"
    return value


def _without_codes(value: Any, name: str, tensors: dict[str, Tensor], copied: bool) -> Any:
    """Returns what restores an average of torchao's 8-bit optimisers, whose codes, scales and map become tensors."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    assert kind == _EIGHT_BIT, f"{name}: {kind} cannot be saved"
    parts, (signed, dtype) = value.__tensor_flatten__()
    inner = {part: _without_tensors(getattr(value, part), f"{name}/{part}", tensors, copied) for part in parts}
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

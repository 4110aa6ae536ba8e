"""Weight files: safetensors with the configuration of their network and a digest in the header, no pickle.

The digest shows damage (a flipped bit, a bad copy), not forgery: one who changes a file can change its digest too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from scm_media.display import printable

NUM_KEYS_SHOWN = 6
MAX_HEADER = 1 << 22
"""Bytes of a header: a network of 20,000 tensors has two megabytes, and each tensor takes time, empty ones too."""
DIGEST = "sha256"
"""The key of the digest in the header; files of other programs and old files, which have none, are read too."""


@dataclass(frozen=True)
class Component:
    """The content of a weight file: tensors by name, the configuration of their network, and free information."""

    state: dict[str, Tensor]
    config: dict[str, Any]
    info: dict[str, Any]


def save(
    path: str | Path,
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    info: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    entries: Mapping[str, str] | None = None,
) -> None:
    """Writes tensors and their configuration to one file, which is complete or as it was before.

    dtype: what floating-point tensors are stored as; theirs when None. entries: more of the header, for other programs.
    Raises ValueError when a value does not fit dtype, OSError when the file cannot be written.
    """
    path = Path(path)
    tensors = to_storage(state, dtype, path)
    header = {**(entries or {}), "config": json.dumps(dict(config)), "info": json.dumps(dict(info or {}))}
    header |= {"format": "pt", DIGEST: _digest(tensors, header["config"], header["info"]).hexdigest()}
    write_whole(path, safetensors.torch.save(tensors, header))


def to_storage(state: Mapping[str, Tensor], dtype: torch.dtype | None, path: Path) -> dict[str, Tensor]:
    """Returns tensors as they are stored: on the CPU, contiguous, floating-point ones as dtype (None: as they are).

    Raises ValueError, naming the file and the tensor, when a value does not fit dtype.
    """
    return {name: _to_storage(name, tensor, dtype, path) for name, tensor in state.items()}


def _to_storage(name: str, tensor: Tensor, dtype: torch.dtype | None, path: Path) -> Tensor:
    source = tensor.detach().cpu()
    if dtype is None or not source.is_floating_point():
        return source.clone(memory_format=torch.contiguous_format)
    cast = source.to(dtype, copy=True, memory_format=torch.contiguous_format)
    if not torch.equal(torch.isfinite(cast), torch.isfinite(source)):
        raise ValueError(
            f"{path}: {name} holds {source.abs().max():.3g}, which does not fit {dtype}; save it as torch.float32"
        )
    return cast


def write_whole(path: str | Path, content: bytes) -> None:
    """Writes a file under another name and renames it: readers find the old content or the new, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # Made anew: a link of this name in a folder that came from elsewhere would lead the content out of it.
        aside.unlink(missing_ok=True)
        with open(aside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        message = f"{path} was not written ({reason}; {len(content)} bytes); free some space or choose another folder"
        raise OSError(error.errno, message) from error


def remove_leftovers(parts: Iterable[Path]) -> None:
    """Removes unfinished files and folders (``.NAME.part``) that processes which were killed have left.

    One whose name has the number of a process that still runs (``.NAME.PROCESS.part``) is left alone.
    """
    for part in list(parts):
        number = re.search(r"\.(\d+)\.part$", part.name)
        if number and is_running(int(number[1])):
            continue
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Returns whether a process of this machine is there; true where that cannot be told without disturbing it."""
    if sys.platform == "win32":  # where signal 0 would be Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def read(path: str | Path, check: bool = True) -> Component:
    """Returns the tensors, configuration and information of a file that ``save`` wrote.

    check: compares the tensors with the file's digest, where it has one; without, tensors on a CPU stay mapped from
    the file and are not read before they are used. Raises ValueError when there is no such file, when it is cut short
    or damaged, and when it has no configuration in its header.
    """
    path = Path(path)
    with _open(path) as file:
        header = file.metadata() or {}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    config, info = _read_header(path, header, list(state))
    texts = header["config"], header.get("info", "")
    if check and DIGEST in header and header[DIGEST] != _digest(state, *texts).hexdigest():
        raise ValueError(
            f"{path} is damaged: its content does not have the digest (SHA-256) in its header; copy it again, or train "
            "or export the model again"
        )
    return Component(state=state, config=config, info=info)


def read_info(path: str | Path) -> dict[str, Any]:
    """Returns the information in a file's header alone, without its tensors. Raises ValueError as ``read``."""
    path = Path(path)
    with _open(path) as file:
        return _read_header(path, file.metadata() or {}, list(file.keys()))[1]


def read_config(path: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Returns the configuration in a file's header and the names of its tensors. Raises ValueError as ``read``."""
    path = Path(path)
    with _open(path) as file:
        names = list(file.keys())
        return _read_header(path, file.metadata() or {}, names)[0], names


def read_tensors(path: str | Path, names: Iterable[str]) -> dict[str, Tensor]:
    """Returns some tensors of a file, mapped from it and compared with no digest. Raises ValueError as ``read``."""
    with _open(Path(path)) as file:
        return {name: file.get_tensor(name) for name in names}


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such weight file; check the path, or train or export the model again")
    with path.open("rb") as raw:
        length = int.from_bytes(raw.read(8), "little")
    if MAX_HEADER < length < path.stat().st_size:
        raise ValueError(f"{path} has a header of {length} bytes, expected at most {MAX_HEADER}; it is no model's")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no whole safetensors file ({printable(error)}): it is cut short or of another format; copy it "
            "again"
        ) from error


def _read_header(path: Path, header: Mapping[str, str], names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the configuration and the information in a header."""
    try:
        found = json.loads(header["config"]), json.loads(header.get("info", "{}"))
        if not all(isinstance(each, dict) for each in found):
            raise ValueError("config and info are mappings")
        return found
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} has no configuration in its header (tensors: {_list_names(sorted(names))}), so it was not "
            "written by scm-media; convert the model first"
        ) from error


def digest(component: Component) -> str:
    """Returns sixteen hexadecimal digits that identify a network by its tensors and configuration."""
    return _digest(component.state, json.dumps(component.config, sort_keys=True)).hexdigest()[:16]


def _digest(state: Mapping[str, Tensor], *texts: str) -> Any:
    """Returns the SHA-256 of some texts and of the names, types, shapes and bytes of tensors."""
    found = hashlib.sha256("".join(texts).encode())
    for name, tensor in sorted(state.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found


def load_into(module: nn.Module, state: Mapping[str, Tensor], source: str | Path = "the weights") -> None:
    """Copies tensors into a module, cast to its types; ValueError as ``check_fits``, the module being unchanged.

    A module on the meta device, which has no memory for them, is only checked.
    """
    check_fits(module, state, source)
    if not any(parameter.is_meta for parameter in module.parameters()):
        module.load_state_dict(state)


def check_fits(module: nn.Module, state: Mapping[str, Tensor], source: str | Path = "the weights") -> None:
    """Raises ValueError that lists missing and unexpected keys and wrong shapes where tensors do not fit a module."""
    if problems := misfits(module.state_dict(), state):
        raise ValueError(
            f"{source} does not fit {type(module).__name__} ({'; '.join(problems)}); it belongs to another "
            "configuration or version"
        )


def misfits(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Returns, as text, which tensors of ``own`` are missing from ``state``, unexpected in it, or of another shape.

    A number without a dimension may take the place of one entry.
    """
    wrong = [
        f"{name} {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape and (state[name].ndim or own[name].shape != (1,))
    ]
    found = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "wrong shape": wrong,
    }
    return [f"{problem}: {_list_names(names)}" for problem, names in found.items() if names]


def widen(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors padded with zeros along their second dimension (input channels) to the size of those of ``like``.

    A layer that is widened in this way ignores its additional input channels.
    """
    wide = dict(state)
    for name, tensor in state.items():
        more = like[name].shape[1] - tensor.shape[1] if name in like and min(like[name].ndim, tensor.ndim) > 1 else 0
        if more > 0:
            wide[name] = torch.cat([tensor, tensor.new_zeros(len(tensor), more, *tensor.shape[2:])], 1)
    return wide


def _list_names(names: Sequence[str]) -> str:
    more = len(names) - NUM_KEYS_SHOWN
    return ", ".join(names[:NUM_KEYS_SHOWN]) + (f" and {more} more" if more > 0 else "")

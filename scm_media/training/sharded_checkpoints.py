"""Checkpoints of sharded trainings: each device writes the parts that it holds, while the training goes on.

``torch.distributed.checkpoint`` writes and reads the tensors, as safetensors. What stands beside them, and the rules of
complete or absent, are those of ``checkpoints``, which reads these checkpoints too: with any number of devices.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed import checkpoint as torch_checkpoint

from scm_media.training import checkpoints
from scm_media.training.devices import rank_zero_only
from scm_media.training.watch import LONGEST_WAIT


class ShardedCheckpoints:
    """Writes checkpoints of a training whose devices hold parts of its tensors.

    ``save`` returns once each device has copied its parts to memory; they are written by a thread. The checkpoint gets
    its name, ``folder/step-N``, when the parts of all devices are on the disk. All devices must make one, and call its
    methods together, but for ``close``. folder must be the same one for all devices.
    """

    def __init__(self, fabric: Any, folder: Path, keep: int, training_fingerprint: Mapping[str, Any] | None) -> None:
        self._fabric, self._folder, self._keep = fabric, folder, keep
        self._training_fingerprint = training_fingerprint
        # Its messages are apart from those of the training, which go on at the same time.
        self._group: Any = torch.distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Begins to write the checkpoint of a step, after the one before is written.

        state: as for ``checkpoints.save``, with tensors that may be sharded. Raises as ``wait``, for the one before.
        """
        self.wait()
        tensors: dict[str, Tensor] = {}
        skeleton = checkpoints.without_tensors(state, tensors, copied=False)
        rank_zero_only(self._fabric, lambda: checkpoints.make_part_folder(self._folder, step))
        folder = checkpoints.part_folder(self._folder, step)
        writer = torch_checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
        written: Any = torch_checkpoint.async_save(tensors, storage_writer=writer, process_group=self._group)
        self._writing = self._thread.submit(self._complete, step, skeleton, written)

    def wait(self) -> None:
        """Waits until the last checkpoint is written; raises the error of any device on all of them."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        writing.exception()  # waits; the first device knows of every error
        rank_zero_only(self._fabric, writing.result)

    def close(self) -> None:
        """Waits for this device's thread, prints its error if there is one, and gives up thread and group."""
        if self._writing is not None and (error := self._writing.exception()) is not None:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        self._thread.shutdown()
        with suppress(ValueError, RuntimeError):  # the others may have ended
            torch.distributed.destroy_process_group(self._group)

    def _complete(self, step: int, skeleton: Any, written: Future[Any]) -> None:
        """Waits for all parts, and on the first device gives the checkpoint its name."""
        folder, final = checkpoints.part_folder(self._folder, step), self._folder / f"step-{step}"
        try:
            with _first_error():
                written.result()
        except Exception as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise checkpoints.not_saved(final, error) from error
        number = torch.distributed.get_rank(self._group) + 1
        own = {file.name: _digest(file) for file in folder.glob(f"shard-{number:05d}-*.safetensors")}
        of_all: list[Any] = [None] * torch.distributed.get_world_size(self._group)
        torch.distributed.all_gather_object(of_all, own, self._group)
        parts = {name: digest for found in of_all for name, digest in found.items()}
        if self._fabric.global_rank == 0:
            seen = {file.name for file in folder.glob("*.safetensors")}
            if seen != parts.keys():
                raise ValueError(
                    f"{final} was not saved: the devices wrote {', '.join(parts) or 'no parts'}, and the first one "
                    f"sees {', '.join(sorted(seen)) or 'none'} in {folder}; put run_dir where all of them see the same "
                    "folder"
                )
            checkpoints.complete(self._folder, step, skeleton, self._keep, self._training_fingerprint, parts)


def read_parts(path: Path, target: checkpoints.Target | None = None) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint of parts, by name.

    target: as for ``checkpoints.load``; of what is sharded, a device reads its own part alone.
    """
    reader = torch_checkpoint.HuggingFaceStorageReader(str(path))
    entries: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    tensors = {}
    for name, entry in entries.items():
        dtype = entry.properties.dtype
        found = None if target is None else target(name, entry.size, dtype)
        tensors[name] = torch.empty(entry.size, dtype=dtype) if found is None else found
    with warnings.catch_warnings(), _first_error():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process may read it
        torch_checkpoint.load(tensors, storage_reader=reader, no_dist=True)
    return tensors


@contextmanager
def _first_error() -> Iterator[None]:
    """Raises what a device met in the place of PyTorch's CheckpointException, which is no Exception."""
    try:
        yield
    except torch_checkpoint.CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from error


def _digest(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()

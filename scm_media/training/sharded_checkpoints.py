"""Checkpoints of sharded trainings: each device writes the parts that it holds, while the training goes on.

``torch.distributed.checkpoint`` writes and reads the tensors, as safetensors. What stands beside them, and the rules of
complete or absent, are those of ``checkpoints``, which reads these checkpoints too: with any number of devices.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed import checkpoint as distributed

from scm_media.training import checkpoints
from scm_media.training.devices import rank_zero_only


class ShardedCheckpoints:
    """Writes checkpoints of a training whose devices hold parts of its tensors.

    ``save`` returns once each device has copied its parts to memory; they are written by a thread. The checkpoint gets
    its name, ``folder/step-N``, when the parts of all devices are on the disk. All devices must make one, and call its
    methods together. folder must be the same one for all devices.
    """

    def __init__(self, fabric: Any, folder: Path, keep: int, training_fingerprint: Mapping[str, Any] | None) -> None:
        self._fabric, self._folder, self._keep = fabric, folder, keep
        self._training_fingerprint = training_fingerprint
        self._group: Any = torch.distributed.new_group(backend="gloo")  # apart from the messages of the training
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Begins to write the checkpoint of a step, after the one before is written.

        state: as for ``checkpoints.save``, with tensors that may be sharded. Raises OSError where the one before could
        not be written.
        """
        self.wait()
        tensors: dict[str, Tensor] = {}
        skeleton = checkpoints.without_tensors(state, tensors, own=False)
        aside = checkpoints.aside(self._folder, step)
        rank_zero_only(self._fabric, lambda: checkpoints.make_aside(self._folder, step))
        writer = distributed.HuggingFaceStorageWriter(str(aside), save_distributed=True)
        written: Any = distributed.async_save(tensors, storage_writer=writer, process_group=self._group)
        self._writing = self._thread.submit(self._complete, step, skeleton, written)

    def wait(self) -> None:
        """Waits until the last checkpoint is written; OSError on all devices where one of them could not write it."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        writing.exception()  # waits; the first device knows of every error
        rank_zero_only(self._fabric, writing.result)

    def _complete(self, step: int, skeleton: Any, written: Future[Any]) -> None:
        """Waits for all parts, and on the first device gives the checkpoint its name."""
        aside = checkpoints.aside(self._folder, step)
        try:
            written.result()
        except distributed.CheckpointException as error:
            found = next((each for each, _ in error.failures.values() if isinstance(each, OSError)), None)
            shutil.rmtree(aside, ignore_errors=True)
            raise checkpoints.not_saved(self._folder / f"step-{step}", found or OSError(str(error))) from error
        if self._fabric.global_rank == 0:
            checkpoints.complete(self._folder, step, skeleton, self._keep, self._training_fingerprint)


def read_parts(path: Path, like: checkpoints.Like | None = None) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint of parts, by name.

    like: as for ``checkpoints.load``; of what is sharded, a device reads its own part alone.
    """
    reader = distributed.HuggingFaceStorageReader(str(path))
    entries: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    tensors = {name: _empty(found, None if like is None else like(name)) for name, found in entries.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process may read it
        distributed.load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def _empty(entry: Any, like: Tensor | None) -> Tensor:
    if like is not None and like.shape == entry.size:
        return torch.empty_like(like, dtype=entry.properties.dtype)
    return torch.empty(entry.size, dtype=entry.properties.dtype)

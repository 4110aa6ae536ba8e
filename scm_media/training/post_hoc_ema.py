"""Post-hoc EMA: snapshots of averages from which one of any length is rebuilt and selected after training.

Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models" (EDM2,
arXiv 2312.02696), section 3.2: two averages, of relative standard deviation 0.05 and 0.10, are saved regularly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scm_media import weights
from scm_media.ema import STDS, PowerEMA, combination
from scm_media.pipeline.model_folder import ModelFolder
from scm_media.training.sharding import shard_like

FOLDER = "snapshots"
COPIED = "copied"
KEY = "ema"
"""The key in a weight file's header that says how its average was selected."""
LARGEST_HALF = torch.finfo(torch.float16).max


class Snapshots:
    """Averages of a module's weights, of the lengths ``STDS``, written into a folder at evenly spaced steps.

    every: steps between snapshots. The spacing doubles whenever more than ``keep`` snapshots would be kept, and those
    in between are removed, so that the snapshots span the whole training. Their steps follow from the current step
    alone: a resumed run leaves the same files. own: the average that the training keeps anyway.
    """

    def __init__(self, folder: Path, module: nn.Module, own: PowerEMA, every: int, keep: int) -> None:
        self.folder, self.every, self.keep = folder, every, keep
        self.averages = {std: own if own.std == std else PowerEMA(module, std) for std in STDS}
        self._apart = {std: ema for std, ema in self.averages.items() if ema is not own}

    def update(self, step: int) -> None:
        """Updates all averages but the training's own after optimiser step ``step``, counted from 1."""
        for ema in self._apart.values():
            ema.update(step)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of all averages but the training's own, for checkpoints."""
        return {str(std): ema.state_dict() for std, ema in self._apart.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restores saved averages; ValueError where they do not fit."""
        for std, ema in self._apart.items():
            ema.load_state_dict(shard_like(state[str(std)], ema.averaged))

    def due(self, step: int) -> bool:
        """Returns whether a snapshot is written after this step."""
        return step % self._spacing(step) == 0

    def content(self) -> dict[float, dict[str, Tensor]]:
        """Returns the averages that a snapshot is written of, by their relative standard deviation."""
        return {std: ema.averaged for std, ema in self.averages.items()}

    def write(self, step: int, content: Mapping[float, Mapping[str, Tensor]]) -> None:
        """Writes a snapshot, in float16 where its values allow it, and removes those closer than the present spacing.

        content: the averages as ``content`` has them, of whole tensors.
        """
        state = {}
        for std, averaged in content.items():
            parameters = self.averages[std].parameters
            for name, value in averaged.items():
                if name not in parameters:
                    state[f"{COPIED}/{name}"] = value
                else:
                    state[f"{std}/{name}"] = value.half() if bool((value.abs() <= LARGEST_HALF).all()) else value
        weights.save(_file(self.folder, step), state, {"averages": list(STDS)}, {"step": step})
        spacing = self._spacing(step)
        for other in snapshot_steps(self.folder):
            if other < step and other % spacing:
                _file(self.folder, other).unlink()

    def clear(self) -> None:
        """Removes the snapshots of a training that begins anew."""
        for step in snapshot_steps(self.folder):
            _file(self.folder, step).unlink()

    def _spacing(self, step: int) -> int:
        spacing = self.every
        while step > spacing * self.keep:
            spacing *= 2
        return spacing


def snapshot_steps(folder: Path) -> list[int]:
    """Returns the steps of the snapshots in a folder, ascending."""
    found = (re.fullmatch(r"step-(\d+)\.safetensors", path.name) for path in folder.glob("step-*.safetensors"))
    return sorted(int(match[1]) for match in found if match)


def rebuild(folder: Path, std: float, step: int) -> dict[str, Tensor]:
    """Returns the average of relative standard deviation ``std`` at a step, in float32, from the snapshots up to it.

    Buffers are those of the last snapshot. Raises ValueError when there is no snapshot.
    """
    steps = [each for each in snapshot_steps(folder) if each <= step]
    if not steps:
        raise ValueError(
            f"{folder} holds no snapshots up to step {step} to rebuild averages from; train with "
            "trainer.snapshot_every=STEPS"
        )
    factors = combination([(kept, each) for each in steps for kept in STDS], std, step)
    result: dict[str, Tensor] = {}
    for index, each in enumerate(steps):
        for key, value in weights.read(_file(folder, each)).state.items():
            kind, _, name = key.partition("/")
            if kind == COPIED:
                result[name] = value
            else:
                factor = factors[index * len(STDS) + STDS.index(float(kind))]
                result[name] = result.get(name, torch.zeros(())) + factor * value.double()
    return {name: value.float() if value.dtype == torch.float64 else value for name, value in result.items()}


def _file(folder: Path, step: int) -> Path:
    return folder / f"step-{step}.safetensors"


def keep_average(folder: ModelFolder, stage: str, state: Mapping[str, Tensor], choice: Mapping[str, Any]) -> Path:
    """Replaces a stage's weights by a selected average, noted in their header and in ``model.json``.

    Returns the file ``weights-trained.safetensors``, which keeps the weights that training left.
    """
    file = folder.file(stage)
    component = weights.read(file)
    trained = file.with_name("weights-trained.safetensors")
    if KEY not in component.info:
        weights.write_whole(trained, file.read_bytes())
    weights.save(file, state, component.config, {**component.info, KEY: dict(choice)})
    folder.redescribe(lambda written: replace(written, ema={**(written.ema or {}), stage: dict(choice)}))
    return trained


def is_selected(file: Path, step: int) -> bool:
    """Returns whether a stage's weights are an average that was selected after the training to this step."""
    if not file.exists():
        return False
    info = weights.read_info(file)
    return KEY in info and info.get("step") == step


def selected_averages(run_dir: Path) -> dict[str, Any]:
    """Returns how the average of each stage was selected, for ``model.json``."""
    files = {stage: run_dir / stage / "weights.safetensors" for stage in ("teacher", "student")}
    infos = {stage: weights.read_info(file) for stage, file in files.items() if file.exists()}
    return {stage: info[KEY] for stage, info in infos.items() if KEY in info}

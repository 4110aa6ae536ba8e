"""Averages of several lengths, kept on the way, from which one of any length is rebuilt after training.

Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models" (EDM2,
arXiv 2312.02696), section 3.2: two averages, of relative deviation 0.05 and 0.10, saved regularly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scm_media import weights
from scm_media.ema import STDS, PowerEMA, combination

FOLDER = "snapshots"
COPIED = "copied"
LARGEST_HALF = torch.finfo(torch.float16).max


class Snapshots:
    """Averages of the lengths ``STDS`` of a module, written into a folder at evenly spaced steps.

    every: steps between snapshots. As a training goes on the spacing doubles whenever it would keep more than
    ``keep``, and those in between are removed, so that what is kept spans the whole training. Which steps those are
    follows from the step alone: a resumed run leaves the same files. own: the average that the training keeps anyway.
    """

    def __init__(self, folder: Path, module: nn.Module, own: PowerEMA, every: int, keep: int) -> None:
        self.folder, self.every, self.keep = folder, every, keep
        self.averages = {std: own if own.std == std else PowerEMA(module, std) for std in STDS}
        self._apart = {std: ema for std, ema in self.averages.items() if ema is not own}

    def update(self, step: int) -> None:
        """Takes the module's weights in after optimiser step ``step``, counted from 1; not into the training's own."""
        for ema in self._apart.values():
            ema.update(step)

    def state_dict(self) -> dict[str, Any]:
        """What must be saved beside the training's own average to go on bit for bit."""
        return {str(std): ema.state_dict() for std, ema in self._apart.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes saved averages back; ValueError where they do not fit."""
        for std, ema in self._apart.items():
            ema.load_state_dict(state[str(std)])

    def due(self, step: int) -> bool:
        """Whether there is to be a snapshot of this step."""
        return step % self._spacing(step) == 0

    def write(self, step: int) -> None:
        """Writes a snapshot, complete or absent, and removes those that the spacing has outgrown."""
        state = {}
        for std, ema in self.averages.items():
            for name, value in ema.averaged.items():
                if name not in ema.parameters:
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
    """The steps of the snapshots in a folder, ascending."""
    found = (re.fullmatch(r"step-(\d+)\.safetensors", path.name) for path in folder.glob("step-*.safetensors"))
    return sorted(int(match[1]) for match in found if match)


def rebuild(folder: Path, std: float, step: int) -> dict[str, Tensor]:
    """The average of relative deviation ``std`` at a step, float32, from the snapshots up to it, read one by one.

    What is not averaged (buffers) is that of the last snapshot. Raises ValueError when there is no snapshot.
    """
    steps = [each for each in snapshot_steps(folder) if each <= step]
    if not steps:
        raise ValueError(
            f"{folder} holds no snapshots up to step {step}, which averages are rebuilt from; train with "
            "trainer.snapshot_every=STEPS"
        )
    factors = combination([(kept, each) for each in steps for kept in STDS], std, step)
    result: dict[str, Tensor] = {}
    for place, each in enumerate(steps):
        for key, value in weights.read(_file(folder, each)).state.items():
            kind, _, name = key.partition("/")
            if kind == COPIED:
                result[name] = value
            else:
                factor = factors[place * len(STDS) + STDS.index(float(kind))]
                result[name] = result.get(name, torch.zeros(())) + factor * value.double()
    return {name: value.float() if value.dtype == torch.float64 else value for name, value in result.items()}


def _file(folder: Path, step: int) -> Path:
    return folder / f"step-{step}.safetensors"

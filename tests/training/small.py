"""image/tiny made smaller still, and one-parameter tasks whose steps can be worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scm_media import recipe, training, weights
from scm_media.data import Batch, Dataset, Example
from scm_media.fabric import Fabric
from scm_media.training import loop
from scm_media.training.stages.backbones import auxiliary_network

SMALL = (
    "device=cpu",
    "logger=none",
    "feature_extractor=null",
    "autoencoder.num_samples=64",
    "data.num=64",
    "modality.flip=true",
    "backbone.width=16",
    "backbone.num_heads=2",
    "backbone.depth=1",
    "backbone.dropout=0.1",
    "teacher.batch_size=8",
    "teacher.max_steps=6",
    "teacher.warmup_steps=2",
    "teacher.decay=constant",
    "student.batch_size=8",
    "student.max_steps=6",
    "student.loss.tangent_warmup=3",
    "trainer.log_every=1",
    "trainer.checkpoint_every=2",
    "trainer.validate_every=1000",
    "trainer.sample_every=1000",
    "trainer.sample_early=[]",
    "trainer.num_preview_samples=2",
)
"""Overrides of image/tiny: a stage of six steps takes a fraction of a second."""

DISTIL = (
    "device=cpu",
    "logger=none",
    "precision=32-true",
    "feature_extractor=null",
    "data=none",
    "data.num=32",
    "trajectories.num=16",
    "trajectories.batch_size=8",
    "trajectories.shard_size=8",
    "trajectories.steps=2",
    "student.warmup_steps=1",
    "trainer.num_workers=0",
    "trainer.sample_early=[]",
    "trainer.num_preview_samples=2",
)
"""Overrides of */distil without samples: each stage of a few steps takes a fraction of a second."""

TRAINER = {
    "log_every": 1,
    "checkpoint_every": 1000,
    "sample_every": 1000,
    "validate_every": 1000,
    "keep_checkpoints": 2,
    "snapshot_every": 0,
    "keep_snapshots": 16,
    "num_workers": 0,
    "gradient_clip": None,
    "accumulate": 1,
    "max_nonfinite_steps": 2,
    "sample_early": [],
}


def train(run_dir: Path, *overrides: str) -> Path:
    """Trains a small recipe in this process and returns its run folder."""
    training.run(recipe.compose("image/tiny", [*SMALL, f"run_dir={run_dir}", *overrides]))
    return run_dir


def state(run_dir: Path, stage: str) -> dict[str, Tensor]:
    """Returns the weights that a stage left."""
    return weights.read(run_dir / stage / "weights.safetensors").state


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Returns whether all tensors are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of a stage's ``metrics.jsonl``."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def forget_fingerprint(checkpoint: Path) -> None:
    """Makes a checkpoint one of those that were saved before fingerprints and digests were kept."""
    written = json.loads((checkpoint / "state.json").read_text())
    del written["training_fingerprint"], written["sha256"]
    (checkpoint / "state.json").write_text(json.dumps(written))


class Numbers(Dataset):
    """The numbers 0 … num − 1 as samples ``(1,)``; remembers which were asked for."""

    shape = (1,)

    def __init__(self, num: int = 16) -> None:
        self.num = num
        self.seen: list[int] = []

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> Example:
        return Example(torch.tensor([float(index)]))

    def batch(self, indices: Sequence[int], generators: Any = None) -> Batch:
        self.seen.extend(indices)
        return Batch(torch.tensor(indices, dtype=torch.float32)[:, None])


class Slope(nn.Module):
    """loss = w · x averaged: the gradient is the mean of x. ``factors``: step to a factor on the loss."""

    def __init__(self, slopes: Sequence[float] = (1.0,), factors: dict[int, float] | None = None) -> None:
        super().__init__()
        self.net = nn.Linear(len(slopes), 1, bias=False)
        nn.init.zeros_(self.net.weight)
        self.slopes, self.factors = torch.tensor(slopes), factors or {}

    def forward(self, x: Tensor, step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        each = self.net(self.slopes.expand(len(x), -1)).squeeze(1) * self.factors.get(int(step.clamp(max=1e6)), 1.0)
        return each.mean(), {"loss": each.detach()}


def run_task(
    folder: Path,
    loss: nn.Module,
    max_steps: int,
    data: Any = None,
    fabric: Fabric | None = None,
    preview: Any = None,
    finish: Any = lambda averaged, step, header: None,
    settings: Mapping[str, Any] | None = None,
    **trainer: Any,
) -> dict[str, Tensor]:
    """Trains a loss with plain gradient descent of rate 1 and returns its state dict."""
    task = loop.Task(
        name="teacher",
        loss=loss,
        model=loss.net,
        settings={
            "max_steps": max_steps,
            "batch_size": 4,
            "optimizer": {"_target_": "torch.optim.SGD", "lr": 1.0},
            "warmup_steps": 0,
            "decay": "constant",
            "ema_std": 0.05,
            **(settings or {}),
        },
        inputs=lambda batch: (batch.sample,),
        finish=finish,
        preview=preview,
        separate_clip=[loss.weight] if hasattr(loss, "weight") else [],
        auxiliary=auxiliary_network(loss),
    )
    loop.train(
        fabric or Fabric(accelerator="cpu", devices=1),
        task,
        TRAINER | trainer,
        data or Numbers(),
        Numbers(4),
        folder,
        seed=0,
    )
    return loss.state_dict()


def flip_last_bits(file: Path) -> None:
    """Changes one bit near the end of a file."""
    content = bytearray(file.read_bytes())
    content[-9] ^= 4
    file.write_bytes(content)

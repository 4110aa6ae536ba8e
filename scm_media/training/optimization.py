"""The optimisation of one stage: its task, learning rate, steps and averages, and all of that in a checkpoint."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from scm_media import weights
from scm_media.build import build
from scm_media.compiler import compiler_errors
from scm_media.data import Batch
from scm_media.data.order import Division
from scm_media.draws import draw_by_sample, seed_dropout
from scm_media.ema import PowerEMA
from scm_media.guidance import parts_of
from scm_media.nn.magnitude import renormalize
from scm_media.seeds import mix
from scm_media.training import checkpoints
from scm_media.training.devices import rank_zero_only
from scm_media.training.early_stopping import EarlyStopping
from scm_media.training.post_hoc_ema import Snapshots
from scm_media.training.sharding import (
    gather,
    is_sharded,
    is_sharded_tensor,
    place_in_batch,
    shard_like,
    shard_optimizer_state,
    whole_tensor,
)

Finish = Callable[[Mapping[str, Tensor], int, Mapping[str, int]], None]


@dataclass
class Task:
    """One stage's training: what is trained, on what, and what is done with the result.

    loss: a module whose forward returns (loss, terms). model: the part of it that is averaged and saved. settings: the
    stage's section of the recipe. inputs: maps a batch on the device to the loss's arguments but for the step.
    separate_clip: modules (a learned weight) whose gradients are clipped apart. auxiliary: a network that is trained
    beside the model and not kept, and its learning rate in units of the model's; its gradients are clipped apart too.
    precision: None for the recipe's. shardable: whether ``strategy=fsdp`` may shard its networks. preview(model, step,
    folder): writes sheets of the averaged model, none where the folder is None, and returns figures. finish(state,
    step, header): writes the stage's weights, averages of a step, with further entries of their file's header.
    training_fingerprint: is saved with checkpoints. snapshots: whether snapshots of averages are kept. frozen: a
    network that the loss or the sheets call and that is not trained, which is sharded as the trained ones are. compile:
    compiles the networks, called only when there is something to train.
    """

    name: str
    loss: nn.Module
    model: nn.Module
    settings: dict[str, Any]
    inputs: Callable[[Batch], tuple[Any, ...]]
    finish: Finish
    preview: Callable[[nn.Module, int, Path | None], dict[str, float]] | None = None
    separate_clip: list[nn.Module] = field(default_factory=list)
    auxiliary: tuple[nn.Module, float] | None = None
    precision: str | None = None
    shardable: bool = False
    training_fingerprint: dict[str, Any] = field(default_factory=dict)
    snapshots: bool = False
    frozen: nn.Module | None = None
    compile: Callable[[], None] | None = None


def stage_number(name: str) -> int:
    """Returns a number for a stage's name, from which its seeds are derived."""
    return int.from_bytes(name.encode()[:6], "big")


def rate_factor(step: int, max_steps: int, warmup_steps: int, decay: str, decay_steps: int | None = None) -> float:
    """Returns the learning rate at a step, counted from 0, as a fraction of its peak: linear warm-up, then a decay.

    decay: constant; cosine, to 0 at ``max_steps``; inverse_sqrt, 1 until ``decay_steps``, then sqrt(decay_steps / step)
    (EDM2, equation 67).
    """
    warm = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    if decay == "constant":
        return warm
    if decay == "cosine":
        done = max(0.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    if decay == "inverse_sqrt":
        if not decay_steps:
            raise ValueError("decay_steps must be given for decay 'inverse_sqrt'")
        return warm * min(1.0, math.sqrt(decay_steps / max(1, step)))
    raise ValueError(f"decay must be constant, cosine or inverse_sqrt, got {decay!r}")


def divide(fabric: Any, task: Task, trainer: Mapping[str, Any]) -> Division:
    """Returns how a task's batches are divided among devices and passes; ValueError where they cannot be."""
    division = Division(*place_in_batch(fabric), trainer["accumulate"])
    try:
        division.part(task.settings["batch_size"], 0)
    except ValueError as error:
        raise ValueError(f"{task.name}.{error}") from error
    return division


class _Closed(nn.Module):
    """The loss as Fabric wraps it: its arguments come in a closure, since Fabric refuses frozen dataclasses.

    frozen: the networks that are sharded with the loss and are no part of it.
    """

    def __init__(self, loss: nn.Module, frozen: tuple[nn.Module, ...] = ()) -> None:
        super().__init__()
        self.loss, self.frozen = loss, frozen

    def forward(self, arguments: Callable[[], tuple[Any, ...]]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss(*arguments())


@dataclass(frozen=True)
class StepFigures:
    """Figures of one step: the loss (mean over all devices), its terms (of this device), gradient norm and rate."""

    loss: float
    terms: list[dict[str, Tensor]]
    gradient_norm: float
    rate: float

    def as_dict(self) -> dict[str, float]:
        """Returns the figures of the whole step, without its terms, by their names in ``metrics.jsonl``."""
        return {"total": self.loss, "gradient_norm": self.gradient_norm, "rate": self.rate}


def parameter_groups(task: Task) -> tuple[list[dict[str, Any]], list[float]]:
    """Returns the trained parameters, those of an auxiliary network in a second group, and the groups' rate factors."""
    trained = [parameter for parameter in task.loss.parameters() if parameter.requires_grad]
    if task.auxiliary is None:
        return [{"params": trained}], [1.0]
    network, factor = task.auxiliary
    apart = {id(parameter) for parameter in network.parameters()}
    own, other = ([each for each in trained if (id(each) in apart) is other] for other in (False, True))
    return [{"params": own}, {"params": other}], [1.0, factor]


class Optimization:
    """Takes the optimiser steps of a task, for the training loop and for ``scm-media bench`` alike.

    A step computes the gradients of ``trainer["accumulate"]`` passes, clips them, steps the optimiser, renormalises
    magnitude-preserving weights and updates the averages. Noise and times are functions of (seed, stage, step, place in
    the batch), dropout of (seed, stage, rank, step).

    snapshots: the folder of the snapshots of averages, None for none. ``skipped`` and ``skipped_in_a_row`` count steps
    whose loss or gradient was not finite.
    """

    def __init__(
        self, fabric: Any, task: Task, trainer: Mapping[str, Any], seed: int, snapshots: Path | None = None
    ) -> None:
        self.fabric, self.task, self.trainer, self.seed = fabric, task, trainer, seed
        self._division = divide(fabric, task, trainer)
        self._module = fabric.setup_module(_Closed(task.loss, parts_of(task.frozen)))
        groups, self._rate_factors = parameter_groups(task)  # of the parameters as they are sharded, if they are
        optimizer = build(task.settings["optimizer"], "optimizer", params=groups)
        self.peak_rate = float(optimizer.defaults["lr"])
        self.optimizer = fabric.setup_optimizers(optimizer)
        self.ema = PowerEMA(task.model, task.settings["ema_std"])
        self.snapshots: Snapshots | None = None
        if snapshots is not None:
            every, keep = trainer["snapshot_every"], trainer["keep_snapshots"]
            self.snapshots = Snapshots(snapshots, task.model, self.ema, every, keep)
        patience = task.settings.get("patience")
        self.stopping = None if patience is None else EarlyStopping(patience)
        self.skipped = self.skipped_in_a_row = 0

    def step(self, arguments: Iterator[tuple[Any, ...]], step: int) -> StepFigures:
        """Takes step ``step``, counted from 0, on the loss's next arguments.

        A step whose loss or gradient is not finite changes no weight. Raises ValueError when there are more than
        ``trainer["max_nonfinite_steps"]`` of them in a row.
        """
        settings = self.task.settings
        schedule = (settings["max_steps"], settings["warmup_steps"], settings["decay"], settings.get("decay_steps"))
        rate = self.peak_rate * rate_factor(step, *schedule)
        for group, factor in zip(self.optimizer.param_groups, self._rate_factors, strict=True):
            if isinstance(group["lr"], Tensor):  # of an optimiser that compiles its step (torchao)
                group["lr"].fill_(rate * factor)
            else:
                group["lr"] = rate * factor
        losses, terms = self._backward(arguments, step)
        # The host waits here for all figures at once: it must know whether the step is finite.
        *of_passes, gradient_norm, separate_norm, auxiliary_norm = torch.cat([losses, *self._clip()]).tolist()
        loss = sum(of_passes) / len(of_passes)
        finite = all(map(math.isfinite, (loss, gradient_norm, separate_norm, auxiliary_norm)))
        if finite:
            with self._compiling():
                self.optimizer.step()
            renormalize(self.task.model)
            if self.task.auxiliary is not None:
                renormalize(self.task.auxiliary[0])
        self._count(finite, step)
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(step + 1)
        if self.snapshots is not None:
            self.snapshots.update(step + 1)
        return StepFigures(loss, terms, gradient_norm, rate)

    def _compiling(self) -> AbstractContextManager[None]:
        """Returns a context that explains compiler errors of an optimiser that compiles its step, as torchao's do."""
        if not type(self.optimizer.optimizer).__module__.startswith("torchao."):
            return nullcontext()
        name = self.task.name
        return compiler_errors(f"{name}.optimizer: its step", f"choose another one (optimizer@{name}.optimizer=adam)")

    def _backward(self, arguments: Iterator[tuple[Any, ...]], step: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Computes the gradients of a step's whole batch; returns the loss of each pass, and the terms.

        The losses are means over all devices, which come to the same verdict on a step that is not finite.
        """
        fabric, accumulate = self.fabric, self.trainer["accumulate"]
        stage, batch_size = stage_number(self.task.name), self.task.settings["batch_size"]
        losses, terms = [], []
        for micro in range(accumulate):
            seed_dropout(mix(self.seed, stage, fabric.global_rank, step, micro), fabric.device)
            part = self._division.part(batch_size, micro)
            with draw_by_sample(mix(self.seed, stage, step), part.start, batch_size):
                given = (*next(arguments), torch.full((), float(step), device=fabric.device))
                # Sharded gradients are reduced in each pass: whole ones would be kept until the last.
                waits = micro < accumulate - 1 and not is_sharded(fabric)
                with fabric.no_backward_sync(self._module, enabled=waits):
                    loss, of_batch = self._module(lambda given=given: given)
                    fabric.backward(loss / accumulate)
            losses.append(loss.detach())
            terms.append(of_batch)
        whole = torch.stack(losses)
        return (fabric.all_reduce(whole, reduce_op="mean") if fabric.world_size > 1 else whole), terms

    def _clip(self) -> list[Tensor]:
        """Clips the gradients; returns their norms ``(1,)`` before it.

        They are those of the backbone, of the parameters that are clipped apart, and of the auxiliary network.
        """
        auxiliary = [] if self.task.auxiliary is None else list(self.task.auxiliary[0].parameters())
        apart = [parameter for module in self.task.separate_clip for parameter in module.parameters()]
        separate = {id(parameter) for parameter in (*apart, *auxiliary)}
        others = [parameter for parameter in self.task.loss.parameters() if id(parameter) not in separate]
        limit = self.trainer["gradient_clip"]
        largest = math.inf if limit is None else limit
        none = torch.zeros((), device=self.fabric.device)
        norms = [clip_grad_norm_(each, largest) if each else none for each in (others, apart, auxiliary)]
        return [whole_tensor(norm).reshape(1) for norm in norms]

    def _count(self, finite: bool, step: int) -> None:
        self.skipped += not finite
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        if self.skipped_in_a_row > self.trainer["max_nonfinite_steps"]:
            name = self.task.name
            raise ValueError(
                f"{name}: loss or gradient was not finite for {self.skipped_in_a_row} steps in a row (to step {step}): "
                f"lower {name}.optimizer.lr ({self.peak_rate}) or set precision=32-true, in another run_dir"
            )

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a training needs to go on bit for bit, for a checkpoint."""
        return {
            "loss": self.task.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "snapshots": None if self.snapshots is None else self.snapshots.state_dict(),
            "stopping": None if self.stopping is None else self.stopping.state_dict(self.ema),
        }

    def _whole(self, state: Any) -> Any:
        return gather(state, self.fabric.global_rank == 0) if is_sharded(self.fabric) else state

    def _targets(self) -> checkpoints.Target:
        """Returns a function that gives the sharded tensor that an entry of a checkpoint is read into, None for none.

        Weights and averages are read into their place, so that no device holds them twice.
        """
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        weights_of, averages = self.task.loss.state_dict(), self.ema.averaged

        def target(name: str, size: torch.Size, dtype: torch.dtype) -> Tensor | None:
            _, section, *rest = name.split("/")
            place: Tensor | None = None
            if section == "optimizer":
                number = int(rest[1]) if rest[:1] == ["state"] else len(parameters)
                place = parameters[number] if number < len(parameters) else None
            elif rest:
                place = (weights_of if section == "loss" else averages).get(rest[-1])
            if place is None or not is_sharded_tensor(place) or place.shape != size:
                return None
            in_place = section in ("loss", "ema") and place.dtype == dtype
            return place.detach() if in_place else torch.empty_like(place, dtype=dtype)

        return target

    def finish(self, last_step: int) -> None:
        """Writes the stage's weights: the averages of the last step, or with patience those of the best validation.

        All devices must call this; the first one writes.
        """
        if self.stopping is None or self.stopping.weights is None:
            averaged, step, header = self.ema.averaged, last_step, dict[str, int]()
        else:
            averaged, step, header = self.stopping.weights, self.stopping.step, self.stopping.header(last_step)
        whole = self._whole(averaged)
        rank_zero_only(self.fabric, lambda: self.task.finish(whole, step, header))

    def write_snapshot(self, step: int) -> None:
        """Writes a snapshot of the averages; all devices must call this, and the first one writes."""
        assert self.snapshots is not None
        state = self._whole(self.snapshots.content())
        rank_zero_only(self.fabric, partial(self.snapshots.write, step, state))

    def restore(self, folder: Path) -> int:
        """Loads the last checkpoint in a folder and returns its step, 0 where there is none.

        Snapshots are given up where the checkpoint has none. Raises ValueError for a checkpoint of another recipe, or
        of another program.
        """
        found = checkpoints.steps(folder)
        if not found:
            return 0
        path, saved = folder / f"step-{found[-1]}", checkpoints.load(folder, found[-1], self._targets())
        if lacking := [name for name in ("loss", "optimizer", "ema", "skipped") if name not in saved]:
            raise ValueError(
                f"{path} is a checkpoint of something else: it has {', '.join(saved) or 'nothing'} and lacks "
                f"{', '.join(lacking)}; use another run_dir"
            )
        problems = weights.misfits(self.task.loss.state_dict(), saved["loss"])
        groups = saved["optimizer"].get("param_groups") or [{}]
        if self.optimizer.param_groups[0].keys() != groups[0].keys():
            problems.append("another optimizer")
        if problems:
            raise ValueError(f"{path} belongs to another recipe ({'; '.join(problems)}): use another run_dir")
        self.task.loss.load_state_dict(shard_like(saved["loss"], self.task.loss.state_dict()))
        self.optimizer.load_state_dict(shard_optimizer_state(saved["optimizer"], self.optimizer))
        self.ema.load_state_dict(shard_like(saved["ema"], self.ema.averaged))
        self.skipped = saved["skipped"]
        self.skipped_in_a_row = saved.get("skipped_in_a_row", 0)  # absent from old checkpoints
        if self.stopping is not None and saved.get("stopping") is not None:
            self.stopping.load_state_dict(saved["stopping"], self.ema)
        if self.snapshots is not None and saved.get("snapshots") is not None:
            self.snapshots.load_state_dict(saved["snapshots"])
        elif self.snapshots is not None:
            print(
                f"{self.task.name}: no snapshots of averages, its training began without (step {found[-1]})",
                file=sys.stderr,
            )
            self.snapshots = None
        return found[-1]

"""The loop that trains whatever a task asks for: one file, no branch by stage."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scm_media.build import build
from scm_media.data import Batch, batches
from scm_media.data.order import mix
from scm_media.ema import PowerEMA
from scm_media.nn.magnitude import renormalize
from scm_media.training import checkpoints
from scm_media.training.interruption import Interruption
from scm_media.training.ranks import rank_zero_only
from scm_media.training.reporting import Reporter, TermAverages
from scm_media.training.schedule import rate_factor
from scm_media.training.snapshots import FOLDER as SNAPSHOTS
from scm_media.training.snapshots import Snapshots
from scm_media.training.state import TrainingState
from scm_media.training.waiting import DataWaitMeter


@dataclass
class Task:
    """What one stage trains.

    loss: a module whose forward gives (loss, terms). model: the part of it whose average is kept and saved.
    inputs: from a batch on the device to the loss's arguments, before the step. separate_clip: parameters (a learned
    weight) whose gradients are clipped on their own. precision: the stage's own, None for the recipe's.
    preview(model, step, folder): sheets and figures from the averaged model. finish(state, step): writes the stage's
    weights. training_fingerprint: what its steps follow from, kept in checkpoints. snapshots: whether averages of
    other lengths are to be had afterwards. compile: compiles what it trains, when there is something to train.
    """

    name: str
    loss: nn.Module
    model: nn.Module
    settings: dict[str, Any]
    inputs: Callable[[Batch], tuple[Any, ...]]
    finish: Callable[[dict[str, Tensor], int], None]
    preview: Callable[[nn.Module, int, Path], dict[str, float]] | None = None
    separate_clip: list[nn.Parameter] = field(default_factory=list)
    precision: str | None = None
    training_fingerprint: dict[str, Any] = field(default_factory=dict)
    snapshots: bool = False
    compile: Callable[[], None] | None = None


class _Unopened(nn.Module):
    """The loss as Fabric may wrap it: its arguments in a closure, since Fabric refuses frozen dataclasses."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, arguments: Callable[[], tuple[Any, ...]]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss(*arguments())


def train(fabric: Any, task: Task, trainer: dict[str, Any], data: Any, held_out: Any, folder: Path, seed: int) -> None:
    """Trains a task to its ``max_steps``, from its last checkpoint if there is one, and writes its weights.

    Data order, noise and dropout of a step are functions of (seed, stage, rank, step) alone: a run that is killed and
    resumed ends in the same weights as one that was not. After SIGINT or SIGTERM the step under way is finished and
    saved, and SystemExit raised (``Interruption``). Raises ValueError for a checkpoint of another recipe or cut short,
    and when loss or gradients stay not finite; OSError when a checkpoint cannot be written.
    """
    settings, max_steps = task.settings, task.settings["max_steps"]
    fraction = _share(task, fabric.world_size, trainer["accumulate"])
    if task.compile is not None and max(checkpoints.steps(folder / "checkpoints"), default=0) < max_steps:
        task.compile()
    optimizer = build(settings["optimizer"], "optimizer", params=[p for p in task.loss.parameters() if p.requires_grad])
    module, optimizer = fabric.setup(_Unopened(task.loss), optimizer)
    ema = PowerEMA(task.model, settings["ema_std"])
    snapshots = None
    if task.snapshots and trainer["snapshot_every"]:
        snapshots = Snapshots(folder / SNAPSHOTS, task.model, ema, trainer["snapshot_every"], trainer["keep_snapshots"])
    state = TrainingState(task.name, task.loss, optimizer, ema, snapshots)
    start = state.restore(folder / "checkpoints")
    if start >= max_steps:
        rank_zero_only(fabric, lambda: task.finish(ema.averaged, start))
        if fabric.global_rank == 0:
            print(f"{task.name}: trained to step {start} before (max_steps {max_steps})", file=sys.stderr)
        return

    logger = fabric.logger if fabric.loggers else None
    reporter = Reporter(folder, task.name, max_steps, start, logger) if fabric.global_rank == 0 else None
    terms = TermAverages()
    stream = DataWaitMeter(_stream(data, fraction, start, max_steps, trainer, seed, fabric))
    kept = folder / "checkpoints"
    with ExitStack() as ended:
        if reporter is not None:
            ended.callback(reporter.close)
        interruption = ended.enter_context(Interruption())
        if start == 0:
            if state.snapshots is not None:
                rank_zero_only(fabric, state.snapshots.clear)
            _preview(fabric, task, ema, 0, folder, reporter)
        for step in range(start, max_steps):
            begun = time.perf_counter()
            rate = state.set_rate(_rate_factor(step, settings))
            total = _backward(fabric, module, task, stream, trainer["accumulate"], seed, step, terms)
            gradient_norm, own_norm = _clip(task, trainer["gradient_clip"])
            finite = all(map(math.isfinite, (total, gradient_norm, own_norm)))
            if finite:
                optimizer.step()
                renormalize(task.model)
            state.count(finite, step, trainer["max_nonfinite_steps"])
            optimizer.zero_grad(set_to_none=True)
            stream.stepped(time.perf_counter() - begun)

            done = step + 1
            last = done == max_steps
            state.average(done)
            if state.snapshots is not None and (state.snapshots.due(done) or last):
                rank_zero_only(fabric, partial(state.snapshots.write, done))
            if reporter is not None:
                reporter.advance(done)
                if done % trainer["log_every"] == 0 or last:
                    figures = terms.take() | {"total": total, "gradient_norm": gradient_norm, "rate": rate}
                    figures |= {"skipped_steps": float(state.skipped), "data_wait": stream.take_fraction()}
                    reporter.tell(done, figures, settings["batch_size"])
            stopping = interruption.agreed(fabric)
            if reporter is not None and (last or not stopping):  # sheets take longer than a scheduler waits
                if done % trainer["validate_every"] == 0 or last:
                    reporter.log(done, _validate(fabric, task, held_out, seed))
                if done % trainer["sample_every"] == 0 or done in trainer["sample_early"] or last:
                    _preview(fabric, task, ema, done, folder, reporter)
            if done % trainer["checkpoint_every"] == 0 or last or stopping:
                saved, keep = state.state_dict(), trainer["keep_checkpoints"]
                rank_zero_only(fabric, partial(checkpoints.save, kept, done, saved, keep, task.training_fingerprint))
            if stopping or (last and interruption.agreed(fabric)):
                interruption.leave(fabric, task.name, kept / f"step-{done}")
    rank_zero_only(fabric, lambda: task.finish(ema.averaged, max_steps))


def _rate_factor(step: int, settings: dict[str, Any]) -> float:
    warmup_steps, decay, decay_steps = settings["warmup_steps"], settings["decay"], settings.get("decay_steps")
    return rate_factor(step, settings["max_steps"], warmup_steps, decay, decay_steps)


def _share(task: Task, world: int, accumulate: int) -> int:
    """How many clips of a step's batch go through one backward pass of one device."""
    size = task.settings["batch_size"]
    if size % (world * accumulate):
        raise ValueError(
            f"{task.name}.batch_size {size} must be a multiple of {world} devices x trainer.accumulate {accumulate}"
        )
    return size // (world * accumulate)


def _backward(
    fabric: Any,
    module: nn.Module,
    task: Task,
    stream: Iterator[Batch],
    accumulate: int,
    seed: int,
    step: int,
    terms: TermAverages,
) -> float:
    """Gradients of a step's whole batch; returns its loss, the mean over all devices."""
    total = 0.0
    for micro in range(accumulate):
        torch.manual_seed(mix(seed, stage_number(task.name), fabric.global_rank, step, micro))
        arguments = (*task.inputs(next(stream).to(fabric.device)), torch.tensor(float(step), device=fabric.device))
        with fabric.no_backward_sync(module, enabled=micro < accumulate - 1):
            loss, batch_terms = module(lambda arguments=arguments: arguments)
            fabric.backward(loss / accumulate)
        total += loss.item() / accumulate
        if fabric.global_rank == 0:
            terms.add(batch_terms)
    if fabric.world_size > 1:
        # Every device must come to the same verdict on a step that is not finite.
        total = fabric.all_reduce(torch.tensor(total, device=fabric.device), reduce_op="mean").item()
    return total


def stage_number(name: str) -> int:
    """A number of a stage's own, for seeds."""
    return int.from_bytes(name.encode()[:6], "big")


def _stream(
    data: Any, fraction: int, start: int, max_steps: int, trainer: dict[str, Any], seed: int, fabric: Any
) -> Iterator[Batch]:
    first, num = start * trainer["accumulate"], (max_steps - start) * trainer["accumulate"]
    return batches(data, fraction, first, num, seed, fabric.global_rank, fabric.world_size, trainer["num_workers"])


def _clip(task: Task, limit: float | None) -> tuple[float, float]:
    """The gradient's norm before it is clipped, and that of a learned weight, which is clipped on its own."""
    apart = {id(parameter) for parameter in task.separate_clip}
    rest = [parameter for parameter in task.loss.parameters() if id(parameter) not in apart]
    bound = float("inf") if limit is None else limit
    own_norm = torch.nn.utils.clip_grad_norm_(task.separate_clip, bound)
    return torch.nn.utils.clip_grad_norm_(rest, bound).item(), own_norm.item()


def _validate(fabric: Any, task: Task, held_out: Any, seed: int, num_clips: int = 1024) -> dict[str, float]:
    """The terms of the loss on held-out data, the same clips, times and noise every time; the random state is kept.

    No more clips at once than a step has: those of an autoencoder can be large.
    """
    averages = TermAverages()
    size, device = min(256, task.settings["batch_size"], len(held_out)), fabric.device
    num_batches = -(-min(num_clips, 4 * len(held_out)) // size)
    task.loss.eval()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad(), _uncompiled():
        for number, batch in enumerate(batches(held_out, size, 0, num_batches, seed)):
            torch.manual_seed(mix(seed, number))
            arguments = task.inputs(batch.to(device))
            with fabric.autocast():
                _, terms = task.loss(*arguments, torch.tensor(float("inf"), device=device))
            averages.add(terms)
    task.loss.train()
    return {f"held_out/{name}": value for name, value in averages.take().items()}


def _uncompiled() -> Any:
    """Validation and sheets come in other batch sizes: compiling for each would cost more than it gives."""
    return torch.compiler.set_stance("force_eager")


def _preview(fabric: Any, task: Task, ema: PowerEMA, step: int, folder: Path, reporter: Reporter | None) -> None:
    """Sheets from the averaged model, which takes the place of the trained one meanwhile."""
    if task.preview is None or reporter is None:
        return
    current = {name: value.detach().clone() for name, value in task.model.state_dict().items()}
    task.model.load_state_dict(ema.averaged)
    task.model.eval()
    with torch.random.fork_rng(), torch.no_grad(), _uncompiled(), fabric.autocast():
        figures = task.preview(task.model, step, folder / "samples")
    task.model.train()
    task.model.load_state_dict(current)
    reporter.log(step, figures)

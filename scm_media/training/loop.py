"""The training loop: it trains any task and has no branch by stage."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from scm_media import weights
from scm_media.data import batches
from scm_media.draws import seed_dropout
from scm_media.ema import PowerEMA
from scm_media.nn.context_parallel import check_splits, context_parallel
from scm_media.seeds import mix
from scm_media.training import checkpoints
from scm_media.training.devices import rank_zero_only
from scm_media.training.early_stopping import has_ended
from scm_media.training.forecast import Forecast
from scm_media.training.interruption import Interruption
from scm_media.training.optimization import Optimization, Task, divide
from scm_media.training.post_hoc_ema import FOLDER as SNAPSHOTS
from scm_media.training.reporting import DataWaitMeter, Reporter, TermAverages
from scm_media.training.sharding import is_sharded, token_group


def train(
    fabric: Any,
    task: Task,
    trainer: dict[str, Any],
    data: Any,
    held_out: Any,
    folder: Path,
    seed: int,
    forecast: Forecast | None = None,
) -> None:
    """Trains a task to its ``max_steps``, from its last checkpoint if there is one, and writes its weights.

    forecast: tells after the first steps how long it will take.

    Data and noise are functions of (seed, stage, step, place in the batch) alone, and dropout also of the rank: a run
    that is killed and resumed ends in the same weights as one that was not. Without dropout, devices and passes divide
    a step's batch in any way and its gradient is the same but for rounding. After a signal that stops it the current
    step is finished and saved, and SystemExit is raised (``Interruption``). Raises ValueError for a checkpoint of
    another recipe or cut short, and when loss or gradients stay not finite, and OSError when one cannot be written.
    """
    max_steps, kept = task.settings["max_steps"], folder / "checkpoints"
    division, group = divide(fabric, task, trainer), token_group(fabric)
    if group is not None:
        check_splits(task.model)
    optimization, start = _restore(fabric, task, trainer, folder, seed)
    ema, stopping = optimization.ema, optimization.stopping
    if start >= max_steps or (stopping is not None and stopping.ended):
        optimization.finish(start)
        if fabric.global_rank == 0:
            print(f"{task.name}: trained to step {start} before (max_steps {max_steps})", file=sys.stderr)
        return

    logger = fabric.logger if fabric.loggers else None
    reporter = Reporter(folder, task.name, max_steps, start, logger, forecast) if fabric.global_rank == 0 else None
    size, workers = task.settings["batch_size"], trainer["num_workers"]
    stream = DataWaitMeter(batches(data, size, start, max_steps - start, seed, workers, division))
    arguments = (task.inputs(batch.to(fabric.device)) for batch in stream)
    terms, saver = TermAverages(), _saver(fabric, kept, trainer["keep_checkpoints"], task)
    with ExitStack() as ended:
        if reporter is not None:
            ended.callback(reporter.close)
        ended.callback(saver.close)
        interruption = ended.enter_context(Interruption())
        ended.enter_context(context_parallel(group))
        if start == 0:
            if optimization.snapshots is not None:
                rank_zero_only(fabric, optimization.snapshots.clear)
            _preview(fabric, task, ema, 0, folder, reporter)
        for step in range(start, max_steps):
            begun = time.perf_counter()
            figures = optimization.step(arguments, step)
            stream.add_step(time.perf_counter() - begun)

            done = step + 1
            last = done == max_steps
            snapshots = optimization.snapshots
            if snapshots is not None and (snapshots.due(done) or last):
                optimization.write_snapshot(done)
            if reporter is not None:
                reporter.advance(done)
                terms.add(*figures.terms)
                if done % trainer["log_every"] == 0 or last:
                    waited = {"skipped_steps": float(optimization.skipped), "data_wait": stream.take_fraction()}
                    logged = terms.take_means() | figures.as_dict() | waited
                    reporter.report(done, logged, task.settings["batch_size"])
            interrupted = interruption.agree(fabric)
            if done % trainer["validate_every"] == 0 or last:
                validated = None
                # With patience, an interrupted run must count the same validations as one that was not.
                if last or not interrupted or stopping is not None:
                    validated = _validate(fabric, task, ema, held_out, seed)
                if reporter is not None and validated is not None:
                    reporter.log(done, validated)
                if stopping is not None:
                    last = stopping.update(fabric, done, validated, ema) or last
            drawn = done % trainer["sample_every"] == 0 or done in trainer["sample_early"]
            if last or (drawn and not interrupted):  # sheets take longer than a scheduler waits
                _preview(fabric, task, ema, done, folder, reporter)
            if done % trainer["checkpoint_every"] == 0 or last or interrupted:
                saver.save(done, optimization.state_dict())
                if last or interrupted:
                    saver.wait()
            if interrupted or (last and interruption.agree(fabric)):
                interruption.leave(fabric, task.name, kept / f"step-{done}")
            if last:
                break
    optimization.finish(done)
    if stopping is not None and fabric.global_rank == 0:
        print(f"{task.name}: {stopping.summary(done)}", file=sys.stderr)


class _WholeCheckpoints:
    """Writes checkpoints of a training whose devices hold all weights: the first device writes, and the others wait."""

    def __init__(self, fabric: Any, folder: Path, keep: int, training_fingerprint: Mapping[str, Any]) -> None:
        self._fabric, self._settings = fabric, (folder, keep, training_fingerprint)

    def save(self, step: int, state: dict[str, Any]) -> None:
        folder, keep, training_fingerprint = self._settings
        rank_zero_only(self._fabric, lambda: checkpoints.save(folder, step, state, keep, training_fingerprint))

    def wait(self) -> None:
        """Does nothing: ``save`` has written."""

    def close(self) -> None:
        """Does nothing."""


def _saver(fabric: Any, folder: Path, keep: int, task: Task) -> Any:
    """Returns what writes the checkpoints of a training."""
    if not is_sharded(fabric):
        return _WholeCheckpoints(fabric, folder, keep, task.training_fingerprint)
    from scm_media.training.sharded_checkpoints import ShardedCheckpoints  # takes a second to import

    return ShardedCheckpoints(fabric, folder, keep, task.training_fingerprint)


def _restore(fabric: Any, task: Task, trainer: dict[str, Any], folder: Path, seed: int) -> tuple[Optimization, int]:
    """Returns the optimisation at its last checkpoint, compiled where steps are left, and the step it is at."""
    kept, weights_file = folder / "checkpoints", folder / "weights.safetensors"
    ended = weights_file.exists() and has_ended(weights.read_info(weights_file), task.settings)
    if task.compile is not None and not ended and max(checkpoints.steps(kept), default=0) < task.settings["max_steps"]:
        task.compile()
    keeps_snapshots = task.snapshots and trainer["snapshot_every"]
    optimization = Optimization(fabric, task, trainer, seed, folder / SNAPSHOTS if keeps_snapshots else None)
    return optimization, optimization.restore(kept)


def _validate(
    fabric: Any, task: Task, ema: PowerEMA, held_out: Any, seed: int, num_samples: int = 1024
) -> dict[str, float] | None:
    """Returns the terms of the averaged weights' loss on held-out data, for the same samples, times and noise always.

    It is None on all devices but the first, unless weights are divided among them: all of them then run the network,
    on the same samples. The random state is kept. A batch is no larger than that of a step: the samples of an
    autoencoder can be large.
    """
    if fabric.global_rank != 0 and not is_sharded(fabric):
        return None
    averages = TermAverages()
    size, device = min(256, task.settings["batch_size"], len(held_out)), fabric.device
    num_batches = -(-min(num_samples, 4 * len(held_out)) // size)
    task.loss.eval()
    devices = [device] if device.type == "cuda" else []
    with ema.in_place(), torch.random.fork_rng(devices), torch.no_grad(), _run_eagerly():
        for number, batch in enumerate(batches(held_out, size, 0, num_batches, seed)):
            seed_dropout(mix(seed, number), device)
            arguments = task.inputs(batch.to(device))
            with fabric.autocast():
                _, terms = task.loss(*arguments, torch.tensor(float("inf"), device=device))
            averages.add(terms)
    task.loss.train()
    figures = {f"held_out/{name}": value for name, value in averages.take_means().items()}
    return fabric.broadcast(figures) if is_sharded(fabric) else figures


def _run_eagerly() -> Any:
    """Runs compiled networks eagerly: validation and sheets have other batch sizes, and compiling for each is slow."""
    return torch.compiler.set_stance("force_eager")


def _preview(fabric: Any, task: Task, ema: PowerEMA, step: int, folder: Path, reporter: Reporter | None) -> None:
    """Writes sheets of the averaged weights, which take the place of the trained ones meanwhile.

    Devices that divide the weights all draw them, and the first one writes.
    """
    if task.preview is None or (reporter is None and not is_sharded(fabric)):
        return
    task.model.eval()
    with ema.in_place(), torch.random.fork_rng(), torch.no_grad(), _run_eagerly(), fabric.autocast():
        figures = task.preview(task.model, step, None if reporter is None else folder / "samples")
    task.model.train()
    if reporter is not None:
        reporter.log(step, figures)

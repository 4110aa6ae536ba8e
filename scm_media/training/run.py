"""A run: every stage of a recipe in order, each one from where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scm_media import settings, weights
from scm_media.data import worker_errors
from scm_media.pipeline.description import ModelDescription
from scm_media.processes import Share
from scm_media.progress import Progress
from scm_media.seeds import mix
from scm_media.training import checkpoints
from scm_media.training.context import Context, prepare
from scm_media.training.description import describe, write_description
from scm_media.training.devices import check_device, launch_fabric, precision_advice, rank_zero_only
from scm_media.training.early_stopping import has_ended, reached_step
from scm_media.training.encoding import check_variants, write_latents
from scm_media.training.fingerprint import FINGERPRINT, check_training_fingerprint, input_fingerprint, stage_settings
from scm_media.training.forecast import Forecast
from scm_media.training.loop import train
from scm_media.training.optimization import stage_number
from scm_media.training.passes import describe_passes
from scm_media.training.post_hoc_ema import selected_averages
from scm_media.training.run_folder import check_data, claim, is_recorded, record_data
from scm_media.training.stages import LATENT_STAGES, STAGES, TASKS, autoencoder, student
from scm_media.training.stages.taken import check_samples, check_taken, take
from scm_media.training.strategies import check_strategy
from scm_media.training.texts import read_texts, write_texts
from scm_media.training.trajectories import check_trajectories, select_data, write_trajectories
from scm_media.training.watch import watch


def run(config: dict[str, Any], expect: Callable[[Context, Sequence[str]], str] | None = None) -> None:
    """Trains the stages that ``config["stage"]`` names ("all": every stage in order) into ``config["run_dir"]``.

    A finished stage is not trained again; an interrupted one goes on from its last whole checkpoint. Raises ValueError
    for an unknown stage, a recipe that fits neither its data nor its run folder, a run folder that another run is
    using, and data of which nothing is usable. expect: returns what the training of these stages will take, which is
    printed before a run that was not begun before. Signals that stop a training save a checkpoint and raise
    SystemExit (``training.interruption``); so does a rank that dies, without a checkpoint (``training.watch``).
    """
    # Everything is checked before anything is written.
    settings.check(config)
    stages = _select_stages(config)
    check_trajectories(config)
    student.check_gamma(config)
    student.check_patience(config)
    student.check_lora(config)
    if "student" in stages:
        student.check_first_sigma(config)
    check_device(config)
    check_strategy(config)
    context = prepare(config)
    trained = [stage for stage in stages if stage in TASKS and not context.takes(stage)]
    check_samples(context, stages)
    check_taken(context)
    if "student" in stages:
        student.check_guidance(context)
    _check_resumption(context, trained)
    finished = [stage for stage in trained if _is_finished(context, stage)]
    description = describe(context)
    learns_latents = not set(LATENT_STAGES).isdisjoint(stages)
    encodes = learns_latents and config["latents"]["automatic"]
    if encodes:
        check_variants(context)
    elif learns_latents and context.weights_file("autoencoder").exists():
        context.latent_cache.open()  # refuses a cache that does not fit

    fabric = launch_fabric(config, folder=None)
    left = [stage for stage in stages if stage not in finished and not context.takes(stage)]
    forecast = Forecast(config, left, context.run_dir)
    is_new = not any(_is_begun(context, stage) for stage in trained)
    if expect is not None and is_new and fabric.global_rank == 0:
        print(expect(context, left), file=sys.stderr)
        if advice := precision_advice(config):
            print(advice, file=sys.stderr)
    with ExitStack() as held:
        held.enter_context(watch(fabric))
        held.enter_context(worker_errors())
        rank_zero_only(fabric, lambda: _open_run_folder(context, trained, description, held))
        if learns_latents or "trajectories" in stages:
            rank_zero_only(fabric, lambda: write_texts(context, Progress()))
            read_texts(context)
        for stage in stages:
            # Fresh weights must not depend on whether an earlier stage was trained just now.
            torch.manual_seed(mix(config["seed"], stage_number(stage)))
            if encodes and stage in LATENT_STAGES and stage not in finished:
                _encode(context, fabric)
                encodes = False
            if stage in finished:
                print(f"{stage}: its weights are trained, its checkpoints gone; nothing to do", file=sys.stderr)
            elif context.takes(stage):
                rank_zero_only(fabric, partial(take, context, stage))
            elif stage == "trajectories":
                _solve_trajectories(context, fabric)
            elif stage == "autoencoder" and not autoencoder.is_trained(context):
                rank_zero_only(fabric, lambda: autoencoder.fit_autoencoder(context))
            else:
                fabric = _train_stage(context, stage, forecast, fabric.global_rank)
        # A stage that went on has replaced an average that had been selected.
        description = replace(description, ema=selected_averages(context.run_dir))
        rank_zero_only(fabric, lambda: write_description(context, description))


def _select_stages(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the stages to train; ValueError for a stage that the recipe does not have."""
    selected = list(STAGES) if config["stage"] == "all" else [config["stage"]]
    for stage in ("feature_extractor", "guide", "trajectories", "warm_start"):
        if config[stage] is None and stage in selected:
            if config["stage"] == stage:
                raise ValueError(
                    f"stage={stage}: this recipe has none ({stage} is null); describe one, or leave stage out"
                )
            selected.remove(stage)
    if config["student"]["max_steps"] == 0 and "student" in selected:
        print("student: nothing to train, student.max_steps is 0", file=sys.stderr)
        selected.remove("student")
    return tuple(selected)


def _check_resumption(context: Context, stages: Sequence[str]) -> list[str]:
    """Returns remarks on how stages go on; ValueError where data or recipe differ from those they were begun with."""
    remarks, unknown = [], []
    for stage in stages:
        begun = _is_begun(context, stage)
        recorded = not begun or is_recorded(context, stage)
        if begun and recorded:
            remarks += check_data(context, stage)
        if stage != "autoencoder" or "max_steps" in context.config["autoencoder"]:
            inputs = {FINGERPRINT: context.data_fingerprint}  # the weights of earlier stages may still change
            recorded = check_training_fingerprint(context.config, context.run_dir, stage, inputs) and recorded
        unknown += [] if recorded else [stage]
    if unknown:
        remarks.append(
            f"{', '.join(unknown)}: begun before data, networks and optimizers were recorded, which are taken to be "
            "the same as now"
        )
    return remarks


def _is_begun(context: Context, stage: str) -> bool:
    """Returns whether a stage has weights or checkpoints."""
    return context.weights_file(stage).exists() or bool(checkpoints.steps(_checkpoint_folder(context, stage)))


def _is_finished(context: Context, stage: str) -> bool:
    """Returns whether a stage's training has ended, and it has weights but no checkpoints.

    Raises ValueError where it is not trained that far: to train it anew would overwrite its weights.
    """
    if stage == "autoencoder" and not autoencoder.is_trained(context):
        return False
    file = context.weights_file(stage)
    if not file.exists() or checkpoints.steps(_checkpoint_folder(context, stage)):
        return False
    info, stage_config = weights.read_info(file), stage_settings(context.config, stage)
    if not has_ended(info, stage_config):
        raise ValueError(
            f"{file} is trained to step {reached_step(info)} and has no checkpoint to go on from to "
            f"{stage}.max_steps={stage_config['max_steps']}; use another run_dir, with init_from={context.run_dir} to "
            "start from these weights"
        )
    return True


def _open_run_folder(context: Context, stages: Sequence[str], description: ModelDescription, held: ExitStack) -> None:
    """Locks the run folder and brings it to a state that every stage can go on from."""
    held.enter_context(claim(context.run_dir))
    weights.remove_leftovers(context.run_dir.rglob(".*.part"))
    for stage in stages:
        checkpoints.set_damaged_aside(_checkpoint_folder(context, stage), stage)
    for remark in _check_resumption(context, stages):  # of the checkpoints that are left
        print(remark, file=sys.stderr)
    for stage in stages:
        record_data(context, stage)
    write_description(context, description)


def _encode(context: Context, fabric: Any) -> None:
    """Encodes the examples that the run's latents lack, shared among all devices."""
    share = Share(fabric.global_rank, fabric.world_size)
    done = write_latents(context, Progress() if share.rank == 0 else None, share)
    fabric.barrier()
    if done["examples"] and share.rank == 0:
        print(f"latents: {done['examples']} examples encoded in {done['seconds']:.0f} s", file=sys.stderr)


def _solve_trajectories(context: Context, fabric: Any) -> None:
    """Solves the trajectories that the run lacks, shared among all devices."""
    progress = Progress() if fabric.global_rank == 0 else None
    done = write_trajectories(context, fabric.global_rank, fabric.world_size, progress)
    fabric.barrier()
    if fabric.global_rank == 0:
        print(f"trajectories: {done['trajectories']} solved in {done['seconds']:.0f} s", file=sys.stderr)


def _train_stage(context: Context, stage: str, forecast: Forecast, rank: int) -> Any:
    """Trains a stage from where it stopped and returns the Fabric that it was trained with.

    rank: the number of this device among all.
    """
    config, folder = context.config, context.run_dir / stage
    task = TASKS[stage](replace(context, awaits_weights=config["strategy"] == "fsdp" and rank > 0))
    check_training_fingerprint(config, context.run_dir, stage, input_fingerprint(context, stage))
    fabric = launch_fabric(config, folder, task.precision, task.shardable)
    if fabric.global_rank == 0:
        _warn_of_passes(context, stage)
    cache = context.latent_cache
    splits = cache.open() if stage in LATENT_STAGES else cache.splits
    if splits["train"] is not context.data and fabric.global_rank == 0:
        print(f"{stage}: trains on the latents in {cache.folder / 'train'}", file=sys.stderr)
    splits = select_data(context, stage, splits)
    train(fabric, task, config["trainer"], splits["train"], splits["held_out"], folder, config["seed"], forecast)
    return fabric


def _warn_of_passes(context: Context, stage: str) -> None:
    """Prints a warning before a stage that has steps to make and comes back to its examples very often."""
    file = context.weights_file(stage)
    if file.exists() and has_ended(weights.read_info(file), stage_settings(context.config, stage)):
        return
    if (found := describe_passes(context.config, stage, len(context.data), context.modality)) is not None:
        print(f"warning: {found}", file=sys.stderr)


def _checkpoint_folder(context: Context, stage: str) -> Path:
    return context.run_dir / stage / "checkpoints"

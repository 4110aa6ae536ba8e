"""Every stage of a recipe in order, each one from where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from scm_media import weights
from scm_media.build import build
from scm_media.data import Dataset
from scm_media.data.order import mix
from scm_media.pipeline.description import ModelDescription, SamplerSettings
from scm_media.pipeline.labels import format_combinations
from scm_media.pipeline.model_folder import ModelFolder
from scm_media.training import autoencoder, checkpoints, stages
from scm_media.training.claim import claim
from scm_media.training.context import Context, check_devices
from scm_media.training.data_record import check_data, is_recorded, record_data
from scm_media.training.ema_selection import chosen_averages
from scm_media.training.loop import stage_number, train
from scm_media.training.ranks import rank_zero_only
from scm_media.training.training_fingerprint import (
    FINGERPRINT,
    check_training_fingerprint,
    stage_settings,
    trained_setting,
)

STAGES = ("feature_extractor", "autoencoder", "teacher", "guide", "student")
LATENT_STAGES = ("teacher", "guide", "student")
"""In order: an autoencoder may be trained on the features of the feature extractor, which needs none of the others."""

MOST_COMBINATIONS = 20_000
"""Of classes of several labels that a model's description lists; with more, labels are drawn one by one."""


def run(config: dict[str, Any]) -> None:
    """Trains what ``config["stage"]`` names ("all": every stage in order) into ``config["run_dir"]``.

    A stage that is done is not done again; one that was interrupted goes on from its last whole checkpoint. Raises
    ValueError for a stage that does not exist, a recipe that fits neither its data nor its run folder, a run folder
    that another run is using, and data of which nothing is usable. A run that SIGINT or SIGTERM ends saves a
    checkpoint and raises SystemExit, as ``training.interruption`` says.
    """
    if config["stage"] not in ("all", *STAGES):
        raise ValueError(f"stage must be one of all, {', '.join(STAGES)}; got {config['stage']!r}")
    check_devices(config)
    chosen = _chosen(config)
    context = prepare(config)
    if "student" in chosen:
        context.check_guidance()
    context.check_mask()
    _check_resumption(context, chosen)
    measured = "autoencoder" in chosen and not autoencoder.is_trained(context)
    finished = {stage for stage in chosen if not (stage == "autoencoder" and measured) and _finished(context, stage)}
    description = _description(context)  # a model that could not be opened again is refused now, not when it is trained
    _check_same_model(context.run_dir / "model.json", description)
    if context.weights_file("autoencoder").exists() and not set(LATENT_STAGES).isdisjoint(chosen):
        context.latent_cache.open()  # a cache that does not fit is refused before anything is trained
    # Nothing is written before everything has been checked, and by one process alone.
    fabric = context.fabric(context.run_dir, logged=False)
    with ExitStack() as held:
        rank_zero_only(fabric, lambda: _begin(context, chosen, description, held))
        for stage in chosen:
            if stage in finished:
                print(f"{stage}: its weights are trained, its checkpoints gone; nothing to do", file=sys.stderr)
            elif stage == "autoencoder" and measured:
                rank_zero_only(fabric, lambda: autoencoder.fit_autoencoder(context))
            else:
                fabric = _train_stage(context, stage)
        # A stage that went on has left its own average in the place of one that had been chosen.
        description = replace(description, ema=chosen_averages(context.run_dir))
        rank_zero_only(fabric, lambda: _describe(context, description))


def _train_stage(context: Context, stage: str) -> Any:
    """Trains a stage from where it stopped and returns the Fabric that it was trained with."""
    config = context.config
    build_task = {
        "feature_extractor": stages.feature_extractor_task,
        "autoencoder": autoencoder.autoencoder_task,
        "teacher": stages.teacher_task,
        "guide": stages.guide_task,
        "student": stages.student_task,
    }
    # Fresh weights are the stage's own too: whether an earlier stage trained just now must not change them.
    torch.manual_seed(mix(config["seed"], stage_number(stage)))
    task = build_task[stage](context)
    check_training_fingerprint(config, context.run_dir, stage, context.made_of(stage))
    folder = context.run_dir / stage
    fabric = context.fabric(folder, task.precision)
    cache = context.latent_cache
    splits = cache.open() if stage in LATENT_STAGES else cache.splits
    if splits["train"] is not context.data and fabric.global_rank == 0:
        print(f"{stage}: trains on the latents in {cache.folder / 'train'}", file=sys.stderr)
    train(fabric, task, config["trainer"], splits["train"], splits["held_out"], folder, config["seed"])
    return fabric


def _begin(context: Context, chosen: Sequence[str], description: ModelDescription, held: ExitStack) -> None:
    """Takes the run folder for this process, and brings it to a state that every chosen stage can go on from."""
    held.enter_context(claim(context.run_dir))
    weights.remove_leftovers(context.run_dir.rglob(".*.part"))
    for stage in chosen:
        checkpoints.set_damaged_aside(_kept(context, stage), stage)
    for remark in _check_resumption(context, chosen):  # of the checkpoints that are left
        print(remark, file=sys.stderr)
    for stage in chosen:
        record_data(context, stage)
    _describe(context, description)


def _check_resumption(context: Context, chosen: Sequence[str]) -> list[str]:
    """Returns remarks on what stages go on with; ValueError where data or recipe are not those they were begun with."""
    remarks, unknown = [], []
    for stage in chosen:
        begun = context.weights_file(stage).exists() or bool(checkpoints.steps(_kept(context, stage)))
        recorded = not begun or is_recorded(context, stage)
        if begun and recorded:
            remarks += check_data(context, stage)
        if stage != "autoencoder" or "max_steps" in context.config["autoencoder"]:
            beside = {FINGERPRINT: context.fingerprint}
            recorded = check_training_fingerprint(context.config, context.run_dir, stage, beside) and recorded
        unknown += [] if recorded else [stage]
    if unknown:
        remarks.append(
            f"{', '.join(unknown)}: begun before data, networks and optimizers were recorded, which are taken to be "
            "the same as now"
        )
    return remarks


def _kept(context: Context, stage: str) -> Path:
    return context.run_dir / stage / "checkpoints"


def _finished(context: Context, stage: str) -> bool:
    """Returns whether weights are all that is left of a stage, and trained as far as is asked.

    Raises ValueError when they are not trained that far: to train anew would write over them.
    """
    file = context.weights_file(stage)
    if not file.exists() or checkpoints.steps(_kept(context, stage)):
        return False
    step, max_steps = weights.read_info(file).get("step", 0), stage_settings(context.config, stage)["max_steps"]
    if step < max_steps:
        raise ValueError(
            f"{file} is trained to step {step} and has no checkpoint to go on from to {stage}.max_steps={max_steps}; "
            f"use another run_dir, with init_from={context.run_dir} to start from these weights"
        )
    return True


def _chosen(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The stages to go through; says which one there is nothing of, ValueError when that one was asked for by name."""
    chosen = list(STAGES) if config["stage"] == "all" else [config["stage"]]
    for stage in ("feature_extractor", "guide"):
        if config[stage] is None and stage in chosen:
            if config["stage"] == stage:
                raise ValueError(
                    f"stage={stage}: this recipe has none ({stage} is null); describe one, or leave stage out"
                )
            chosen.remove(stage)
    if config["student"]["max_steps"] == 0 and "student" in chosen:
        print("student: nothing to train, student.max_steps is 0", file=sys.stderr)
        chosen.remove("student")
    return tuple(chosen)


def prepare(config: dict[str, Any]) -> Context:
    """Data, modality and the model to start from."""
    torch.manual_seed(config["seed"])
    modality = build(config["modality"], "modality")
    data = build(config["data"], "data", modality=modality, split="train")
    held_out = build(config["data"], "data", modality=modality, split="held_out")
    run_dir = Path(config["run_dir"])
    start = None if config["init_from"] is None else ModelFolder.open(config["init_from"])
    return Context(config, run_dir, modality, data, held_out, start)


def _describe(context: Context, description: ModelDescription) -> None:
    recipe = yaml.safe_dump(context.config, sort_keys=False)
    if description.actions:
        context.data.action_bank().save(ModelFolder(context.run_dir, description).action_bank_file)
    weights.write_whole(context.run_dir / "recipe.yaml", recipe.encode())
    description.write(context.run_dir)


def _description(context: Context) -> ModelDescription:
    config, run_dir = context.config, context.run_dir
    # Weights that stay as they are tell what they are; the recipe tells of those that are to be trained.
    label_dropout, student_loss = config["teacher"]["loss"].get("label_dropout"), config["student"]["loss"]
    times = config["sampler"]["times"] or _searched_times(run_dir)
    return ModelDescription(
        name=config["recipe"],
        modality=config["modality"],
        flow=config["flow"],
        sampler=SamplerSettings.from_mapping(config["sampler"] | {"times": times}),
        labels={name: list(names) for name, names in context.data.label_names.items()},
        label_counts={name: list(counts) for name, counts in context.data.label_counts.items()},
        **_joint_labels(context.data),
        actions=list(context.data.action_names),
        sample_shape=list(context.data.shape),
        latent_shape=list(context.latent_shape),
        objective=trained_setting(run_dir, "student", "objective", config["student"]["objective"]),
        label_dropout=trained_setting(run_dir, "teacher", "label_dropout", label_dropout),
        student_label_dropout=trained_setting(run_dir, "student", "label_dropout", student_loss.get("label_dropout")),
        guidance_max=trained_setting(run_dir, "student", "guidance_max", student_loss.get("guidance_max")),
        mask=trained_setting(run_dir, "student", "mask", config["conditioning"]["mask"]),
        ema=chosen_averages(run_dir),
        data=config["about"]["data"],
        licence=config["about"]["licence"],
    )


def _joint_labels(data: Dataset) -> dict[str, Any]:
    """Returns which classes the data have together, and how their numbers are spread."""
    combinations = data.label_combinations
    return {
        "label_combinations": format_combinations(combinations) if len(combinations) <= MOST_COMBINATIONS else [],
        "label_quantiles": {name: list(values) for name, values in data.label_quantiles.items()},
    }


def _searched_times(run_dir: Path) -> Any:
    """The times that ``evaluate --search-times`` left in the run's ``model.json``, None without."""
    if not (run_dir / "model.json").exists():
        return None
    return ModelFolder.open(run_dir).description.sampler.times


def _check_same_model(path: Path, description: ModelDescription) -> None:
    if not path.exists():
        return
    recorded = ModelFolder.open(path.parent).description
    for key in ("labels", "actions", "sample_shape", "latent_shape", "flow"):
        before, now = getattr(recorded, key), getattr(description, key)
        if (before or None) != (now or None):
            raise ValueError(
                f"{path.parent} holds a run whose {key} is {before}, this recipe's is {now}: use another run_dir"
            )

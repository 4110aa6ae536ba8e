"""Every stage of a recipe in order, each one from where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from scm_media import weights
from scm_media.build import build
from scm_media.data.order import mix
from scm_media.pipeline.folder import FORMAT, ModelFolder
from scm_media.training import stages
from scm_media.training.context import Context
from scm_media.training.loop import stage_number, train

STAGES = ("autoencoder", "embedder", "teacher", "student")


def run(config: dict[str, Any]) -> None:
    """Trains what ``config["stage"]`` names ("all": every stage in order) into ``config["run_dir"]``.

    A stage that is done is not done again; one that was interrupted goes on from its last checkpoint. Raises
    ValueError for a stage that does not exist, a recipe that fits neither its data nor its run folder, and data of
    which nothing is usable.
    """
    if config["stage"] not in ("all", *STAGES):
        raise ValueError(f"stage must be one of all, {', '.join(STAGES)}; got {config['stage']!r}")
    context = _prepare(config)
    chosen = STAGES if config["stage"] == "all" else (config["stage"],)
    for stage in chosen:
        if stage == "autoencoder":
            stages.fit_autoencoder(context)
        elif stage != "embedder" or config["embedder"] is not None:
            build_task = {
                "embedder": stages.embedder_task,
                "teacher": stages.teacher_task,
                "student": stages.student_task,
            }
            if stage == "student" and config["student"]["max_steps"] == 0:
                continue
            # Fresh weights are the stage's own too: whether an earlier stage trained just now must not change them.
            torch.manual_seed(mix(config["seed"], stage_number(stage)))
            task = build_task[stage](context)
            folder = context.run_dir / stage
            fabric = context.fabric(folder, task.precision)
            train(fabric, task, config["trainer"], context.data, context.held_out, folder, config["seed"])


def _prepare(config: dict[str, Any]) -> Context:
    """Data, modality and run folder; ``model.json`` and ``recipe.yaml`` are written here."""
    torch.manual_seed(config["seed"])
    modality = build(config["modality"])
    data = build(config["data"], modality=modality, split="train")
    held_out = build(config["data"], modality=modality, split="held_out")
    run_dir = Path(config["run_dir"])
    start = None if config["init_from"] is None else ModelFolder.open(config["init_from"])
    context = Context(config, run_dir, modality, data, held_out, start)
    weights.write_whole(run_dir / "recipe.yaml", yaml.safe_dump(config, sort_keys=False).encode())
    description = _description(context)
    _check_same_model(run_dir / "model.json", description)
    weights.write_whole(run_dir / "model.json", (json.dumps(description, indent=2) + "\n").encode())
    return context


def _description(context: Context) -> dict[str, Any]:
    config = context.config
    return {
        "format": FORMAT,
        "name": config["recipe"],
        "modality": config["modality"],
        "flow": config["flow"],
        "sampler": config["sampler"],
        "labels": {name: list(names) for name, names in context.data.label_names.items()},
        "label_counts": {name: list(counts) for name, counts in context.data.label_counts.items()},
        "sample_shape": list(context.data.shape),
        "latent_shape": list(context.latent_shape),
        "objective": config["student"]["objective"],
        "label_dropout": config["teacher"]["loss"]["label_dropout"],
        "guidance_max": None,
        "data": config["about"]["data"],
        "licence": config["about"]["licence"],
    }


def _check_same_model(path: Path, description: Mapping[str, Any]) -> None:
    if not path.exists():
        return
    before = json.loads(path.read_text())
    for key in ("labels", "sample_shape", "latent_shape", "flow"):
        if before[key] != description[key]:
            raise ValueError(
                f"{path.parent} holds a run whose {key} is {before[key]}, this recipe's is {description[key]}: "
                "use another run_dir"
            )

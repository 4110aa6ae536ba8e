"""The description of a run's model, ``model.json``, and the other files that make a run folder a model folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from scm_media import weights
from scm_media.pipeline.description import ModelDescription, SamplerSettings
from scm_media.pipeline.exported_texts import limit_texts
from scm_media.pipeline.labels import format_combinations
from scm_media.pipeline.model_folder import ModelFolder
from scm_media.prompts import PromptBank
from scm_media.settings.sampling import first_sigma, flow_map_gamma
from scm_media.training.context import Context
from scm_media.training.fingerprint import takes_target, trained_setting
from scm_media.training.post_hoc_ema import selected_averages

MAX_COMBINATIONS = 20_000
"""The most combinations of labels that a description lists; with more, labels are drawn one by one."""


def describe(context: Context) -> ModelDescription:
    """Returns the description of the model that a run trains.

    Raises ValueError for a description that could not be opened again, and where the run folder holds another model.
    """
    try:
        description = limit_texts(_description(context))
    except ValueError as error:
        raise ValueError(f"{context.config['recipe']}: {error}") from error
    if (context.run_dir / "model.json").exists():
        recorded = ModelFolder.open(context.run_dir).description
        for key in ("labels", "actions", "sample_shape", "latent_shape", "flow"):
            before, now = getattr(recorded, key), getattr(description, key)
            if (before or None) != (now or None):
                raise ValueError(
                    f"{context.run_dir} holds a run whose {key} is {before}, this recipe's is {now}: use another "
                    "run_dir"
                )
    return description


def write_description(context: Context, description: ModelDescription) -> None:
    """Writes ``model.json``, ``recipe.yaml``, and the action bank or the prompts of a model that has them."""
    if description.actions:
        context.data.action_bank().save(ModelFolder(context.run_dir, description).action_bank_file)
    if (bank := context.data.prompt_bank) is not None:
        file = ModelFolder(context.run_dir, description).prompts_file
        if not file.is_file() or PromptBank.load(file).fingerprint() != bank.fingerprint():
            bank.save(file)
    recipe = yaml.safe_dump(context.config, sort_keys=False)
    weights.write_whole(context.run_dir / "recipe.yaml", recipe.encode())
    description.write(context.run_dir)


def _describe_text(settings: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns what a model says about its texts, given its recipe's section ``text``; None without."""
    return None if settings is None else {key: settings[key] for key in ("encoder", "max_tokens", "labels")}


def _description(context: Context) -> ModelDescription:
    config, data, run_dir = context.config, context.data, context.run_dir
    times = config["sampler"]["times"] or _searched_times(run_dir)
    combinations = data.label_combinations
    of_student = {name: config["student"]["loss"].get(name) for name in ("label_dropout", "guidance_max")}
    of_student |= {"objective": config["student"]["objective"], "mask": config["conditioning"]["mask"]}
    # Weights that are there say how they were trained; the recipe says it of those that are still to be trained.
    student = {name: trained_setting(run_dir, "student", name, value) for name, value in of_student.items()}
    trained = context.weights_file("student").exists()
    limit = trained_setting(run_dir, "student", "first_sigma", None) if trained else first_sigma(config["sampler"])
    flow_map = trained_setting(run_dir, "student", "flow_map", False) if trained else takes_target(config)
    gamma = flow_map_gamma(config["sampler"]) if flow_map else None
    teacher_label_dropout = config["teacher"]["loss"].get("label_dropout")
    return ModelDescription(
        name=config["recipe"],
        modality=config["modality"],
        flow=config["flow"],
        sampler=SamplerSettings.from_mapping(
            config["sampler"] | {"times": times, "first_sigma": limit, "gamma": gamma}
        ),
        text=_describe_text(config["text"]),
        labels={name: list(names) for name, names in data.label_names.items()},
        label_counts={name: list(counts) for name, counts in data.label_counts.items()},
        label_combinations=format_combinations(combinations) if len(combinations) <= MAX_COMBINATIONS else [],
        label_quantiles={name: list(values) for name, values in data.label_quantiles.items()},
        actions=list(data.action_names),
        sample_shape=list(data.shape),
        latent_shape=list(context.latent_shape),
        objective=student["objective"],
        label_dropout=trained_setting(run_dir, "teacher", "label_dropout", teacher_label_dropout),
        student_label_dropout=student["label_dropout"],
        guidance_max=student["guidance_max"],
        mask=student["mask"],
        ema=selected_averages(run_dir),
        data=config["about"]["data"],
        licence=config["about"]["licence"],
    )


def _searched_times(run_dir: Path) -> Any:
    """Returns the times that ``evaluate --search-times`` wrote to the run's ``model.json``, None without."""
    if not (run_dir / "model.json").exists():
        return None
    return ModelFolder.open(run_dir).description.sampler.times

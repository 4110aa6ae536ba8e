"""Writes the network of a pipeline of diffusers as a model folder, which has a teacher and no student yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from scm_media import settings, weights
from scm_media.pipeline.export import UNNAMED, write_aside
from scm_media.pipeline.model_folder import RECIPE_FILE, ModelFolder
from scm_media.training.context import prepare
from scm_media.training.description import describe
from scm_media.training.stages.taken import taken_component


def convert_teacher(config: dict[str, Any], target: Path) -> Path:
    """Writes teacher, guide and autoencoder of a recipe's ``teacher_from`` as a model folder, and returns it.

    Raises ValueError where the target exists, and where a network does not fit the recipe.
    """
    if target.exists():
        raise ValueError(f"{target} exists; name a folder that does not")
    settings.check(config)
    context = prepare({**config, "run_dir": str(target)})
    with write_aside(target) as folder:
        for stage in ("autoencoder", "teacher", "guide"):
            if context.takes(stage):
                found = taken_component(context, stage)
                weights.save(folder / f"{stage}.safetensors", found.state, found.config, found.info)
        description = describe(context)
        if context.data.prompt_bank is not None:
            context.data.prompt_bank.save(ModelFolder(folder, description).prompts_file)
        weights.write_whole(folder / RECIPE_FILE, yaml.safe_dump(context.config, sort_keys=False).encode())
        description.write(folder, UNNAMED)
    return target

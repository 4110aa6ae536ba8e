"""Passes: how often a stage's training comes back to each of its examples, and a warning where that is often."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from scm_media.build import TARGET, resolve
from scm_media.latents.trajectories import num_held_out
from scm_media.modality import Modality
from scm_media.training.fingerprint import measures_error, stage_settings, uses_trajectories

MOST = 200
"""Passes over data that are not augmented, beyond which a stage is warned of.

The steps after which a diffusion model begins to memorize grow in proportion to the number of examples (Bonnaire et al.
2025, arXiv 2505.17638): at one batch size they are so many passes, whatever the size of the data.
"""
MOST_AUGMENTED = 1000
MOST_TRAJECTORIES = 12
"""Passes over trajectories. Each point of one has a single target, so that a regression learns them by heart far sooner
than a diffusion model, whose noise is new in each step."""
STAGES = ("feature_extractor", "autoencoder", "teacher", "guide", "warm_start", "student")
WITH_BACKBONE = ("teacher", "guide", "warm_start", "student")


def describe_passes(config: Mapping[str, Any], stage: str, num_examples: int, modality: Modality) -> str | None:
    """Returns a warning, with its remedies, where a stage makes many passes over its examples; None where it does not.

    num_examples: training examples of the data; a stage on trajectories has as many as the recipe solves. There is no
    warning for a stage with ``patience``, which ends by itself, nor for a student whose targets are the teacher's.
    """
    if config[stage] is None or not num_examples:
        return None
    settings, on_trajectories = stage_settings(config, stage), uses_trajectories(config, stage)
    from_data = stage != "student" or settings["objective"] == "sct"
    if "max_steps" not in settings or settings.get("patience") is not None:
        return None
    if not (from_data or (on_trajectories and measures_error(config, stage))):
        return None
    what, most = "training examples", MOST_AUGMENTED if modality.augments else MOST
    if on_trajectories:
        num = stage_settings(config, "trajectories")["num"]
        what, most, num_examples = "trajectories", MOST_TRAJECTORIES, num - num_held_out(num)
    passes = settings["max_steps"] * settings["batch_size"] / num_examples
    if passes <= most:
        return None
    remedies = [
        f"{stage}.max_steps={most * num_examples // settings['batch_size']}",
        f"{_plus(config[stage], 'patience')}{stage}.patience=5",
    ]
    remedies += (
        ["more trajectories.num"] if on_trajectories else [f"modality.{s}" for s in modality.further_augmentations]
    )
    if stage in WITH_BACKBONE and _may_drop_out(config["backbone"]):
        remedies.append(f"{_plus(config['backbone'], 'dropout')}backbone.dropout=0.1")
    return (
        f"{stage}: {passes:,.0f} passes over {num_examples:,} {what}, more than {most:,}: it may learn them by heart; "
        f"remedies: {', '.join(remedies)}"
    )


def _plus(section: Mapping[str, Any], key: str) -> str:
    """Returns what an override begins with that adds a key, where the section does not have it yet."""
    return "" if key in section else "+"


def _may_drop_out(backbone: Mapping[str, Any]) -> bool:
    """Returns whether a backbone takes a rate of dropout and has none."""
    return not backbone.get("dropout") and "dropout" in inspect.signature(resolve(backbone[TARGET])).parameters

"""The sections of a recipe that follow from the model that its teacher is taken from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from scm_media.typed import show

if TYPE_CHECKING:
    from scm_media.adapters import DiffusersFolder
    from scm_media.pipeline.teacher_source import TeacherSource

FOLLOWING = ("backbone", "autoencoder")
"""Sections that a recipe with ``teacher_from`` leaves to that model."""
LABEL_DROPOUT = 0.1
"""The usual probability that networks with an embedding for no label were trained without one."""
NOISE_FIRST_SIGMA = 5.0
"""The noise level that students whose network predicts noise start from (docs/teachers.md)."""
NUM_FITTED = 256
"""The number of samples whose latents are compared with what networks of others expect."""


def fill_nulls(config: DictConfig) -> None:
    """Gives keys of modality and sampler that are null the values of the model that ``teacher_from`` names.

    This comes before interpolations are resolved, because others refer to them. Raises ValueError as ``take_over``.
    """
    if config.get("teacher_from") is None or config.get("modality") is None:
        return
    model = _open(config.teacher_from)
    own = _sample_settings(model)
    for key in [key for key, value in config.modality.items_ex(resolve=False) if value is None and key in own]:
        config.modality[key] = own[key]
    if config.sampler.first_sigma is None:
        noise = NOISE_FIRST_SIGMA if not _is_ours(model) and model.predicts_noise else None
        config.sampler.first_sigma = model.description.sampler.first_sigma if _is_ours(model) else noise


def take_over(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a composed recipe with the flow and the networks of the model that ``teacher_from`` names.

    Raises ValueError for a recipe that describes these networks itself, and as ``open_teacher_source``.
    """
    source = config.get("teacher_from")
    if source is None:
        return config
    if given := [name for name in FOLLOWING if name in config]:
        raise ValueError(
            f"{' and '.join(given)}: they follow from teacher_from={source}; leave them out, or leave teacher_from out"
        )
    model = _open(source)
    if _is_ours(model):
        sections, label_dropout = _sections_of_ours(model), model.description.label_dropout
    else:
        sections, label_dropout = _sections_of_diffusers(model), LABEL_DROPOUT if model.num_classes else None
    plain = {"flow": {"_target_": "scm_media.trigflow.TrigFlow", "sigma_data": 0.5}, "conditioning": {"mask": None}}
    if given := [key for key, value in plain.items() if key in sections and config[key] not in (value, sections[key])]:
        raise ValueError(f"{' and '.join(given)} follow from teacher_from={source}: leave the settings of them out")
    teacher = config["teacher"]
    loss = {**teacher["loss"], **({} if label_dropout is None else {"label_dropout": label_dropout})}
    return {**config, **sections, "teacher": {**teacher, "max_steps": 0, "loss": loss}}


def _open(source: Any) -> Any:
    from scm_media.pipeline.teacher_source import open_teacher_source

    if not isinstance(source, str):
        raise ValueError(f"teacher_from must be a folder or a name, got {show(source)}")
    return open_teacher_source(source)


def _is_ours(model: TeacherSource) -> bool:
    return hasattr(model, "description")


def _sections_of_ours(model: Any) -> dict[str, Any]:
    recipe = model.recipe()
    if recipe is None:
        raise ValueError(f"teacher_from {model.path}: it has no recipe.yaml, which describes its networks")
    sections = {name: recipe[name] for name in ("flow", "conditioning") if name in recipe}
    try:
        network, num = recipe["autoencoder"]["network"], recipe["autoencoder"]["num_samples"]
        sections["autoencoder"] = {"network": network, "num_samples": num}
        # The weights' own configuration has what followed from the data that the teacher was trained on.
        sections["backbone"] = model.read("teacher").config
        if model.has("guide"):
            sections["guide"] = {**recipe["guide"], "max_steps": 0}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"teacher_from {model.path}: its recipe.yaml does not describe its networks ({error})"
        ) from error
    return sections


def _sections_of_diffusers(model: DiffusersFolder) -> dict[str, Any]:
    return {
        "flow": {"_target_": "scm_media.trigflow.TrigFlow", "sigma_data": model.sigma_data},
        "backbone": model.backbone(),
        "autoencoder": {"network": model.autoencoder(), "num_samples": NUM_FITTED},
    }


def _sample_settings(model: Any) -> Mapping[str, Any]:
    """Returns the keys of a modality for the samples that a model was made for."""
    if _is_ours(model):
        return model.description.modality
    channels, *sizes = model.sample_shape()
    found: dict[str, Any] = {"channels": channels}
    if len(sizes) == 1 and (rate := model.sample_rate()) is not None:
        found |= {"sample_rate": rate, "duration": sizes[0] / rate, "multiple": sizes[0] // model.latent_shape()[1]}
    elif len(sizes) >= 2:
        found["size"] = sizes[-1] if sizes[-1] == sizes[-2] else sizes[-2:]
    if len(sizes) == 3:
        found["num_frames"] = sizes[0]
    return found

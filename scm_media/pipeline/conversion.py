"""Converts models of format 1 to today's format: files, keys and classes were renamed before version 0.1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from scm_media import weights
from scm_media.build import build
from scm_media.pipeline.card import SHEET_FILE, format_card
from scm_media.pipeline.description import FORMAT, MODEL_FILE, ModelDescription
from scm_media.pipeline.export import CARD_FILE, UNNAMED, write_aside, write_json
from scm_media.pipeline.hub import PLAIN_NAME
from scm_media.pipeline.model_folder import RECIPE_FILE, ModelFolder, file_within, read_description
from scm_media.reading import read_bytes, read_json, read_text, read_yaml

FILES = {"embedder": "feature_extractor", "recorded": "action_bank"}
"""Old names of weight files, without their suffix."""
NETWORKS = ("autoencoder", "teacher", "guide", "student", "embedder")
KEYS = {
    "embedder": "feature_extractor",
    "proposal": "timesteps",
    "known": "mask",
    "kinds": "types",
    "share": "fraction",
    "aligned": "actions",
    "aligned_names": "action_names",
    "aligned_channels": "num_cond_channels",
    "shortcut": "linear_residual",
    "piece": "chunk",
    "num_sample_clips": "num_preview_samples",
    "agreement": "accuracy",
    "agreement_held_out": "accuracy_held_out",
    "frechet_floor": "frechet_held_out",
    "frechet_over_floor": "frechet_over_held_out",
    "teacher_gate": "teacher_threshold",
    "share_below": "fraction_below",
    "seconds_per_clip": "seconds_per_sample",
    "network_seconds_per_clip": "network_seconds_per_sample",
    "guide_seconds_per_clip": "guide_seconds_per_sample",
    "decode_seconds_per_clip": "decode_seconds_per_sample",
}
TENSORS = {"floors": "held_out_distances", "floor_sizes": "held_out_sizes", "rows": "actions"}
TARGETS = {
    "scm_media.proposals.LogNormalProposal": "scm_media.timesteps.LogNormalTimesteps",
    "scm_media.proposals.UniformProposal": "scm_media.timesteps.UniformTimesteps",
    "scm_media.aligned.Recorded": "scm_media.data.actions.ActionBank",
    "modalities.audio.foreign.VocosMel": "modalities.audio.pretrained.VocosMel",
    "modalities.audio.foreign.OobleckAutoencoder": "modalities.audio.pretrained.OobleckAutoencoder",
    "modalities.video.foreign.WanAutoencoder": "modalities.video.pretrained.WanAutoencoder",
    "modalities.video.foreign.LTXVideoAutoencoder": "modalities.video.pretrained.LTXVideoAutoencoder",
}
VALUES = {
    ("perceptual", "slopes"): "gradients",
    ("stage", "embedder"): "feature_extractor",
    ("name", "the model's own embedder"): "the model's own feature extractor",
}
KEYED_BY_USERS = ("labels", "label_counts", "label_quantiles", "label_units", "label_combinations")
"""Keys whose values are keyed by names that users chose, so that nothing below them is renamed."""


def convert(source: Path, target: Path) -> Path:
    """Writes a model folder of today's format from a model folder or run folder of format 1, and returns it.

    Networks, reference statistics, action bank, recipe, figures and the picture of samples are kept, and the card is
    written again. A run's checkpoints are not converted. Raises ValueError when the source is no model of format 1,
    has links out of its folder or names a modality that is not registered, and when the target exists; the target
    is then not written.
    """
    description = read_description(source)
    file = source / MODEL_FILE
    if not isinstance(description, dict) or description.get("format", 1) != 1:
        raise ValueError(f"{file} is not of format 1, so there is nothing to convert")
    if target.exists():
        raise ValueError(f"{target} exists; name a folder that does not")
    converted = ModelDescription.from_json({**rename(description), "format": FORMAT}, file)
    build(converted.modality, "modality")  # refuses what is not registered, before anything is written
    build(converted.flow, "flow")
    with write_aside(target) as folder:
        for file, name in _weight_files(source).items():
            _convert_weights(file, folder / f"{name}.safetensors")
        if (recipe := file_within(source, RECIPE_FILE)).is_file():
            text = yaml.safe_dump(rename(read_yaml(recipe)), sort_keys=False, allow_unicode=True)
            weights.write_whole(folder / RECIPE_FILE, text.encode())
        for name in sorted(file.name for file in source.glob("*.json")):
            if name in ("metrics.json", "nearest.json") or (name.startswith("metrics-") and PLAIN_NAME.fullmatch(name)):
                today = "memorization.json" if name == "nearest.json" else name
                write_json(folder / today, rename(read_json(file_within(source, name))))
        if (sheet := file_within(source, SHEET_FILE)).is_file():
            weights.write_whole(folder / SHEET_FILE, _read_png(sheet))
        if (card := _format_card(source, ModelFolder(folder, converted))) is not None:
            weights.write_whole(folder / CARD_FILE, card.encode())
        converted.write(folder, UNNAMED)
    return target


def rename(value: Any, key: str = "") -> Any:
    """Returns a JSON or YAML value with the keys, classes and settings of format 1 under today's names."""
    if isinstance(value, Mapping):
        if key in KEYED_BY_USERS:
            return value
        return {KEYS.get(name, name): rename(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [rename(inner) for inner in value]
    if key == "_target_":
        return TARGETS.get(value, value)
    return VALUES.get((key, value), value) if isinstance(value, str) else value


def _weight_files(source: Path) -> dict[Path, str]:
    """Returns the safetensors files of a model or run of format 1, with today's name of each."""
    names = {f"{name}/weights": FILES.get(name, name) for name in NETWORKS}
    names |= {name: FILES.get(name, name) for name in (*NETWORKS, "reference", "recorded")}
    names |= {"embedder/reference": "reference"}
    for folder in ("", "evaluation/"):
        names |= {f"{folder}{file.stem}": file.stem for file in (source / folder).glob("reference-*.safetensors")}
    files = {file_within(source, f"{old}.safetensors"): new for old, new in names.items()}
    return {file: name for file, name in files.items() if file.is_file()}


def _convert_weights(source: Path, target: Path) -> None:
    component = weights.read(source)
    tensors = TENSORS if target.stem.startswith(("reference", "action_bank")) else {}
    state = {tensors.get(key, key): tensor for key, tensor in component.state.items()}
    weights.save(target, state, rename(component.config), rename(component.info))


def _format_card(source: Path, converted: ModelFolder) -> str | None:
    """Returns the card in today's words; the old one, if any, when its figures are not as an evaluation writes them."""
    try:
        return format_card(converted)
    except ValueError:
        card = file_within(source, CARD_FILE)
        return read_text(card) if card.is_file() else None


def _read_png(file: Path) -> bytes:
    content = read_bytes(file)
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"{file} is no PNG picture; remove it")
    return content

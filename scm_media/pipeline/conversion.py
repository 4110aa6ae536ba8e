"""Converts model folders of format 1 to today's format: names of files, keys and classes changed before version 0.1."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from scm_media import weights
from scm_media.pipeline.description import FORMAT, checked
from scm_media.pipeline.sources import MODEL_FILE
from scm_media.reading import read_json, read_yaml

FILES = {"embedder": "feature_extractor", "recorded": "action_bank"}
"""Old names of weight files, without their suffix."""
COPIED = ("autoencoder", "teacher", "guide", "student", "embedder", "reference", "recorded")
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
VALUES = {("perceptual", "slopes"): "gradients", ("stage", "embedder"): "feature_extractor"}
USERS_NAMES = ("labels", "label_counts", "label_quantiles", "label_units", "label_combinations")
"""Keys whose values are keyed by names that users chose, so that nothing below them is renamed."""


def convert(source: Path, target: Path) -> Path:
    """Writes a model folder of today's format from a model folder or run folder of format 1, and returns it.

    Networks, reference statistics, recipe, figures, the card and its pictures are kept; checkpoints of a run are not.
    Raises ValueError where the source is no model of format 1, and where the target is there already.
    """
    file = source / MODEL_FILE
    if not file.is_file():
        raise ValueError(f"{source} holds no {MODEL_FILE}, so it is no model or run folder")
    description = read_json(file)
    if not isinstance(description, dict) or description.get("format", 1) != 1:
        raise ValueError(f"{file} is not of format 1, so there is nothing to convert")
    if target.exists():
        raise ValueError(f"{target} exists; name a folder that does not")
    converted = checked({**renamed(description), "format": FORMAT}, file)
    for name in COPIED:
        stage_file = source / name / "weights.safetensors"
        _convert_weights(stage_file if stage_file.is_file() else source / f"{name}.safetensors", name, target)
    _convert_weights(source / "embedder" / "reference.safetensors", "reference", target)
    if (recipe := source / "recipe.yaml").is_file():
        text = yaml.safe_dump(renamed(read_yaml(recipe)), sort_keys=False, allow_unicode=True)
        weights.write_whole(target / recipe.name, text.encode())
    for figures in sorted([*source.glob("metrics*.json"), *source.glob("nearest.json")]):
        name = "memorization.json" if figures.name == "nearest.json" else figures.name
        weights.write_whole(target / name, _json(renamed(read_json(figures))))
    for kept in ("README.md", "samples.png"):
        if (source / kept).is_file():
            weights.write_whole(target / kept, (source / kept).read_bytes())
    weights.write_whole(target / MODEL_FILE, _json(converted))
    return target


def renamed(value: Any, key: str = "") -> Any:
    """Returns a JSON or YAML value with the keys, classes and settings of format 1 under today's names."""
    if isinstance(value, Mapping):
        if key in USERS_NAMES:
            return value
        return {KEYS.get(name, name): renamed(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [renamed(inner) for inner in value]
    if key == "_target_":
        return TARGETS.get(value, value)
    return VALUES.get((key, value), value) if isinstance(value, str) else value


def _convert_weights(source: Path, name: str, target: Path) -> None:
    if not source.is_file():
        return
    component = weights.read(source)
    tensors = TENSORS if name in ("reference", "recorded") else {}
    state = {tensors.get(key, key): tensor for key, tensor in component.state.items()}
    file = target / f"{FILES.get(name, name)}.safetensors"
    weights.save(file, state, renamed(component.config), renamed(component.info))


def _json(value: Any) -> bytes:
    return f"{json.dumps(value, indent=2, ensure_ascii=False)}\n".encode()

"""What a stage's weights follow from, kept with its checkpoints and compared with the recipe that goes on with them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.build import TARGET, resolve
from scm_media.training import checkpoints

FINGERPRINT = "data.fingerprint"
"""The key of the examples' digest: where it is the same, data may be configured in another way or lie elsewhere."""
ABSENT = "(absent)"
NUM_SHOWN = 6


def model_fingerprint(config: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Returns, by name, how a stage's weights may be used; part of the information in their file."""
    if stage not in ("teacher", "guide", "student"):
        return {}
    loss = stage_settings(config, stage)["loss"]
    found = {"label_dropout": loss.get("label_dropout"), "mask": config["conditioning"]["mask"]}
    if stage == "student":
        found |= {"objective": config["student"]["objective"], "guidance_max": loss.get("guidance_max")}
        if found["objective"] == "scd":
            named = ("guidance_interval",) if by_input(config) else ("guidance", "guidance_interval")
            found |= {name: config["sampler"][name] for name in named}
    return found


def by_input(config: Mapping[str, Any]) -> bool:
    """Returns whether the student takes each clip's scale of guidance as an input."""
    return config["student"]["loss"].get("guidance_max") is not None


def stage_settings(config: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Returns how a stage is trained; a guide as the teacher, but for what it says itself."""
    if stage != "guide":
        return dict(config[stage])
    return {**config["teacher"], **{key: value for key, value in config["guide"].items() if key != "backbone"}}


def training_fingerprint(config: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Returns configuration key to value of all that a stage's steps follow from, for its checkpoints.

    What may change from one run to the next is not among them: how far is trained, where, and what is reported or kept.
    """
    settings = {key: value for key, value in stage_settings(config, stage).items() if key != "max_steps"}
    sections = {stage: settings, "modality": config["modality"], "data": config["data"]}
    if stage == "autoencoder":
        if (
            config["feature_extractor"] is not None
            and settings.get("loss", {}).get("perceptual", "features") == "features"
        ):
            sections["feature_extractor.network"] = config["feature_extractor"]["network"]
    elif stage != "feature_extractor":
        sections |= {key: config[key] for key in ("flow", "backbone")}
        sections["autoencoder.network"] = config["autoencoder"]["network"]
    if stage == "guide":
        sections["guide.backbone"] = config["guide"]["backbone"]
    found = {key: value for name, section in sections.items() for key, value in flat(section, name).items()}
    own = settings.get("precision") if stage == "autoencoder" else "32-true" if stage == "feature_extractor" else None
    return {
        **found,
        **{_key(stage, name): value for name, value in model_fingerprint(config, stage).items()},
        "seed": config["seed"],
        "init_from": config["init_from"],
        "precision": own or config["precision"],
        "trainer.accumulate": config["trainer"]["accumulate"],
        "trainer.gradient_clip": config["trainer"]["gradient_clip"],
        "num_devices x num_nodes": config["num_devices"] * config["num_nodes"],
    }


def check_training_fingerprint(
    config: Mapping[str, Any], run_dir: Path, stage: str, made_of: Mapping[str, Any] | None = None
) -> bool:
    """Compares what a stage in a run folder has begun with, and the recipe; raises ValueError for keys that differ.

    made_of: what the stage trains on beside its configuration (``Context.made_of``), compared where both are known.
    Of a stage that is done, data, networks, seed and use count: how it was trained matters no more. Returns False
    where a stage goes on from a checkpoint that was saved before all this was recorded, and tells a part of it only.
    """
    file = run_dir / stage / "weights.safetensors"
    of_model = {_key(stage, name): value for name, value in model_fingerprint(config, stage).items()}
    if file.exists():
        told = {_key(stage, name): value for name, value in weights.read_info(file).items()}
        _refuse(differences(told, of_model, [key for key in of_model if key in told]), file)
    found = checkpoints.load_training_fingerprint(run_dir / stage / "checkpoints")
    if found is None:
        return True
    step, kept = found
    made_of = made_of or {}
    recipe = {**training_fingerprint(config, stage), **made_of}
    complete = f"modality.{TARGET}" in kept
    keys = [key for key in recipe if key in kept or (complete and key not in made_of)]
    if complete:
        keys += [key for key in kept if key not in recipe and "." in key and key != FINGERPRINT]
    done = step >= stage_settings(config, stage)["max_steps"]
    if done:
        alike = ("modality.", "data.", "flow.", "backbone.", "autoencoder.network.", f"{stage}.backbone.")
        keys = [key for key in keys if key in {*of_model, "seed"} or key.startswith((*alike, f"{stage}.network."))]
    _refuse(differences(kept, recipe, keys), run_dir / stage / "checkpoints" / f"step-{step}")
    return complete or done


def differences(kept: Mapping[str, Any], recipe: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Returns ``key: old → new`` for each of the keys whose values differ.

    A key that one side lacks has the default of the class (``_target_``) that it is an argument of, as far as there
    is one. How data are configured does not count where the fingerprints of their examples are the same.
    """
    same_data = kept.get(FINGERPRINT) is not None and kept.get(FINGERPRINT) == recipe.get(FINGERPRINT)
    found = []
    for key in keys:
        if key.startswith("data.") and same_data:
            continue
        old, new = _value(kept, key), _value(recipe, key)
        if old != new:
            found.append(f"{key}: {old} → {new}")
    return found


def flat(section: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the values of nested mappings by dotted key, below ``name``."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= flat(value, f"{name}.{key}") if isinstance(value, Mapping) else {f"{name}.{key}": value}
    return found


def trained_setting(run_dir: Path, stage: str, name: str, otherwise: Any) -> Any:
    """Returns what a stage's weights say of themselves, ``otherwise`` where there are none or they do not say it."""
    file = run_dir / stage / "weights.safetensors"
    return weights.read_info(file).get(name, otherwise) if file.exists() else otherwise


def _value(settings: Mapping[str, Any], key: str) -> Any:
    """Returns the value of a key as JSON has it, the default of its class where the key is absent."""
    if key in settings:
        return json.loads(json.dumps(settings[key], default=str))
    section, _, name = key.rpartition(".")
    try:
        parameter = inspect.signature(resolve(settings[f"{section}.{TARGET}"])).parameters[name]
    except (KeyError, ValueError):
        return ABSENT
    if parameter.default is parameter.empty:
        return ABSENT
    return json.loads(json.dumps(parameter.default, default=str))


def _key(stage: str, name: str) -> str:
    if name in ("guidance", "guidance_interval"):
        return f"sampler.{name}"
    if name == "mask":
        return "conditioning.mask"
    return f"{stage}.loss.{name}" if name in ("label_dropout", "guidance_max") else f"{stage}.{name}"


def _refuse(found: Sequence[str], where: Path) -> None:
    if found:
        more = f"; and {len(found) - NUM_SHOWN} more" if len(found) > NUM_SHOWN else ""
        raise ValueError(
            f"{where} was trained otherwise ({'; '.join(found[:NUM_SHOWN])}{more}): set these keys back, or use "
            "another run_dir"
        )

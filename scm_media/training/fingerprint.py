"""The training fingerprint: everything that a stage's weights follow from.

It is saved with each checkpoint and compared with the recipe before a stage goes on. It consists of the settings that
steps depend on, the digests of the weights that the stage uses (its autoencoder, its teacher), and the data
fingerprint, a digest of the training and held-out examples that the dataset's ``fingerprint()`` computes.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.build import TARGET, resolve
from scm_media.latents.manifest import MANIFEST
from scm_media.settings import default_values
from scm_media.settings.sampling import first_sigma
from scm_media.settings.stages import Trajectories, WarmStart
from scm_media.training import checkpoints
from scm_media.training.context import Context
from scm_media.training.early_stopping import has_ended

FINGERPRINT = "data.fingerprint"
"""The key of the data fingerprint: where it is the same, data may be configured in another way or lie elsewhere."""
ABSENT = "(absent)"
LENGTH = ("max_steps", "patience")
"""The keys of a stage that say how long it is trained."""
DIVISION = ("trainer.accumulate",)
"""Keys in old checkpoints that say how a step's batch was divided, which does not change what it learns."""
NUM_SHOWN = 6


def model_fingerprint(config: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Returns the settings that say how a stage's weights may be used; they stand in the header of the weight file."""
    if stage not in ("teacher", "guide", "warm_start", "student"):
        return {}
    loss = stage_settings(config, stage)["loss"]
    found = {"label_dropout": loss.get("label_dropout"), "mask": config["conditioning"]["mask"]}
    if stage in ("warm_start", "student") and (sigma := first_sigma(config["sampler"])) is not None:
        found["first_sigma"] = sigma
    if stage == "student":
        found |= {"objective": config["student"]["objective"], "guidance_max": loss.get("guidance_max")}
        if takes_target(config):
            found["flow_map"] = True
        if found["objective"] == "scd":
            named = ("guidance_interval",) if takes_guidance_scale(config) else ("guidance", "guidance_interval")
            found |= {name: config["sampler"][name] for name in named}
    return found


def takes_guidance_scale(config: Mapping[str, Any]) -> bool:
    """Returns whether the student takes the guidance scale of each sample as an input."""
    return config["student"]["loss"].get("guidance_max") is not None


def takes_target(config: Mapping[str, Any]) -> bool:
    """Returns whether the student is a flow map, which takes the time that it goes to as an input."""
    return bool(getattr(resolve(config["student"]["loss"][TARGET]), "takes_target", False))


def stage_settings(config: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Returns a stage's section of the recipe, with the defaults of what it leaves out.

    A guide has the teacher's settings where its own section has none.
    """
    if stage in ("trajectories", "warm_start"):
        return default_values(Trajectories if stage == "trajectories" else WarmStart) | config[stage]
    if stage != "guide":
        return dict(config[stage])
    return {**config["teacher"], **{key: value for key, value in config["guide"].items() if key != "backbone"}}


def uses_trajectories(config: Mapping[str, Any], stage: str) -> bool:
    """Returns whether the loss of a stage is taken at points of trajectories."""
    if stage not in ("warm_start", "student") or config[stage] is None:
        return False
    return bool(getattr(resolve(stage_settings(config, stage)["loss"][TARGET]), "uses_trajectories", False))


def measures_error(config: Mapping[str, Any], stage: str) -> bool:
    """Returns whether a stage's loss is an error on its examples, which falls on held-out data as networks improve."""
    loss = stage_settings(config, stage).get("loss")
    return loss is None or bool(getattr(resolve(loss[TARGET]), "measures_error", True))


def uses_features(config: Mapping[str, Any]) -> bool:
    """Returns whether the autoencoder's loss compares features of the recipe's feature extractor."""
    return config["autoencoder"].get("loss", {}).get("perceptual", "features") == "features"


def input_fingerprint(context: Context, stage: str) -> dict[str, Any]:
    """Returns the data fingerprint, and the digests of the weights that a stage uses."""
    config = context.config
    used: tuple[str, ...] = ()
    if stage == "autoencoder" and uses_features(config):
        used = ("feature_extractor",)
    elif stage in ("teacher", "guide"):
        used = ("autoencoder",)
    elif stage == "warm_start":
        used = ("autoencoder", "teacher")
    elif stage == "student":
        guided = config["student"]["objective"] == "scd" and config["guide"] is not None
        used = ("autoencoder", "teacher", *(("guide",) if guided else ()))
        used = (*used, *(("warm_start",) if config["warm_start"] is not None else ()))
    files = {name: context.weights_file(name) for name in used}
    digests = {
        f"{name} weights": weights.digest(weights.read(file, check=False))
        for name, file in files.items()
        if file.exists()
    }
    manifest = context.run_dir / "trajectories" / MANIFEST
    if manifest.exists() and (uses_trajectories(config, stage) or (stage == "student" and config[stage]["generated"])):
        digests["trajectories"] = hashlib.sha256(manifest.read_bytes()).hexdigest()
    return {FINGERPRINT: context.data_fingerprint, **digests}


def training_fingerprint(config: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Returns each setting that a stage's steps follow from, by its key in the recipe.

    Keys that may change from one run to the next are left out: how long, on which devices and in how many passes a
    stage is trained, and what is reported or kept.
    """
    settings = {key: value for key, value in stage_settings(config, stage).items() if key not in LENGTH}
    if not settings.get("generated", True):
        del settings["generated"]  # runs that were begun before this key existed go on
    if settings.get("lora", True) is None:
        del settings["lora"]
    sections = {stage: settings, "modality": config["modality"], "data": config["data"]}
    if stage == "autoencoder":
        if config["feature_extractor"] is not None and uses_features(config):
            sections["feature_extractor.network"] = config["feature_extractor"]["network"]
    elif stage != "feature_extractor":
        sections |= {key: config[key] for key in ("flow", "backbone")}
        sections["autoencoder.network"] = config["autoencoder"]["network"]
        if config["text"] is not None:
            sections["text"] = config["text"]
    if stage == "warm_start" and config["student"]["lora"] is not None:
        sections["student.lora"] = config["student"]["lora"]
    if stage in ("warm_start", "student") and config["trainer"]["teacher_dtype"] != "float32":
        sections["trainer"] = {"teacher_dtype": config["trainer"]["teacher_dtype"]}
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
        "trainer.gradient_clip": config["trainer"]["gradient_clip"],
    }


def full_fingerprint(context: Context, stage: str) -> dict[str, Any]:
    """Returns the settings and inputs that a stage's steps follow from, for its checkpoints."""
    return {**training_fingerprint(context.config, stage), **input_fingerprint(context, stage)}


def check_training_fingerprint(
    config: Mapping[str, Any], run_dir: Path, stage: str, inputs: Mapping[str, Any] | None = None
) -> bool:
    """Compares a recipe with the fingerprint of a stage in a run folder; raises ValueError for keys that differ.

    inputs: the ``input_fingerprint``, of which keys are compared that both sides have. For a stage that is done only
    data, networks, seed and the use of its weights are compared: how it was trained no longer matters. Returns False
    where a stage goes on from an old checkpoint, whose fingerprint lacks most keys.
    """
    file = run_dir / stage / "weights.safetensors"
    of_model = {_key(stage, name): value for name, value in model_fingerprint(config, stage).items()}
    if file.exists():
        trained = {_key(stage, name): value for name, value in weights.read_info(file).items()}
        _refuse(differences(trained, of_model, [key for key in of_model if key in trained]), file)
    found = checkpoints.load_training_fingerprint(run_dir / stage / "checkpoints")
    if found is None:
        return True
    step, kept = found
    inputs = inputs or {}
    recipe = {**training_fingerprint(config, stage), **inputs}
    complete = f"modality.{TARGET}" in kept
    keys = [key for key in recipe if key in kept or (complete and key not in inputs)]
    if complete:
        keys += [key for key in kept if key not in recipe and "." in key and key not in (FINGERPRINT, *DIVISION)]
    settings = stage_settings(config, stage)
    done = step >= settings["max_steps"] or (file.exists() and has_ended(weights.read_info(file), settings))
    if done:
        alike = (
            "modality.",
            "data.",
            "flow.",
            "backbone.",
            "autoencoder.network.",
            f"{stage}.backbone.",
            "student.lora.",
        )
        keys = [key for key in keys if key in {*of_model, "seed"} or key.startswith((*alike, f"{stage}.network."))]
    _refuse(differences(kept, recipe, keys), run_dir / stage / "checkpoints" / f"step-{step}")
    return complete or done


def differences(kept: Mapping[str, Any], recipe: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Returns ``key: old → new`` for each of the keys whose values differ.

    A missing key takes the default of the argument of its class (``_target_``), if there is one. The configuration of
    data is not compared where the data fingerprints are equal.
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
    """Returns the values of a nested mapping by dotted keys that begin with ``name``."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= flat(value, f"{name}.{key}") if isinstance(value, Mapping) else {f"{name}.{key}": value}
    return found


def trained_setting(run_dir: Path, stage: str, name: str, otherwise: Any) -> Any:
    """Returns a setting from the header of a stage's weights; ``otherwise`` without weights or without the setting."""
    file = run_dir / stage / "weights.safetensors"
    return weights.read_info(file).get(name, otherwise) if file.exists() else otherwise


def _value(settings: Mapping[str, Any], key: str) -> Any:
    """Returns the value of a key as JSON stores it, or the default of its class where the key is absent."""
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
    if name in ("guidance", "guidance_interval", "first_sigma"):
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

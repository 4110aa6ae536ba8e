"""What decides a stage's weights, kept with them, and held against the recipe that wants to go on with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.training import checkpoints


def model_decisions(config: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """What a stage's weights are, whatever they were trained on: name to value; part of the weights' information."""
    if stage not in ("teacher", "guide", "student"):
        return {}
    loss = stage_settings(config, stage)["loss"]
    found = {"label_dropout": loss.get("label_dropout"), "known": config["conditioning"]["known"]}
    if stage == "student":
        found |= {"objective": config["student"]["objective"], "guidance_max": loss.get("guidance_max")}
        if found["objective"] == "scd":
            named = ("guidance_interval",) if by_input(config) else ("guidance", "guidance_interval")
            found |= {name: config["sampler"][name] for name in named}
    return found


def by_input(config: Mapping[str, Any]) -> bool:
    """Whether the student takes each clip's scale of guidance as an input."""
    return config["student"]["loss"].get("guidance_max") is not None


def stage_settings(config: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """How a stage is trained; a guide as the teacher, but for what it says itself."""
    if stage != "guide":
        return dict(config[stage])
    return {**config["teacher"], **{key: value for key, value in config["guide"].items() if key != "backbone"}}


def decisions(config: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Configuration key to value of all that a stage's steps follow from, for its checkpoints."""
    return {
        **{_key(stage, name): value for name, value in model_decisions(config, stage).items()},
        "seed": config["seed"],
        f"{stage}.batch_size": stage_settings(config, stage)["batch_size"],
        "trainer.accumulate": config["trainer"]["accumulate"],
        "num_devices x num_nodes": config["num_devices"] * config["num_nodes"],
    }


def check_decisions(config: Mapping[str, Any], run_dir: Path, stage: str) -> None:
    """ValueError where a stage has begun with other decisions than the recipe's.

    Of a stage that is done, seed, objective, guidance and label_dropout count: with how many devices it was trained
    matters no more. Checkpoints and weights that say nothing of it are taken as they are.
    """
    file, folder = run_dir / stage / "weights.safetensors", run_dir / stage / "checkpoints"
    of_model = {_key(stage, name): value for name, value in model_decisions(config, stage).items()}
    if file.exists():
        info = weights.read_info(file)
        _compare({_key(stage, name): info[name] for name in info}, of_model, file)
    if found := checkpoints.load_decisions(folder):
        step, kept = found
        done = step >= stage_settings(config, stage)["max_steps"]
        expected = of_model | {"seed": config["seed"]} if done else decisions(config, stage)
        _compare(kept, expected, folder / f"step-{step}")


def trained_decision(run_dir: Path, stage: str, name: str, otherwise: Any) -> Any:
    """What a stage's weights say of themselves; ``otherwise`` where there are none or they do not say it."""
    file = run_dir / stage / "weights.safetensors"
    return weights.read_info(file).get(name, otherwise) if file.exists() else otherwise


def _key(stage: str, name: str) -> str:
    if name in ("guidance", "guidance_interval"):
        return f"sampler.{name}"
    if name == "known":
        return "conditioning.known"
    return f"{stage}.loss.{name}" if name in ("label_dropout", "guidance_max") else f"{stage}.{name}"


def _compare(kept: Mapping[str, Any], recipe: Mapping[str, Any], where: Path) -> None:
    problems: Sequence[str] = [
        f"{key} is {value}, expected {kept[key]}" for key, value in recipe.items() if key in kept and kept[key] != value
    ]
    if problems:
        raise ValueError(f"{where} was trained otherwise ({'; '.join(problems)}): use another run_dir")

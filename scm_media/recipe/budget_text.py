"""Writes a plan as the sections of a recipe, with the reasons beside the keys."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from scm_media.evaluation.machine import Machine
from scm_media.recipe.budget import (
    ENOUGH,
    FEW,
    MANY_PASSES,
    PASSES,
    TEACHER_STEPS,
    TRAJECTORY_STEPS,
    Facts,
    Network,
    Plan,
    num_fitted,
)

GUIDE: Mapping[str, Any] = {"width": 96, "depth": 3, "num_heads": 3}
"""The backbone of a guide, smaller than every teacher's."""
GUIDANCE = 1.25
"""The scale of guidance of a recipe that has no guide of its own."""
BATCH_SIZES = {"cpu": 64, "cuda": 256}
RATES = {"warm_start": 5e-4, "student": 1e-4}
"""Learning rates of a network of width 160 with batches of 64."""
KEPT_LATENTS, MOST_VARIANTS, MOST_BYTES = 16_384, 8, 4 * 2**30
"""Latents of augmented files that are worth keeping, variants of each at most, and bytes of all of them at most."""
TRAJECTORY_BATCH = 64
MOST_IN_SHARD = 1024
ADAM = {"_target_": "torch.optim.Adam", "betas": [0.9, 0.99]}


def guide_keys(backbone: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the keys in which the guide's backbone differs: none for one without sizes, which is trained less."""
    return GUIDE if backbone.keys() >= GUIDE.keys() else {}


def overrides(device: str, guidance: float = GUIDANCE) -> list[str]:
    """Returns the overrides under which a recipe is measured: the stages that every plan has."""
    return [
        "++guide={backbone: {}, max_steps: 1}",
        "++trajectories={num: 64}",
        "++warm_start={max_steps: 1}",
        f"++sampler.guidance={guidance}",
        f"device={device}",
        "num_devices=1",
        "strategy=auto",
    ]


def expectation(plan: Plan, facts: Facts, needed: float, precision: str, name: str) -> list[str]:
    """Returns comments on what the plan takes and what comes of it.

    needed: hours for a teacher that shows much. name: the recipe's.
    """
    times = ", ".join(f"{name} {_time(stage.seconds)}" for name, stage in plan.stages.items())
    passes = plan.stages["teacher"].num / facts.num_files
    lines = [
        f"Expected: about {_time(plan.seconds)} of the {_time(plan.hours * 3600)}:",
        f"  start {_time(plan.start)}, {times}",
    ]
    if "evaluation" in plan.stages:
        num = plan.stages["evaluation"].num
        few = " (few: distances say little)" if num < 1000 else ""
        lines.append(f"measure it with  {evaluation_command(f'runs/{name}/main', num, precision)}{few}")
    elif facts.has_classes:
        lines.append("no time is left to measure it with scm-media evaluate")
    seen = plan.stages["teacher"].num
    lines.append(f"the teacher sees {seen:,} samples, {passes:,.0f} passes over {facts.num_files:,} files")
    if seen < FEW:
        lines.append(f"warning: a teacher shows little before {FEW:,}, which take about {needed:.2g} hours here")
    if passes > MANY_PASSES:
        shows = f"; scm-media evaluate runs/{name}/main --memorization 16 shows whether it copies"
        copying = shows if facts.has_classes else ""
        lines.append(
            f"warning: after about {MANY_PASSES} passes networks learn examples by heart; more files help more than "
            f"more hours{copying}"
        )
    return lines


def evaluation_command(run: str, num: int, precision: str) -> str:
    """Returns the command that measures a run, given as a word of the shell, as it was trained; num: of samples."""
    return f"scm-media evaluate {run} -n {num}{' --precision bf16' if precision.startswith('bf16') else ''}"


def sections(plan: Plan, facts: Facts, machine: Machine, network: Network, config: Mapping[str, Any]) -> list[str]:
    """Returns the lines of a recipe after its data and modality. config: the parent, composed with ``overrides``."""
    size = BATCH_SIZES[machine.device]
    teacher = plan.stages["teacher"]
    width = network.keys.get("width", 160)
    steps = {name: stage.steps(size) for name, stage in plan.stages.items()}
    chosen = (
        f"{network.parameters / 1e6:.1f} M parameters: the largest of those tried whose teacher sees {ENOUGH:,} samples"
        if teacher.num >= ENOUGH
        else f"{network.parameters / 1e6:.1f} M parameters: the cheapest, since time is short"
    )
    often = max(10, steps["teacher"] // 4)
    lines = [
        f"precision: {machine.precision}",
        *_devices(machine),
        *([f"backbone: {_flow(network.keys)}  # {chosen}"] if network.keys else []),
        f"trainer: {_flow(_trainer(plan, machine, often))}  # {_compiling(plan, facts)}",
    ]
    lines += _before_teacher(plan, facts, config)
    if facts.num_variants:
        lines.append(f"latents: {{variants: {facts.num_variants}, automatic: true}}  # encoded once, not at every step")
    else:
        lines.append("latents: {automatic: false}  # all of them would take too much of the disk")
    lines += [
        f"# {_time(teacher.seconds)}; the rate falls as the network grows wider and rises with the batch",
        f"teacher: {_flow(_training(steps['teacher'], size, _teacher_rate(config, width, size)))}",
        f"# {_time(plan.stages['guide'].seconds)}: a worse teacher, which the teacher is steered away from (guidance)",
        f"guide: {{backbone: {_flow(guide_keys(network.keys))}, max_steps: {steps['guide']}}}",
        f"sampler: {{guidance: {config['sampler']['guidance']}, teacher: dpm_solver, teacher_steps: {TEACHER_STEPS}}}",
        *_trajectories(plan, machine),
        f"# {_time(plan.stages['warm_start'].seconds)}: regression on them, no more than {PASSES} passes",
        f"warm_start: {_flow(_warm_start(steps['warm_start'], size, width))}",
        f"# {_time(plan.stages['student'].seconds)}: {_loss_name(config)}, for no more samples than in the parent",
        f"student: {_flow(_student(steps['student'], size, width))}",
    ]
    if facts.has_classes:
        evaluated = plan.stages["evaluation"].num if "evaluation" in plan.stages else 0
        lines.append(f"num_evaluated: {evaluated}  # what scm-media evaluate has time for")
    return lines


def _devices(machine: Machine) -> list[str]:
    if machine.num_processes == 1:
        return [f"device: {machine.device}"]
    return [
        f"device: {machine.device}",
        f"num_devices: {machine.num_processes}  # processes that share the cores: faster than as many threads of one",
        "strategy: ddp",
    ]


def _trainer(plan: Plan, machine: Machine, often: int) -> dict[str, Any]:
    workers = 0 if machine.device == "cpu" else 4
    every = {"sample_every": often, "validate_every": max(5, often // 2), "checkpoint_every": max(50, often // 2)}
    return {"compile": plan.compiled, "num_workers": workers, "log_every": max(5, min(50, often // 5)), **every}


def _compiling(plan: Plan, facts: Facts) -> str:
    if plan.compiled:
        return "compiling takes minutes a stage, and pays in this time"
    if not facts.can_compile:
        return "compile: there is no C++ compiler here"
    return "compile: takes minutes a stage, which do not pay in this time"


def _before_teacher(plan: Plan, facts: Facts, config: Mapping[str, Any]) -> list[str]:
    """Returns the sections feature_extractor and autoencoder."""
    lines = []
    if facts.has_classes:
        size = 64
        stage = plan.stages["feature_extractor"]
        lines += [
            f"# {_time(stage.seconds)}: the classifier in whose features the figures are measured",
            f"feature_extractor: {{max_steps: {stage.steps(size)}, batch_size: {size}}}",
        ]
    if not facts.trains_autoencoder:
        return [*lines, f"autoencoder: {{num_samples: {num_fitted(facts)}}}  # measured once on so many files"]
    size = config["autoencoder"]["batch_size"]
    stage = plan.stages["autoencoder"]
    keys = {"max_steps": stage.steps(size), "batch_size": size, "num_samples": num_fitted(facts)}
    keys["warmup_steps"] = min(200, keys["max_steps"] // 10)
    return [*lines, f"# {_time(stage.seconds)}: the autoencoder of the latents", f"autoencoder: {_flow(keys)}"]


def _trajectories(plan: Plan, machine: Machine) -> list[str]:
    processes, stage = machine.num_processes, plan.stages["trajectories"]
    # Shards are what processes share among them, and a shard has whole batches.
    each = max(1, stage.num // processes)
    batch = min(TRAJECTORY_BATCH, 1 << (each.bit_length() - 1))
    shards = -(-each // MOST_IN_SHARD)
    shard = each // shards // batch * batch
    num = shard * shards * processes
    keys = {"num": num, "steps": TRAJECTORY_STEPS, "batch_size": batch, "shard_size": shard}
    return [
        f"# {_time(stage.seconds)}: noise followed to its ends by the guided teacher, for the two stages after it",
        f"trajectories: {_flow(keys)}",
    ]


def _teacher_rate(config: Mapping[str, Any], width: int, batch_size: int) -> float:
    """Returns the rate of the parent recipe's teacher, brought to another width and batch size."""
    parent = config["teacher"]
    ratio = config["backbone"].get("width", width) / width
    return float(f"{parent['optimizer']['lr'] * ratio * math.sqrt(batch_size / parent['batch_size']):.1e}")


def _rate(stage: str, width: int, batch_size: int) -> float:
    """Returns a learning rate of two digits: inverse to the width, with the square root of the batch size."""
    rate = RATES[stage] * 160 / width * math.sqrt(batch_size / 64)
    return float(f"{rate:.1e}")


def _training(steps: int, batch_size: int, rate: float) -> dict[str, Any]:
    warmup = min(400, max(1, steps // 20))
    return {
        "max_steps": steps,
        "batch_size": batch_size,
        "warmup_steps": warmup,
        "decay": "cosine",
        "optimizer": {"lr": rate},
    }


def _warm_start(steps: int, batch_size: int, width: int) -> dict[str, Any]:
    keys = _training(steps, batch_size, _rate("warm_start", width, batch_size))
    return {**keys, "optimizer": {**ADAM, **keys["optimizer"]}}  # the parent may have no such section


def _student(steps: int, batch_size: int, width: int) -> dict[str, Any]:
    keys = _training(steps, batch_size, _rate("student", width, batch_size))
    return {**keys, "ema_std": 0.1}


def _loss_name(config: Mapping[str, Any]) -> str:
    """Returns the name of the student's loss, which is the parent's."""
    name: str = config["student"]["loss"]["_target_"]
    return name.rpartition(".")[2]


def _flow(keys: Mapping[str, Any]) -> str:
    """Returns a mapping as YAML in one line."""
    return "{" + ", ".join(f"{key}: {_value(value)}" for key, value in keys.items()) + "}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return _flow(value)
    if isinstance(value, str):
        return value
    return f"{value:.1e}" if isinstance(value, float) and 0 < value < 0.01 else json.dumps(value)


def _time(seconds: float) -> str:
    """Returns a duration in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def count_variants(num_files: int, latent_shape: Sequence[int], augments: bool) -> int:
    """Returns how many latents of each file are kept: several of augmented ones, 0 where they would fill the disk."""
    wanted = min(MOST_VARIANTS, max(2, KEPT_LATENTS // num_files)) if augments else 1
    return wanted if num_files * wanted * math.prod(latent_shape) * 2 <= MOST_BYTES else 0


def networks(config: Mapping[str, Any], latent_shape: Sequence[int]) -> list[list[dict[str, Any]]]:
    """Returns the keys of the backbones to choose from: families of sizes, of the recipe's patch and of twice that.

    There is one family, of the recipe's own network, for a backbone without width, depth and heads.
    """
    backbone = config["backbone"]
    if not backbone.keys() >= GUIDE.keys():
        return [[{}]]
    sizes = ((96, 6, 3), (160, 5, 5), (192, 5, 6), (256, 8, 8))
    patches = [backbone.get("patch")]
    patch = patches[0]
    if isinstance(patch, int) and patch > 1 and all(size % (2 * patch) == 0 for size in latent_shape[1:]):
        tokens = math.prod(size // (2 * patch) for size in latent_shape[1:])
        patches += [2 * patch] if tokens >= 16 else []
    found = []
    for each in patches:
        values = latent_shape[0] * (math.prod(each) if isinstance(each, Sequence) else (each or 1) ** 2)
        found.append([_keys(*size, each, values, backbone) for size in sizes])
    return found


def _keys(width: int, depth: int, num_heads: int, patch: Any, values: int, backbone: Mapping[str, Any]) -> dict:
    keys = {"width": width, "depth": depth, "num_heads": num_heads}
    if patch is not None:
        keys["patch"] = patch
    if "skip" in backbone:
        # A patch with more values than width needs it, and the guide has the same patch.
        keys["skip"] = bool(backbone["skip"]) or values > min(width, GUIDE["width"])
    return keys

"""Plans the training of a folder of files for a number of hours: it times this machine, then fits every stage."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scm_media import recipe
from scm_media.cli.proposals import Planned, held_out
from scm_media.cli.recipe_choice import NO_DATA

NUM_READ = 16
"""So many files, spread over the folder, are read to time their loading."""
MOST_HELD_OUT = 1024


def plan_training(
    parent_name: str,
    own_name: str,
    keys: Mapping[str, Any],
    files: Sequence[Path],
    classes: Sequence[str],
    hours: float,
    device: str,
) -> Planned:
    """Returns what a recipe needs beside its data so that its training fits the hours on a device.

    parent_name, own_name: the recipe that it inherits, and its own name. keys: the modality's. device: cpu or cuda.
    Raises ValueError for too few hours.
    """
    from scm_media.build import build
    from scm_media.evaluation.machine import Request, count_processes, measure_machine
    from scm_media.recipe import budget, budget_text
    from scm_media.recipe.cost import count_cost

    begun = time.monotonic()
    given = [
        *NO_DATA,
        "data=folder",
        f"++data.held_out={held_out(len(files))}",
        *(f"++modality.{key}={json.dumps(value)}" for key, value in keys.items()),
        *([] if classes else ["feature_extractor=null"]),
    ]
    parent = recipe.compose(parent_name, given)
    guidance = budget_text.GUIDANCE if parent["guide"] is None else parent["sampler"]["guidance"]
    config = recipe.compose(parent_name, [*given, *budget_text.overrides(device, guidance)])
    shape = count_cost(config).latent_shape

    def describe(keys: Mapping[str, Any]) -> budget.Network:
        cost = count_cost({**config, "backbone": {**config["backbone"], **keys}})
        return budget.Network(keys, cost.parameters, cost.multiply_adds)

    families = [[describe(keys) for keys in family] for family in budget_text.networks(config, shape)]
    listed = [network for family in families for network in family]
    modality = build(config["modality"], "modality")
    num_held_out = max(1, round(config["data"]["held_out"] * len(files)))
    facts = budget.Facts(
        num_files=max(1, len(files) - num_held_out),
        num_held_out=min(num_held_out, MOST_HELD_OUT),
        has_classes=bool(classes),
        trains_autoencoder="max_steps" in config["autoencoder"],
        most_student=parent["student"]["max_steps"] * parent["student"]["batch_size"],
        num_variants=budget_text.count_variants(len(files), shape, modality.augments),
        can_compile=any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))),
    )
    num_processes = count_processes(device)
    request = Request(
        config=config,
        networks=[network.keys for network in listed],
        guide=budget_text.guide_keys(listed[0].keys),
        costs=[network.multiply_adds for network in listed],
        label_names={"class": tuple(classes)} if classes else {},
        files=[files[number * len(files) // NUM_READ] for number in range(min(NUM_READ, len(files)))],
        device=device,
        num_processes=num_processes,
        batch_size=budget_text.BATCH_SIZES[device],
    )
    print(f"timing this machine ({device}, processes: {num_processes}) for less than a minute", file=sys.stderr)
    machine = measure_machine(request)
    plan = budget.make_plan(hours, facts, machine, families)
    needed = budget.hours_for(budget.FEW, facts, machine, families)
    print(f"timed in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    comments = budget_text.expectation(plan, facts, needed, machine.precision, own_name)
    return Planned(
        comments,
        budget_text.sections(plan, facts, machine, listed[plan.network], config),
    )


def usable_device(name: str) -> str:
    """Returns cpu or cuda; raises ValueError for a device that is not there."""
    from scm_media.pipeline.loaded_model import choose_device

    kind = choose_device(name).type
    return kind if kind == "cuda" else "cpu"

"""Prints how long a training step of large recipes is expected to take, from counted operations; nothing is measured.

    python benchmarks/expected_steps.py [RECIPE ...] [--devices 8] [--peak 989] [--fraction 0.4]

A step of the teacher costs three forward passes a sample (one forward, two backward). One of a student by sCD costs
five (the teacher, the student's value, its tangent, two backward), and one more where the teacher is guided. Gradient
checkpointing adds a forward pass. A pass has two operations for each multiply-add that ``scm-media recipes`` counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from scm_media import recipe
from scm_media.cli.recipe_choice import NO_DATA
from scm_media.recipe.cost import count_cost

RECIPES = (
    "image/imagenet64-s",
    "image/imagenet512-s",
    "image/imagenet512-xl",
    "image/imagenet512-xxl",
    "audio/fullband",
    "video/kinetics-like",
)


def passes(config: Mapping[str, Any], stage: str) -> int:
    """Returns the forward passes a sample that a step of the teacher or the student costs."""
    recomputed = int(config["trainer"]["gradient_checkpointing"])
    if stage == "teacher":
        return 3 + recomputed
    sampler, loss = config["sampler"], config["student"]["loss"]
    guided = sampler["guidance"] != 1 or loss.get("guidance_max") is not None
    return 5 + recomputed + int(guided)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=RECIPES, metavar="RECIPE")
    parser.add_argument("--devices", type=int, default=8, help="default: 8")
    parser.add_argument(
        "--peak", type=float, default=989.0, help="TFLOP/s of a device; default: 989, an H100's bfloat16"
    )
    parser.add_argument("--fraction", type=float, default=0.4, help="of the peak that is reached; default: 0.4")
    given = parser.parse_args()
    speed = given.devices * given.peak * 1e12 * given.fraction
    print("| recipe | parameters | batch | teacher's step | student's step | teacher, hours | student, hours |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in given.recipes:
        config = recipe.compose(name, NO_DATA)
        cost, cells, hours = count_cost(config), [], []
        for stage in ("teacher", "student"):
            operations = 2 * cost.multiply_adds * passes(config, stage) * config[stage]["batch_size"]
            cells.append(f"{operations / 1e12:.0f} TFLOP, {operations / speed:.2g} s")
            hours.append(f"{operations / speed * config[stage]['max_steps'] / 3600:.1f}")
        batch = config["student"]["batch_size"]
        print(f"| {name} | {cost.parameters / 1e6:.0f} M | {batch} | {' | '.join(cells)} | {' | '.join(hours)} |")


if __name__ == "__main__":
    main()

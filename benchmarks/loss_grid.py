"""Trains students of one teacher over norm x weight x rate of their loss; writes loss_grid.md beside itself.

    python benchmarks/loss_grid.py runs/grid [--steps 2000] [--num-samples 2000] [KEY=VALUE ...]

The base run (autoencoder, feature extractor, teacher) is trained in FOLDER/base unless it is there; each cell in
FOLDER/<cell>. What is done is not done again, so an interrupted grid goes on. KEY=VALUE overrides hold for every run:
the table is made with a network smaller than image/fashion's, so that twelve students fit into an hour of one core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

from scm_media import load
from scm_media.evaluation import EvaluationRequest, evaluate
from scm_media.recipe import compose
from scm_media.training import run
from scm_media.weights import write_whole

NORMS, WEIGHTS, RATES = ("rms", "l2"), ("none", "learned"), (3e-4, 1e-4, 3e-5)
CONSISTENCY = ("loss@student.loss=consistency", "optimizer@student.optimizer=radam")
SHARED = ("autoencoder", "feature_extractor", "teacher")


def main() -> None:
    """Runs what is missing of the grid and writes the table after every cell."""
    commands = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands.add_argument("folder", type=Path)
    commands.add_argument("--steps", type=int, default=2000)
    commands.add_argument("--num-samples", type=int, default=2000)
    commands.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    asked = commands.parse_intermixed_args()

    base = asked.folder / "base"
    run(compose("image/fashion", [*CONSISTENCY, *asked.overrides, f"run_dir={base}", "student.max_steps=0"]))
    teacher = _figures(base, ["teacher"], asked.num_samples)
    arguments = ["--steps", str(asked.steps), "--num-samples", str(asked.num_samples), *asked.overrides]
    table: dict[str, Any] = {"arguments": arguments, "teacher": teacher, "cells": []}
    for weight, norm, rate in itertools.product(WEIGHTS, NORMS, RATES):
        folder = asked.folder / f"{norm}-{weight}-{rate:g}"
        for stage in SHARED:
            if not (folder / stage).exists():
                shutil.copytree(base / stage, folder / stage, ignore=shutil.ignore_patterns("checkpoints", "samples"))
        run(
            compose(
                "image/fashion",
                [
                    *CONSISTENCY,
                    *asked.overrides,
                    f"run_dir={folder}",
                    "stage=student",
                    f"student.max_steps={asked.steps}",
                    f"student.optimizer.lr={rate}",
                    f"student.loss.norm={norm}",
                    f"student.loss.weight={weight}",
                ],
            )
        )
        cell = {"norm": norm, "weight": weight, "rate": rate, **_figures(folder, [1, 2], asked.num_samples)}
        table["cells"].append(cell | _last_bands(folder / "student" / "metrics.jsonl"))
        here = Path(__file__).parent
        write_whole(here / "loss_grid.json", (json.dumps(table, indent=1) + "\n").encode())
        write_whole(here / "loss_grid.md", as_markdown(table).encode())


def _figures(folder: Path, rows: list[Any], num_samples: int) -> dict[str, Any]:
    request = EvaluationRequest(num_samples, rows=rows, timing_repeats=1)
    result = evaluate(load(folder, precision="bf16"), request, work=folder / "evaluation")
    keep = ("sampler", "steps", "frechet", "accuracy")
    return {
        "rows": [{k: row[k] for k in keep} for row in result["rows"]],
        "frechet_held_out": result["frechet_held_out"],
    }


def _last_bands(path: Path) -> dict[str, Any]:
    """Returns the rms of g by band of t at the training's last report, and the largest mean of all reports."""
    reports = [json.loads(line) for line in path.read_text().splitlines()]
    reports = [line for line in reports if "g_rms" in line]
    bands = {name.split("/t")[1]: value for name, value in reports[-1].items() if name.startswith("g_rms/t")}
    return {"g_rms": reports[-1]["g_rms"], "g_rms_largest": max(line["g_rms"] for line in reports), "bands": bands}


def as_markdown(table: dict[str, Any]) -> str:
    """Returns the grid as a page in Markdown."""
    bands = list(table["cells"][0]["bands"])
    teacher = table["teacher"]["rows"][0]
    lines = [
        "# Which student loss: norm, weight, rate",
        "",
        "Made by, one seed a cell:",
        "",
        "```",
        f"python benchmarks/loss_grid.py FOLDER {' '.join(table['arguments'])}",
        "```",
        "",
        f"The teacher (Heun, 63 evaluations): Fréchet {teacher['frechet']:.3f}, accuracy {teacher['accuracy']:.3f};",
        f"the held-out distance at this number of samples: {table['teacher']['frechet_held_out']:.3f}.",
        "g is shown before it is normalised.",
        f"{len(table['cells'])} of {len(NORMS) * len(WEIGHTS) * len(RATES)} cells are done.",
        "",
        "| norm | weight | rate | one step | two steps | accuracy, two | rms g | largest | "
        + " | ".join(f"t {band}" for band in bands)
        + " |",
        "|" + "---|" * (8 + len(bands)),
    ]
    for cell in sorted(table["cells"], key=lambda c: c["rows"][1]["frechet"]):
        one, two = cell["rows"]
        figures = [one["frechet"], two["frechet"], two["accuracy"], cell["g_rms"], cell["g_rms_largest"]]
        figures += [cell["bands"].get(band, float("nan")) for band in bands]
        lines.append(
            f"| {cell['norm']} | {cell['weight']} | {cell['rate']:g} | "
            + " | ".join(f"{f:.3f}" for f in figures)
            + " |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

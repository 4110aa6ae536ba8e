"""Says what to do before a first training and after one, with commands that work as they are printed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from scm_media.display import printable

WEIGHTS = "weights.safetensors"


def before_training() -> str:
    """Returns how to come from a folder of files to a training, for ``train`` without a recipe."""
    return (
        "usage: scm-media train RECIPE [KEY=VALUE ...]\n"
        "\n"
        "RECIPE is missing: a name from  scm-media recipes, or a YAML file of your own.\n"
        "\n"
        "For a folder of your own (docs/recipes.md tells more of these steps):\n"
        "  scm-media recipes --for FOLDER --hours 2 > mine.yaml\n"
        "  scm-media check mine.yaml\n"
        "  scm-media train mine.yaml\n"
        "  scm-media generate runs/NAME/main -n 8  # train prints this line with the name at its end\n"
        "\n"
        "To see a whole training without files of your own, in a few minutes:\n"
        "  scm-media train image/tiny\n"
        "  scm-media generate runs/image/tiny/main -n 4\n"
        "\n"
        "scm-media train --help explains overrides (KEY=VALUE), sweeps and stopping."
    )


def after_training(config: Mapping[str, Any]) -> str:
    """Returns the commands that come after the training of a composed recipe; they write to folders that are new."""
    from scm_media.recipe.budget import LEAST_EVALUATED
    from scm_media.recipe.budget_text import evaluation_command

    run_dir = Path(config["run_dir"])
    run = printable(shlex.quote(str(run_dir)))
    if not (run_dir / "student" / WEIGHTS).is_file():
        if (run_dir / "teacher" / WEIGHTS).is_file():
            left = "the same train command without stage=… trains what is left"
            if config["student"]["max_steps"] == 0:
                left = "(student.max_steps is 0: no student is distilled from it)"
            return (
                f"{run}: the teacher is trained, the student is not; next:\n"
                f"  scm-media generate {run} --teacher -n 8\n"
                f"  {left}"
            )
        return f"{run}: no model yet; the same train command without stage=… trains what is left"
    name = config["recipe"].replace("/", "-")
    samples, exported = (printable(shlex.quote(_free(f"{name}-{what}"))) for what in ("samples", "model"))
    lines = [f"{run} is a model now; next:", f"  scm-media generate {run} -n 8 --out {samples}"]
    if (run_dir / "feature_extractor" / WEIGHTS).is_file():
        num, few = config["num_evaluated"], ""
        if num == 0:
            num, few = LEAST_EVALUATED, "  # the hours of the recipe leave no time for it"
        lines.append(f"  {evaluation_command(run, num, config['precision'])}{few}")
    else:
        lines.append(
            "  (no figures by scm-media evaluate: this run has no feature extractor, which learns from classes)"
        )
    lines.append(f"  scm-media export {run} {exported}")
    lines.append(f"  (sheets of samples during training are in {run}/student/samples)")
    return "\n".join(lines)


def _free(name: str) -> str:
    """Returns the name, with a number where something of that name is in the current folder already."""
    numbered = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(each for each in numbered if not os.path.lexists(each))

"""``scm-media train`` trains the stages of a recipe, or calls Hydra's command line for sweeps and reports."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from scm_media import recipe
from scm_media.cli.arguments import parser
from scm_media.cli.captured import capturing
from scm_media.cli.next_steps import after_training, before_training
from scm_media.recipe.errors import clear_errors

QUIET = {
    "hydra.output_subdir": "null",
    "hydra.run.dir": ".",
    "hydra.sweep.dir": "runs/${recipe}",
    "hydra.sweep.subdir": ".",
    "hydra/job_logging": "none",
    "hydra/hydra_logging": "none",
}
"""Keeps Hydra from making folders and logs of its own; the user's overrides take precedence."""


def run(arguments: Sequence[str]) -> int:
    """Trains a recipe; returns 0 when every stage is done. Without a recipe it says what to do, and exits with 2."""
    words = list(arguments)
    if not words and not capturing():
        print(before_training(), file=sys.stderr)
        raise SystemExit(2)
    commands = parser(
        "train",
        "Trains a recipe's stages in order, each resumed where it stopped.",
        usage="scm-media train RECIPE [KEY=VALUE ...] [-m] [Hydra's flags]",
        epilog="examples:\n"
        "  scm-media train image/tiny\n"
        "  scm-media train video/scenes stage=student student.objective=sct run_dir=runs/sct\n"
        "  scm-media train mine.yaml            (a file with  defaults: [image/tiny, _self_])\n"
        "  scm-media train image/tiny -m student.optimizer.lr=3e-5,1e-4 hydra/launcher=submitit_slurm\n\n"
        "Ctrl-C and SIGTERM save a checkpoint first (exit code 130 and 143), as SIGUSR1 and SIGUSR2 do; a second one\n"
        "ends at once. The same command then goes on. It is refused with other data or settings than the run was\n"
        "begun with.",
    )
    commands.add_argument("words", nargs="+", metavar="RECIPE [KEY=VALUE ...]", help="a recipe's name or YAML file")
    commands.add_argument("-m", "--multirun", action="store_true", help="sweep over comma-separated values")
    commands.add_argument("--cfg", "-c", choices=("job", "hydra", "all"), help="show the configuration, train nothing")
    commands.add_argument("--package", "-p", metavar="KEY", help="with --cfg: this part of it")
    commands.add_argument("--resolve", action="store_true", help="with --cfg: interpolations resolved")
    commands.add_argument("--info", "-i", nargs="?", const="all", help="Hydra's report: all, defaults, searchpath …")
    commands.add_argument("--hydra-help", action="store_true", help="Hydra's own help")
    parsed = commands.parse_intermixed_args(words)
    name, overrides = parsed.words[0], parsed.words[1:]
    by_hydra = parsed.multirun or parsed.cfg or parsed.info or parsed.hydra_help
    if by_hydra or any(override.lstrip("+").startswith("hydra.mode=") for override in overrides):
        flags = [word for word in words if word not in parsed.words]
        _hand_to_hydra(name, overrides, flags)
    else:
        config = recipe.compose(name, overrides)
        _train(config)
        if _is_first_process():
            print(after_training(config), file=sys.stderr)
    return 0


def _train(config: dict[str, Any]) -> None:
    from scm_media import training
    from scm_media.cli.expected import expectation

    training.run(config, expectation)


def _is_first_process() -> bool:
    """Returns whether this is the process that speaks for all of a training."""
    from torch import distributed

    return not distributed.is_available() or not distributed.is_initialized() or distributed.get_rank() == 0


def _hand_to_hydra(name: str, overrides: Sequence[str], flags: Sequence[str]) -> None:
    """Calls Hydra's command line with the recipe as primary configuration and errors in one line."""
    file, primary = recipe.locate(name)
    taken = {override.lstrip("+").partition("=")[0] for override in overrides}
    quiet = [f"{key}={value}" for key, value in QUIET.items() if key not in taken]
    recipe.check_sweep(name, [*overrides, *quiet])
    before, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    # Hydra's parser wants all overrides in one run, so flags that stood between them come last.
    words = [*recipe.literal_texts(overrides), *quiet, *recipe.name_override(name, overrides), *flags]
    sys.argv = ["scm-media", "--config-name", primary, *words]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come to us instead of being printed
    try:
        with recipe.searching(file), clear_errors(name, lambda: recipe.known_keys(name), recipe.names()):
            hydra.main(version_base=recipe.HYDRA_VERSION_BASE, config_path=None, config_name=primary)(job)()
    finally:
        sys.argv = before
        os.environ.pop("HYDRA_FULL_ERROR")
        if full_error is not None:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def job(config: Any) -> None:
    """Runs one job of a sweep, in whatever process; a ``run_dir`` that is not given is named by the overrides."""
    overrides = [word for word in HydraConfig.get().overrides.task if not word.lstrip("+").startswith("recipe=")]
    written: Any = OmegaConf.to_container(config, resolve=False)  # nothing is resolved before it is checked
    plain = recipe.finish(config, str(written["recipe"]), overrides)
    if not any(word.lstrip("+").startswith("run_dir=") for word in overrides):
        plain["run_dir"] = f"runs/{plain['recipe']}/{folder_name(overrides)}"
    _train(plain)


def folder_name(overrides: Sequence[str]) -> str:
    """Returns the folder name of a job of a sweep, the same for the same overrides in any order."""
    text = ",".join(sorted(overrides)) or "main"
    name = re.sub(r"[^\w.,=+-]+", "_", text)
    if name == text and len(name) <= 120:
        return name
    return f"{name[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

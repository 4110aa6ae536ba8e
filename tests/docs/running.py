"""Runs the commands of a page in this process, in a temporary folder, with what makes them short."""

from __future__ import annotations

import contextlib
import io
import runpy
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scm_media import recipe
from scm_media.cli import main
from tests.docs.blocks import REPOSITORY, SHELLS, Block, Command

SHORT = {
    "generate": ("-n", "6"),
    "edit": ("-n", "1", "--steps", "2"),
    "evaluate": ("-n", "16", "--batch-size", "16"),
    "few_steps.py": ("-n", "2"),
}
"""Words that are appended to a command of this name: the last one of a flag counts."""

STAGES = ("feature_extractor", "autoencoder", "teacher", "guide", "warm_start", "student")
ANY = (
    "device=cpu",
    "logger=none",
    "precision=32-true",
    "num_devices=1",
    "trainer.num_workers=0",
    "trainer.num_preview_samples=2",
    "trainer.sample_early=[]",
    "trainer.log_every=1",
    "sampler.teacher_steps=2",
    "strategy=auto",
)
"""Overrides that every recipe takes in a training that is only to run."""


def short_training(name: str, overrides: Sequence[str]) -> list[str]:
    """Returns overrides that bring each stage that a recipe has to two steps of small networks."""
    config = recipe.compose(name, overrides)
    found = [*ANY, *(["trainer.compile=false"] if config["trainer"]["compile"] else [])]
    for stage in STAGES:
        section = config[stage]
        if section is not None and section.get("max_steps"):
            found += [f"{stage}.max_steps=2", f"++{stage}.batch_size={min(4, section.get('batch_size', 4))}"]
            found += [f"{stage}.warmup_steps=1"] if "warmup_steps" in section else []
    if config["trajectories"] is not None:
        found += [f"trajectories.{key}" for key in ("num=8", "batch_size=4", "shard_size=8", "steps=2")]
    if config["guide"] is not None:
        found.append("guide.backbone={width: 24, depth: 1, num_heads: 2}")
    if "width" in config["backbone"]:
        found += ["backbone.width=48", "backbone.depth=1", "backbone.num_heads=2"]
    if "width" in config["autoencoder"]["network"]:
        found.append("autoencoder.network.width=8")
    if "num_samples" in config["autoencoder"] and not config["teacher_from"]:
        found.append("autoencoder.num_samples=16")
    if "num" in config["data"]:
        found.append("data.num=32")
    return found


@dataclass
class Ran:
    """Holds what was run of a page, with exit codes, and the names that its Python left.

    codes: of each command and of each block of Python, in order; nothing is run after the first that is not 0.
    """

    names: dict[str, Any]
    codes: list[tuple[str, int]] = field(default_factory=list)


def run(command: Command, patch: pytest.MonkeyPatch) -> int:
    """Runs a command, shortened; returns its exit code."""
    for name, value in command.variables:
        if name == "PYTHONPATH":
            patch.syspath_prepend(str(Path(value).resolve()))
        else:
            patch.setenv(name, value)
    program, *words = command.words
    output = io.StringIO()
    redirected = contextlib.redirect_stdout(output) if command.output else contextlib.nullcontext()
    with redirected:
        if program == "scm-media":
            code = main([*words, *_added(words)])
        elif program == "python":
            script = REPOSITORY / words[0]
            patch.setattr(sys, "argv", [words[0], *words[1:], *SHORT.get(script.name, ())])
            code = _run_script(script)
        elif program == "cp":
            code = 0 if shutil.copy(*words) else 1
        else:
            raise AssertionError(f"nothing here runs {program}: mark its block with what it needs")
    if command.output:
        Path(command.output).write_text(output.getvalue(), encoding="utf-8")
    return code


def _run_script(script: Path) -> int:
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _added(words: Sequence[str]) -> Iterable[str]:
    if words[0] in ("train", "encode"):
        return short_training(words[1], words[2:])
    if words[0] == "evaluate" and "--samples" in words:
        return ()
    return SHORT.get(words[0], ())


def run_blocks(blocks: Iterable[Block], patch: pytest.MonkeyPatch, names: Mapping[str, Any]) -> Ran:
    """Runs the blocks of a page in order, until one fails, and returns what was run.

    names: what the page's Python takes as given. A block that begins with ``# FILE.py`` is written to that file.
    """
    ran = Ran(dict(names))
    for block in blocks:
        first = block.text.lstrip().split(maxsplit=2)
        if block.language in SHELLS:
            for command in block.commands():
                ran.codes.append((" ".join(command.words), run(command, patch)))
                if ran.codes[-1][1] != 0:
                    return ran
        elif first[0] == "#" and first[1].rstrip(",").endswith(".py"):
            Path(first[1].rstrip(",")).write_text(block.text, encoding="utf-8")
            ran.codes.append((str(block), 0))
        else:
            exec(compile(block.text, str(block), "exec"), ran.names)
            ran.codes.append((str(block), 0))
    return ran

"""``scm-media convert`` writes a model of diffusers, or of format 1, as a model folder of today, and checks it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scm_media.cli.arguments import parser
from scm_media.display import printable, printable_lines

if TYPE_CHECKING:
    from scm_media.adapters import DiffusersFolder
    from scm_media.adapters.checking import ConversionCheck

RECIPES = {1: "audio/distil", 2: "image/distil", 3: "video/distil"}
"""A model gets the modality of one of these recipes, by the number of axes of its latents."""


def run(arguments: Sequence[str]) -> int:
    """Writes the converted model folder, prints its path and returns 0; 1 where a check finds it wrong."""
    commands = parser(
        "convert",
        "Writes a model folder from a pipeline that diffusers saved (its network becomes the teacher:\n"
        "docs/teachers.md), or from one of format 1, whose files and keys had other names (docs/glossary.md). The\n"
        "source is left as it is; checkpoints of a run are not converted.",
    )
    commands.add_argument("source", metavar="SOURCE", help="a folder of diffusers or of format 1, or hf://org/name")
    commands.add_argument("target", type=Path, nargs="?", metavar="DIR", help="a folder that does not exist yet")
    commands.add_argument(
        "--check",
        action="store_true",
        help="of diffusers: compare samples with those of its own scheduler, and dF/dt with differences, in float64",
    )
    commands.add_argument("--steps", type=int, default=8, metavar="N", help="steps of the compared samples; default: 8")
    commands.add_argument(
        "--latent", metavar="C,S,…", help="shape of the latents that are compared; default: the network's own"
    )
    commands.add_argument("--prompts", metavar="FILE", help="prompts with their embeddings, for networks of text")
    parsed = commands.parse_args(arguments)
    if parsed.target is None and not parsed.check:
        commands.error("give DIR (a new folder to write to), --check, or both")
    if parsed.steps < 1:
        commands.error(f"--steps must be at least 1, got {parsed.steps}")

    from scm_media.adapters import DiffusersFolder
    from scm_media.adapters.loading import INDEX  # after --help, which needs no torch
    from scm_media.pipeline.hub import find_folder

    folder = find_folder(parsed.source)
    if not (folder / INDEX).is_file():
        if parsed.target is None or parsed.check:
            raise ValueError(f"{folder} has no {INDEX}: --check compares pipelines of diffusers")
        from scm_media.pipeline.conversion import convert

        print(printable(convert(folder, parsed.target)))
        return 0
    source = DiffusersFolder(folder)
    right = not parsed.check or _check(source, parsed.steps, parsed.latent)
    if parsed.target is not None:
        _write(parsed.source, source, parsed.target, parsed.prompts)
        print(printable(parsed.target))
    return 0 if right else 1


def _check(source: DiffusersFolder, steps: int, latent: str | None) -> bool:
    """Prints what was measured, and the verdict; returns whether samples and tangent are right."""
    import torch

    from scm_media.adapters.checking import check_conversion
    from scm_media.adapters.examples import random_conditioning
    from scm_media.adapters.folder import load_teacher

    shape = source.latent_shape() if latent is None else _shape(latent)
    teacher = load_teacher(source.path, torch.float32)
    cond = random_conditioning(source.network, source.config)
    found = check_conversion(teacher, source.scheduler, shape, cond, steps)
    print(_report(source, type(teacher).__name__, shape, found), file=sys.stderr)
    return found.is_right


def _shape(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if len(words) < 2 or not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise ValueError(f"--latent must be channels and sizes, such as 4,64,64; got {printable(text)}")
    return tuple(map(int, words))


def _report(source: DiffusersFolder, kind: str, shape: Sequence[int], found: ConversionCheck) -> str:
    slopes = ", ".join(f"{slope:.3g} at {time:g}" for time, slope in found.slopes.items())
    lines = [
        f"{source.network} as {kind}, latents of {'×'.join(map(str, shape))}",
        f"samples of its own scheduler and ours, {found.steps} steps: mean difference {found.mean_error:.1e}, largest "
        f"{found.max_error:.1e} of their root mean square",
        f"dF/dt in one pass against differences: {found.tangent_error:.1e}; its size by t in radians: {slopes}",
        *(found.verdict() or ["nothing is wrong with it"]),
    ]
    return printable_lines("\n".join(lines))


def _write(name: str, source: DiffusersFolder, target: Path, prompts: str | None) -> None:
    from scm_media import recipe
    from scm_media.prompts import PromptBank
    from scm_media.recipe.overrides import quote
    from scm_media.training.converting import convert_teacher

    num = 1 if prompts is None else len(PromptBank.load(prompts).prompts)
    overrides: list[Any] = [f"teacher_from={quote(name)}", "data=none", f"data.num={num}", "feature_extractor=null"]
    if classes := source.num_classes:
        overrides.append(f"data.classes={{class:{classes}}}")
    if prompts is not None:
        overrides.append(f"data.prompts={quote(prompts)}")
    convert_teacher(recipe.compose(RECIPES[len(source.latent_shape()) - 1], overrides), target)

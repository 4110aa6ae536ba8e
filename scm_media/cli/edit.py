"""``scm-media edit``: clips that keep a part of a file, and have the rest made."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scm_media.cli.arguments import parser
from scm_media.cli.samples import add_drawing_flags, how_made, open_model, tell, write_samples
from scm_media.display import printable


def run(arguments: Sequence[str]) -> int:
    """0 when every clip is written."""
    begun = time.perf_counter()
    commands = _parser()
    pipeline, parsed, sizes = open_model(commands, arguments, _lengths)
    for flag in ("task", "input"):
        if getattr(parsed, flag) is None:
            commands.error(f"give --{flag}")
    if unsaid := pipeline.drawn_labels(parsed.label):
        print(
            f"{printable(parsed.model)} always knows the {' and '.join(map(printable, unsaid))} of a clip: drawn "
            f"for each; --label L says it",
            file=sys.stderr,
        )
    if pipeline.actions.names and parsed.actions is None:
        said = "makes clips by actions: recorded ones are drawn; --actions A says them"
        print(f"{printable(parsed.model)} {said}", file=sys.stderr)
    batches = pipeline.edit_batches(
        parsed.task,
        parsed.input,
        parsed.num,
        parsed.label,
        keep=parsed.keep,
        region=parsed.region,
        mask=parsed.mask,
        steps=parsed.steps,
        times=parsed.times,
        guidance=parsed.guidance,
        guidance_interval=parsed.guidance_interval,
        seed=parsed.seed,
        batch_size=parsed.batch_size,
        overlap=parsed.overlap,
        actions=parsed.actions,
        **sizes,
    )
    steps = len(parsed.times) if parsed.times else parsed.steps or pipeline.edit_steps
    asked = {name: getattr(parsed, name) for name in ("keep", "region", "mask")}
    edit = {
        name: str(value) if isinstance(value, Path) else value for name, value in asked.items() if value is not None
    }
    made = how_made(
        pipeline,
        parsed,
        steps=steps,
        sampler="consistency",
        task=parsed.task,
        input=str(parsed.input),
        **edit,
        **sizes,
    )
    report = write_samples(batches, pipeline, parsed, steps, made)
    tell({**report, "seconds_total": time.perf_counter() - begun}, parsed)
    return 0


def _lengths(modality: Any) -> Mapping[str, Any]:
    """The extents that say how long a clip gets; all others are those of the input."""
    return {name: size_option for name, size_option in modality.size_options.items() if size_option.axis is not None}


def _parser() -> argparse.ArgumentParser:
    commands = parser(
        "edit",
        "Keeps a part of a file and makes the rest with a model; what is kept comes back as it was.\n"
        "With MODEL, --help also shows how long a clip can be asked for (duration, frames …).",
        usage="scm-media edit MODEL --task TASK --input FILE [flags]",
        epilog="tasks:\n"
        "  continue     the end of the file is the start of the clip\n"
        "  prepend      the start of the file is the end of the clip\n"
        "  interpolate  the clip starts as the file starts and ends as it ends\n"
        "  animate      the file's first frame is set in motion\n"
        "  inpaint      a region of the file is made anew, by --region or --mask\n"
        "\n"
        "examples:\n"
        "  scm-media edit image/fashion --task inpaint --input boot.png --label 'Ankle boot' --region 16 32 0 32\n"
        "  scm-media edit runs/audio/notes/main --task continue --input note.wav --keep 0.25 --duration 3",
    )
    commands.add_argument("--task", metavar="TASK", help="what is kept and what is made, see below")
    commands.add_argument("--input", type=Path, metavar="FILE", help="a file that the modality reads")
    commands.add_argument(
        "--keep", type=float, metavar="X", help="how much of the file is kept, in seconds, frames … of the modality"
    )
    commands.add_argument(
        "--region",
        type=float,
        nargs="+",
        metavar="A",
        help="what is made anew: FROM TO in seconds, frames …; or first and last place along each axis, for pictures "
        "TOP BOTTOM LEFT RIGHT in pixels",
    )
    commands.add_argument("--mask", type=Path, metavar="FILE", help="what is made anew: white; what is kept: black")
    commands.add_argument(
        "--label", metavar="L", help='"Bag" or "family=guitar pitch=60"; without: the network does without where it can'
    )
    add_drawing_flags(commands, "edits")
    return commands

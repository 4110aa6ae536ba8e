"""``scm-media edit`` makes samples that keep a part of a file."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scm_media.cli.arguments import parser
from scm_media.cli.samples import add_sampling_flags, open_model, print_report, sampling_request, write_samples
from scm_media.display import printable


def run(arguments: Sequence[str]) -> int:
    """Returns 0 when every sample is written."""
    begun = time.perf_counter()
    commands = _parser()
    pipeline, parsed, sizes = open_model(commands, arguments, _length_options)

    from scm_media.pipeline import EditRequest
    from scm_media.pipeline.records import describe_edit

    for flag in ("task", "input"):
        if getattr(parsed, flag) is None:
            commands.error(f"give --{flag}")
    if drawn := pipeline.drawn_labels(parsed.label):
        print(
            f"{printable(parsed.model)} needs the {' and '.join(map(printable, drawn))} of a sample: drawn for each "
            f"sample; set it with --label L",
            file=sys.stderr,
        )
    if pipeline.actions.names and parsed.actions is None:
        print(
            f"{printable(parsed.model)} needs actions: drawn from its action bank; set them with --actions A",
            file=sys.stderr,
        )
    given = {name: getattr(parsed, name) for name in ("keep", "region", "mask")}
    request = EditRequest(task=parsed.task, source=parsed.input, **given, sampling=sampling_request(parsed, sizes))
    batches = pipeline.edit_batches(request)
    report = write_samples(batches, pipeline, parsed, describe_edit(pipeline, parsed.model, request))
    print_report({**report, "seconds_total": time.perf_counter() - begun}, parsed)
    return 0


def _length_options(modality: Any) -> Mapping[str, Any]:
    """Returns the size options that set how long a sample is; all others are those of the input."""
    return {name: option for name, option in modality.size_options.items() if option.axis is not None}


def _parser() -> argparse.ArgumentParser:
    commands = parser(
        "edit",
        "Keeps a part of a file unchanged and makes the rest with a model.\n"
        "With MODEL, --help also lists the options for the length of a sample (duration, frames …).",
        usage="scm-media edit MODEL --task TASK --input FILE [flags]",
        epilog="tasks:\n"
        "  continue     the end of the file becomes the start of the sample\n"
        "  prepend      the start of the file becomes the end of the sample\n"
        "  interpolate  the sample starts as the file starts and ends as the file ends\n"
        "  animate      the file's first frame is set in motion\n"
        "  inpaint      a region of the file is made anew, set by --region or --mask\n"
        "\n"
        "examples:\n"
        "  scm-media edit image/fashion --task inpaint --input boot.png --label 'Ankle boot' --region 16 32 0 32\n"
        "  scm-media edit runs/audio/notes/main --task continue --input note.wav --keep 0.25 --duration 3",
    )
    commands.add_argument("--task", metavar="TASK", help="how the file is edited, see below")
    commands.add_argument("--input", type=Path, metavar="FILE", help="the picture, sound or clip to edit")
    commands.add_argument(
        "--keep", type=float, metavar="X", help="length of the kept part, in the modality's unit (seconds, frames …)"
    )
    commands.add_argument(
        "--region",
        type=float,
        nargs="+",
        metavar="A",
        help="region to make anew: FROM TO in seconds, frames …; or first and last index along each axis, for "
        "pictures TOP BOTTOM LEFT RIGHT in pixels",
    )
    commands.add_argument("--mask", type=Path, metavar="FILE", help="white is made anew, black is kept")
    commands.add_argument(
        "--label",
        metavar="L",
        help='"Bag" or "family=guitar pitch=60"; default: none, or drawn for a network that was trained without label '
        "dropout",
    )
    add_sampling_flags(commands, "edits")
    return commands

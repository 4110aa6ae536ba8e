"""``scm-media compare`` puts the figures of several models on one page and in one table."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from scm_media.cli.arguments import parser
from scm_media.cli.output import print_json
from scm_media.display import printable, printable_lines


def run(arguments: Sequence[str]) -> int:
    """Returns 0 when the page is written."""
    commands = _parser()
    parsed = commands.parse_args(arguments)
    if len(parsed.models) < 2:
        commands.error(
            "give two models at least, as in scm-media compare image/fashion RUN; scm-media evaluate MODEL --curve "
            "writes the page of one"
        )
    out = parsed.out / "compare.html" if parsed.out.is_dir() else parsed.out
    if out.suffix not in (".html", ".htm"):
        raise ValueError(f"--out {out}: expected a page (.html) or a folder that exists")

    from scm_media.evaluation.compare import compare, comparison_text, write_comparison
    from scm_media.evaluation.kept_figures import read_measurements
    from scm_media.evaluation.scaling import read_sizes
    from scm_media.pipeline.export import base_name

    measurements = read_measurements(parsed.models, parsed.features)
    sizes = read_sizes(measurements) if parsed.size else []
    if parsed.json:
        print_json(compare(measurements, sizes))
    else:
        print(printable_lines(comparison_text(measurements, sizes)))
    command = shlex.join(["scm-media", "compare", *map(base_name, arguments)])  # without paths of this machine
    write_comparison(measurements, out, sizes, command)
    print(f"the same as a page: {printable(out)}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    commands = parser(
        "compare",
        "Puts the figures that evaluate wrote for several models on one page: distance over compute, and a table.\n"
        "Says which figures do not compare, because features, numbers of samples or data differ.",
        usage="scm-media compare MODEL MODEL ... [flags]",
    )
    commands.add_argument(
        "models", nargs="+", metavar="MODEL", help="a bundled name, a run or model folder, hf://…, or a metrics.json"
    )
    commands.add_argument(
        "--size",
        action="store_true",
        help="distances over the number of parameters too, and whether the gap to the teacher narrows with size",
    )
    commands.add_argument(
        "--features", metavar="F", help="the figures in the features of this network (metrics-F.json)"
    )
    commands.add_argument(
        "--out",
        type=Path,
        default=Path("compare.html"),
        metavar="FILE",
        help="the page to write; default: compare.html",
    )
    commands.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return commands

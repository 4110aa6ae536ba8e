"""``scm-media convert``: writes a model of format 1 with today's names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scm_media.cli.arguments import parser
from scm_media.display import printable


def run(arguments: Sequence[str]) -> int:
    """Writes the converted model folder, prints its path and returns 0."""
    commands = parser(
        "convert",
        "Writes a model folder of today's format from one of format 1 (a model or a run), whose files and keys had\n"
        "other names (docs/glossary.md). The old folder is left as it is; checkpoints of a run are not converted.",
    )
    commands.add_argument("source", type=Path, metavar="OLD", help="a model folder or run folder of format 1")
    commands.add_argument("target", type=Path, metavar="NEW", help="a folder that does not exist yet")
    parsed = commands.parse_args(arguments)
    from scm_media.pipeline.conversion import convert  # after --help, which needs no torch

    print(printable(convert(parsed.source, parsed.target)))
    return 0

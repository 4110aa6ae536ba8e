"""``scm-media export``: a run or model as a folder that stands on its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scm_media.cli.arguments import parser

PRECISIONS = ("as-is", "float32", "float16", "bfloat16")


def run(arguments: Sequence[str]) -> int:
    """0 when the folder is complete."""
    commands = parser("export", "Writes a self-contained model folder: weights, recipe, figures and a model card.")
    commands.add_argument("model", metavar="MODEL", help="a run folder, a model folder or a bundled name")
    commands.add_argument("folder", metavar="DIR", type=Path, help="where to; files of the same name are replaced")
    commands.add_argument("--format", choices=("safetensors",), default="safetensors", help="default: safetensors")
    commands.add_argument("--precision", choices=PRECISIONS, default="as-is", help="of the weights; default: as-is")
    commands.add_argument("--no-teacher", action="store_true", help="leave the teacher out")
    parsed = commands.parse_args(arguments)

    import torch

    from scm_media.pipeline import ModelFolder
    from scm_media.pipeline.export import export

    dtype = None if parsed.precision == "as-is" else getattr(torch, parsed.precision)
    folder = export(ModelFolder.open(parsed.model), parsed.folder, dtype=dtype, teacher=not parsed.no_teacher)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB; use it with: scm-media generate {folder}")
    return 0

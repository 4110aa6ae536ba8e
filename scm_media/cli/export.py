"""``scm-media export``: writes a run or model as a self-contained model folder."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scm_media.cli.arguments import parser
from scm_media.display import printable

if TYPE_CHECKING:
    from scm_media.pipeline import ModelFolder

PRECISIONS = ("as-is", "float32", "float16", "bfloat16")


def run(arguments: Sequence[str]) -> int:
    """Returns 0 when the folder is complete."""
    commands = parser(
        "export",
        "Writes a self-contained model folder, as the Hugging Face hub takes it: weights, recipe, figures, a\nmodel "
        "card and a sheet of samples.",
    )
    commands.add_argument("model", metavar="MODEL", help="a run folder, a model folder or a bundled name")
    commands.add_argument(
        "folder", metavar="DIR", type=Path, help="a new folder, or one without a model (--format lora: a file)"
    )
    commands.add_argument(
        "--precision", choices=PRECISIONS, default="as-is", help="type of the weights; default: as-is"
    )
    commands.add_argument(
        "--format",
        choices=("scm-media", *FORMATS),
        default="scm-media",
        help="diffusers: the pipeline that the teacher came from, with the student in it and a scheduler of few steps; "
        "lora: one file of a LoRA student, for load_lora_weights of diffusers; onnx, torch: a folder with the "
        "student's network and decoder, which run without this package, in onnxruntime or by torch.export.load",
    )
    commands.add_argument(
        "--pipeline",
        metavar="FOLDER",
        help="with --format diffusers: that pipeline; default: the recipe's teacher_from",
    )
    commands.add_argument("--no-teacher", action="store_true", help="leave the teacher out")
    commands.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the model in DIR as a whole; files that no export writes (.git, LICENSE) stay",
    )
    parsed = commands.parse_args(arguments)
    ours = {
        "--precision": parsed.precision != "as-is",
        "--no-teacher": parsed.no_teacher,
        "--overwrite": parsed.overwrite,
    }
    if parsed.format != "scm-media" and (given := [flag for flag, is_given in ours.items() if is_given]):
        commands.error(f"{', '.join(given)}: not with --format {parsed.format}")
    if parsed.pipeline is not None and parsed.format != "diffusers":
        commands.error("--pipeline goes with --format diffusers")

    import torch

    from scm_media.pipeline import ModelFolder, Pipeline
    from scm_media.pipeline.export import check_target

    if parsed.format in FORMATS:
        print(FORMATS[parsed.format](ModelFolder.open(parsed.model), parsed))
        return 0
    dtype = None if parsed.precision == "as-is" else getattr(torch, parsed.precision)
    model = ModelFolder.open(parsed.model)
    check_target(model, parsed.folder, parsed.overwrite)  # before statistics are made, which may take long
    if problem := _without_reference(model):
        print(
            f"scm-media export: evaluate will not work on {printable(parsed.folder)}: {printable(problem)}",
            file=sys.stderr,
        )
    folder = Pipeline(model).save_pretrained(
        parsed.folder, dtype=dtype, teacher=not parsed.no_teacher, overwrite=parsed.overwrite
    )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shown = printable(folder)
    print(f"{shown}: {size / 2**20:.1f} MiB; use it with: scm-media generate {shown}")
    return 0


def _export_to_diffusers(model: ModelFolder, parsed: Namespace) -> str:
    from scm_media.pipeline.diffusers_export import export_to_diffusers

    shown = printable(export_to_diffusers(model, parsed.folder, parsed.pipeline))
    return f"{shown}: use it with diffusers' DiffusionPipeline.from_pretrained; its README.md has the steps"


def _export_lora(model: ModelFolder, parsed: Namespace) -> str:
    from scm_media.pipeline.diffusers_export import export_lora

    return printable(export_lora(model, parsed.folder))


def _export_graphs(model: ModelFolder, parsed: Namespace) -> str:
    from scm_media.pipeline.graph_export import export_graphs

    folder, manifest = export_graphs(model, parsed.folder, parsed.format)
    if reason := manifest.get("decoder_left_out"):
        print(f"scm-media export: the folder has no decoder: {printable(reason)}", file=sys.stderr)
    parts = [each for each in (manifest["network"], manifest["decoder"]) if each]
    found = ", ".join(f"{each['file']} by {each['difference']:.1e}" for each in parts)
    return f"{printable(folder)}: differs from PyTorch, over the largest value: {found}; how to sample: README.md"


FORMATS: Mapping[str, Callable[[ModelFolder, Namespace], str]] = {
    "diffusers": _export_to_diffusers,
    "lora": _export_lora,
    "onnx": _export_graphs,
    "torch": _export_graphs,
}
"""The formats beside our own, and the functions that write them and return a line for the user."""


def _without_reference(model: ModelFolder) -> str | None:
    """Returns why a model has no statistics to measure figures against; None when it has them.

    A run that was never evaluated gets them here, from the data of its recipe.
    """
    from scm_media.evaluation.recipe_data import own_reference
    from scm_media.pipeline import Pipeline

    if model.has("reference"):
        return None
    if not model.has("feature_extractor"):
        return (
            "it has no feature network; train stage=feature_extractor first (the recipe's feature_extractor must not "
            "be null)"
        )
    try:
        own_reference(Pipeline(model))
    except (ValueError, OSError) as error:
        return f"its reference statistics cannot be made ({error}); bring the recipe's data back and export again"
    return None

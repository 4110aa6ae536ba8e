"""``scm-media export`` writes a run or model as a self-contained model folder, or in the format of other programs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scm_media.cli.arguments import parser, read_lines
from scm_media.display import byte_size, printable

if TYPE_CHECKING:
    from scm_media.pipeline import ModelFolder

PRECISIONS = ("as-is", "float32", "float16", "bfloat16")


def run(arguments: Sequence[str]) -> int:
    """Returns 0 when the export is complete."""
    commands = parser(
        "export",
        "Writes a self-contained model folder, as the Hugging Face hub takes it: weights, recipe, figures, a\nmodel "
        "card and a sheet of samples. Other formats are chosen by --format.",
    )
    commands.add_argument("model", metavar="MODEL", help="a run folder, a model folder or file, or a bundled name")
    commands.add_argument(
        "folder",
        metavar="DIR",
        type=Path,
        help="a new folder, or one without a model (--format safetensors, lora: a file)",
    )
    commands.add_argument(
        "--precision", choices=PRECISIONS, default="as-is", help="type of the weights; default: as-is"
    )
    helps = "; ".join(f"{name}: {each.help}" for name, each in FORMATS.items())
    commands.add_argument("--format", choices=tuple(FORMATS), default="scm-media", help=helps)
    commands.add_argument(
        "--pipeline",
        metavar="FOLDER",
        help="with --format diffusers: that pipeline; default: the recipe's teacher_from",
    )
    commands.add_argument(
        "--teacher",
        action=argparse.BooleanOptionalAction,
        help="take the teacher along or leave it out; default: along in a folder, left out of a single file",
    )
    commands.add_argument(
        "--texts",
        metavar="FILE",
        help="a file with a text of the model in each line: those that go along with their embeddings, and so need no "
        "text encoder; default: some of the training data's",
    )
    commands.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the model in DIR as a whole; files that no export writes (.git, LICENSE) stay",
    )
    parsed = commands.parse_args(arguments)
    chosen = FORMATS[parsed.format]
    given = {
        "--precision": parsed.precision != "as-is",
        "--teacher": parsed.teacher is True,
        "--no-teacher": parsed.teacher is False,
        "--texts": parsed.texts is not None,
        "--overwrite": parsed.overwrite,
    }
    if unheeded := [flag for flag, is_given in given.items() if is_given and flag not in chosen.flags]:
        commands.error(f"{', '.join(unheeded)}: not with --format {parsed.format}")
    if parsed.pipeline is not None and "--pipeline" not in chosen.flags:
        commands.error("--pipeline goes with --format diffusers")

    from scm_media.pipeline import ModelFolder

    chosen.write(ModelFolder.open(parsed.model), parsed)
    return 0


def _texts(parsed: argparse.Namespace) -> list[str] | None:
    return None if parsed.texts is None else read_lines("--texts", parsed.texts, "text")


def _write_folder(model: ModelFolder, parsed: argparse.Namespace) -> None:
    from scm_media.pipeline import Pipeline
    from scm_media.pipeline.export import check_target

    check_target(model, parsed.folder, parsed.overwrite)  # before statistics are made, which may take long
    _warn_without_reference(model, parsed.folder)
    folder = Pipeline(model).save_pretrained(
        parsed.folder,
        dtype=_dtype(parsed),
        teacher=parsed.teacher is not False,
        overwrite=parsed.overwrite,
        texts=_texts(parsed),
    )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shown = printable(folder)
    print(f"{shown}: {byte_size(size)}; use it with: scm-media generate {shown}")


def _write_file(model: ModelFolder, parsed: argparse.Namespace) -> None:
    from scm_media.pipeline.model_file import check_file_target, export_file, needs_teacher

    check_file_target(model, parsed.folder, parsed.overwrite)
    _warn_without_reference(model, parsed.folder)
    teacher = needs_teacher(model) if parsed.teacher is None else parsed.teacher
    file = export_file(model, parsed.folder, _dtype(parsed), teacher, parsed.overwrite, _texts(parsed))
    shown, left_out = printable(file), ""
    if model.has("teacher") and not teacher:
        left_out = " without the teacher (--teacher takes it along)"
    print(f"{shown}: {byte_size(file.stat().st_size)}{left_out}; use it with: scm-media generate {shown}")


def _write_diffusers(model: ModelFolder, parsed: argparse.Namespace) -> None:
    shown = printable(_export_to_diffusers(model, parsed.folder, parsed.pipeline))
    print(f"{shown}: use it with diffusers' DiffusionPipeline.from_pretrained; its README.md has the steps")


def _write_lora(model: ModelFolder, parsed: argparse.Namespace) -> None:
    from scm_media.pipeline.diffusers_export import export_lora

    print(printable(export_lora(model, parsed.folder)))


def _write_graphs(model: ModelFolder, parsed: argparse.Namespace) -> None:
    from scm_media.pipeline.graph_export import export_graphs

    folder, manifest = export_graphs(model, parsed.folder, parsed.format, _texts(parsed))
    if reason := manifest.get("decoder_left_out"):
        print(f"scm-media export: the folder has no decoder: {printable(reason)}", file=sys.stderr)
    parts = [each for each in (manifest["network"], manifest["decoder"]) if each]
    found = ", ".join(f"{each['file']} by {each['difference']:.1e}" for each in parts)
    print(f"{printable(folder)}: differs from PyTorch, over the largest value: {found}; how to sample: README.md")


@dataclass(frozen=True)
class _Format:
    """Describes a value of ``--format`` by the function that writes it, the flags that it heeds, and its help."""

    write: Callable[[ModelFolder, argparse.Namespace], None]
    flags: Sequence[str]
    help: str


OURS = ("--precision", "--teacher", "--no-teacher", "--texts", "--overwrite")
FORMATS: Mapping[str, _Format] = {
    "scm-media": _Format(_write_folder, OURS, "a model folder (default)"),
    "safetensors": _Format(
        _write_file, OURS, "the whole model in one .safetensors file, without card and sheet, which all commands open"
    ),
    "diffusers": _Format(
        _write_diffusers,
        ("--pipeline",),
        "the pipeline that the teacher came from, with the student in it and a scheduler of few steps, or one of our "
        "own classes for a student of ours",
    ),
    "lora": _Format(_write_lora, (), "one file of a LoRA student, for load_lora_weights of diffusers"),
    "onnx": _Format(
        _write_graphs,
        ("--texts",),
        "a folder with the student's network and decoder for onnxruntime, without this package",
    ),
    "torch": _Format(_write_graphs, ("--texts",), "the same as programs that torch.export.load reads"),
}


def _dtype(parsed: argparse.Namespace) -> Any:
    """Returns the type of the weights that --precision asks for; None for their own."""
    import torch

    return None if parsed.precision == "as-is" else getattr(torch, parsed.precision)


def _warn_without_reference(model: ModelFolder, target: Path) -> None:
    """Says on standard error why a model cannot be evaluated after the export, if it cannot."""
    if problem := _without_reference(model):
        print(
            f"scm-media export: evaluate will not work on {printable(target)}: {printable(problem)}",
            file=sys.stderr,
        )


def _export_to_diffusers(model: ModelFolder, target: Path, pipeline: str | None) -> Path:
    """Returns the folder of a pipeline: the teacher's with the student in it, or one of our own classes."""
    from scm_media.pipeline.diffusers_export import export_to_diffusers, is_of_diffusers

    if is_of_diffusers(model):
        return export_to_diffusers(model, target, pipeline)
    if pipeline is not None:
        raise ValueError(f"{model.path}: its student comes from no pipeline of diffusers, so leave --pipeline out")
    try:
        from scm_media.diffusers.export import export_pipeline
    except ImportError as error:
        raise ValueError(str(error)) from error
    return export_pipeline(model, target)


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

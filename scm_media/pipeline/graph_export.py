"""Writes a student as files that run without this package: ONNX for onnxruntime, or programs of ``torch.export``."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree

from scm_media import __version__, weights
from scm_media.pipeline import onnx_files
from scm_media.pipeline.export import without_folders, write_json
from scm_media.pipeline.graph_card import format_graph_card
from scm_media.pipeline.graph_texts import write_texts
from scm_media.pipeline.graphs import OWN_INPUTS, DecoderGraph, Graph, GraphInput, StudentGraph, UnsupportedError
from scm_media.pipeline.loaded_model import LoadedModel
from scm_media.pipeline.model_folder import ModelFolder
from scm_media.pipeline.new_folder import check_new, new_folder
from scm_media.pipeline.sampling import student_times
from scm_media.samplers import edit_times

MANIFEST = "manifest.json"
FORMAT = 1
NUM_CHECKED = 4
"""Samples that a file's values are compared with PyTorch's for."""
TOLERANCE = 1e-4
"""The largest difference from PyTorch, over the largest value; or ten times the effect of rounding, if that is more."""


@dataclass(frozen=True)
class GraphFormat:
    """Writes a graph as a file, with names of its inputs and its output, and runs the file.

    checked_by: the library that runs it, for messages. check_packages: raises ValueError where one that it needs is
    missing.
    """

    suffix: str
    write: Callable[[ExportedProgram, Path, Sequence[str], str, str], int | None]
    run: Callable[[Path, Mapping[str, Tensor], str], Tensor]
    checked_by: str
    check_packages: Callable[[], None] = lambda: None


def _write_torch(program: ExportedProgram, path: Path, inputs: Sequence[str], output: str, name: str) -> None:
    program.example_inputs = None  # would be pickled
    torch.export.save(program, path)


def _run_torch(path: Path, feeds: Mapping[str, Tensor], name: str) -> Tensor:
    first = [feeds[key] for key in ("latents", *OWN_INPUTS) if key in feeds]
    named = {key: each for key, each in feeds.items() if key not in OWN_INPUTS}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the loader about its own buffers
        return torch.export.load(path).module()(*first, *([named] if len(first) == 2 else []))


FORMATS: Mapping[str, GraphFormat] = {
    "onnx": GraphFormat(".onnx", onnx_files.write, onnx_files.run, "onnxruntime", onnx_files.check_packages),
    "torch": GraphFormat(".pt2", _write_torch, _run_torch, "torch"),
}


def export_graphs(
    source: ModelFolder, target: Path, format: str, texts: Sequence[str] | None = None
) -> tuple[Path, dict[str, Any]]:
    """Writes a folder with the network and the decoder of a student, and returns it with its manifest.

    format: "onnx" or "torch". texts: those whose embeddings go along; None for some of the model's. Both files are
    compared with PyTorch before the folder is there. A decoder that cannot be brought into the format is left out, and
    the manifest's ``decoder_left_out`` says why.

    Raises ValueError for a target that exists, a model without a student, missing packages, texts that the model does
    not carry, a network that cannot be brought into the format (``UnsupportedError``), and for values that differ from
    PyTorch's; nothing is left then.
    """
    check_new(target)
    kind = FORMATS[format]
    kind.check_packages()
    model = LoadedModel(source, "cpu")
    student = StudentGraph(model)
    graph = Graph.capture(student, _example(model, student.inputs), "student's network")
    with new_folder(target) as folder:
        manifest = _describe(model, student.inputs, format) | {"texts": write_texts(model, folder, texts)}
        names = [*OWN_INPUTS, *(each.name for each in student.inputs)]
        manifest["network"] |= _write(graph, kind, folder, "network", names, "x0")
        try:
            decoder = Graph.capture(DecoderGraph(model.network("autoencoder")), (graph.expected,), "decoder")
            manifest["decoder"] = _write(decoder, kind, folder, "decoder", ["latents"], "samples")
        except UnsupportedError as error:
            for file in folder.glob("decoder*"):  # and its weights in a second file
                file.unlink()
            manifest["decoder_left_out"] = str(error)
        write_json(folder / MANIFEST, manifest)
        weights.write_whole(folder / "README.md", format_graph_card(manifest, format).encode())
    return target, manifest


def _write(
    graph: Graph, kind: GraphFormat, folder: Path, part: str, names: Sequence[str], output: str
) -> dict[str, Any]:
    """Writes and checks one file; returns what the manifest says of it."""
    path, words = folder / f"{part}{kind.suffix}", "decoder" if part == "decoder" else "student's network"
    opset = kind.write(graph.program, path, names, output, words)
    difference = _compare(graph, lambda feeds: kind.run(path, feeds, words), names)
    allowed = max(TOLERANCE, 10 * graph.rounding)
    if not difference <= allowed:
        raise ValueError(
            f"the {words} differs in {kind.checked_by} from PyTorch by {difference:.2g} of its largest value, more "
            f"than {allowed:.2g}: nothing was written; report it, and use the model in scm-media"
        )
    found = {"file": path.name, "output": output, "batch": graph.batch or "any", "difference": difference}
    return found | {"tolerance": allowed} | ({} if opset is None else {"opset": opset})


def _compare(graph: Graph, run: Callable[[Mapping[str, Tensor]], Tensor], names: Sequence[str]) -> float:
    """Returns the largest difference over the largest value, for a whole batch, where it can be, and one sample."""
    flat = dict(zip(names, _pytree.tree_leaves(graph.arguments), strict=True))
    batches = [slice(k, k + 1) for k in range(NUM_CHECKED)]
    if graph.batch != 1:
        batches = [batches[0], slice(0, NUM_CHECKED)]
    largest = float(graph.expected.abs().max())
    differences = []
    for rows in batches:
        found = run({name: value[rows] for name, value in flat.items()})
        expected = graph.expected[rows]
        if found.shape != expected.shape:
            raise ValueError(
                f"a file returns the shape {tuple(found.shape)} where PyTorch has {tuple(expected.shape)}: report "
                "it, and use the model in scm-media"
            )
        differences.append(float((found - expected).abs().max()) / largest)
    return max(differences, key=lambda value: (value != value, value))  # not a number counts as the largest


def _example(model: LoadedModel, inputs: Sequence[GraphInput]) -> tuple[Any, ...]:
    """Returns the arguments that graphs are captured and checked with: noise, times of all levels, varied inputs."""
    shape = (NUM_CHECKED, *model.latent_shape())
    generator = torch.Generator().manual_seed(0)
    times = edit_times(NUM_CHECKED, model.flow, model.settings.student_sigma)
    varied: dict[str, Tensor] = {}
    for each in inputs:
        value = torch.rand((NUM_CHECKED, *each.shape), generator=generator)
        if each.kind == "label" and (classes := each.facts.get("classes")):
            value = torch.randint(len(classes), (NUM_CHECKED,), generator=generator)
            value[-1] = value[-1] if each.facts["null"] is None else each.facts["null"]
        elif each.kind in ("label", "guidance"):
            low, high = each.facts["range"] or (0.0, 1.0)
            value = low + (high - low) * value
            if each.kind == "label":
                value[-1] = torch.nan
        elif each.kind == "mask":
            value = (value > 0.5).float()
        elif each.kind == "token_mask":
            value = value > 0.5
            value[-1] = False  # no text
        varied[each.name] = value
    return model.flow.prior(shape, generator), torch.tensor(times), varied


def _describe(model: LoadedModel, inputs: Sequence[GraphInput], format: str) -> dict[str, Any]:
    """Returns the manifest without what is known only of files."""
    description, modality = model.folder.description, model.modality
    latent_shape = ["batch", *description.latent_shape]
    listed: list[dict[str, Any]] = [
        {"name": "x_t", "kind": "latent", "dtype": "float32", "shape": latent_shape},
        {"name": "t", "kind": "time", "dtype": "float32", "shape": ["batch"]},
    ]
    for each in inputs:
        dtype = str(each.dtype).removeprefix("torch.")
        entry = {"name": each.name, "kind": each.kind, "dtype": dtype, "shape": ["batch", *each.shape]}
        listed.append(entry | dict(each.facts))
    # A distribution may have another name than its package: onnxruntime-gpu.
    packages = {name: importlib.import_module(name).__version__ for name in onnx_files.PACKAGES if format == "onnx"}
    rates = {"sample_rate": "sample_rate", "frame_rate": "written_rate"}
    return {
        "format": FORMAT,
        "name": without_folders(description.name),
        "modality": modality.name,
        "made_by": {"scm-media": __version__, "torch": torch.__version__} | packages,
        "network": {"inputs": listed},
        "decoder": None,
        "sigma_data": model.flow.sigma_data,
        "latent_shape": list(description.latent_shape),
        "sample_shape": list(description.sample_shape),
        "sample_range": [-1, 1],
        **{key: found for key, name in rates.items() if (found := getattr(modality, name, None)) is not None},
        "steps": {str(steps): list(times) for steps, times in student_times(model.settings, model.flow).items()},
        "default_steps": model.settings.steps,
        "data": without_folders(description.data),
        "licence": without_folders(description.licence),
    }

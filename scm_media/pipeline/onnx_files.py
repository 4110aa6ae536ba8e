"""Graphs as ONNX files: their conversion, and their values in onnxruntime."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from scm_media.pipeline.graphs import UnsupportedError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
UNKNOWN = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'")


def check_packages() -> None:
    """Raises ValueError, with the extra to install, where a package is missing that ONNX files are made with."""
    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ValueError(
                f"--format onnx needs the package {package} ({error}): pip install 'scm-media[onnx]'"
            ) from error


def write(program: ExportedProgram, path: Path, inputs: Sequence[str], output: str, name: str) -> int:
    """Writes a program as an ONNX file and returns its opset; weights beyond 2 GiB lie in a second file beside it.

    Raises UnsupportedError, with the name, for operators that have no counterpart in ONNX.
    """
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of the exporter about its own code
        try:
            if any(node.target in _DECOMPOSITIONS for node in program.graph.nodes):
                program = program.run_decompositions(_DECOMPOSITIONS)
            made: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes=[{0: "batch"} for _ in inputs],  # the name of the axis, where it is dynamic
                verbose=False,
            )
        except Exception as error:  # the exporter wraps whatever its parts raise
            raise UnsupportedError(_explain(error, name)) from error
    model = made.model
    for graph in (model.graph, *model.functions.values()):
        for node in graph:
            node.metadata_props.clear()  # names of layers and lines of code
            node.doc_string = None
    made.save(str(path))
    return int(model.opset_imports[""])


def run(path: Path, feeds: Mapping[str, Tensor], name: str) -> Tensor:
    """Returns the only output of an ONNX file in onnxruntime on the CPU.

    Raises UnsupportedError, with the name, for operators that onnxruntime does not have.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # warnings are about folding constants
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        (output,) = session.run(None, {key: value.numpy() for key, value in feeds.items()})
    except Exception as error:  # onnxruntime's errors have no common class
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UnsupportedError(
            f"onnxruntime {onnxruntime.__version__} does not run the {name} ({reason}): export it by --format torch, "
            "or write this part of the network with other functions"
        ) from error
    return torch.from_numpy(output)


def _explain(error: BaseException, name: str) -> str:
    operators: list[str] = []
    cause: BaseException | None = error
    while cause is not None and not operators:
        operators, error = UNKNOWN.findall(str(cause)), cause
        cause = cause.__cause__ or cause.__context__
    if operators:
        listed = ", ".join(sorted(set(operators)))
        return (
            f"the {name} uses {listed}, which has no counterpart in ONNX: export it by --format torch, or write this "
            "part of the network with other functions"
        )
    reason = (str(error).strip().splitlines() or [""])[0]
    return f"the {name} cannot be written as ONNX ({type(error).__name__}: {reason}): export it by --format torch"


def _accumulate(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, dim: int) -> Tensor:
    """Returns the running maximum or minimum, in as many steps as the logarithm of the length."""
    x, step = x.movedim(dim, -1), 1
    while step < x.shape[-1]:
        x = torch.cat([x[..., :step], function(x[..., step:], x[..., :-step])], -1)
        step *= 2
    return x.movedim(-1, dim)


def _with_indices(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    def accumulate(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        values = _accumulate(function, x, dim)
        place = torch.arange(x.shape[dim], device=x.device).reshape(-1, *[1] * (x.ndim - 1 - dim % x.ndim))
        return values, _accumulate(torch.maximum, torch.where(x == values, place, 0), dim)

    return accumulate


def _search_sorted(
    sequence: Tensor,
    x: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Returns, as ``torch.searchsorted``, how many entries of a sequence are smaller than each of x."""
    sequence = (sequence if sorter is None else sequence.gather(-1, sorter)).unsqueeze(-2)
    smaller = sequence <= x.unsqueeze(-1) if right or side == "right" else sequence < x.unsqueeze(-1)
    return smaller.sum(-1).to(torch.int32 if out_int32 else torch.int64)


_DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.cummax.default: _with_indices(torch.maximum),
    torch.ops.aten.cummin.default: _with_indices(torch.minimum),
    torch.ops.aten.searchsorted.Tensor: _search_sorted,
}
"""Operators that ONNX lacks, by those that it has: of the phases of spectra, and of the timesteps of schedulers."""

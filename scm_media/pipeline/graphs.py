"""The networks of a student as graphs of tensors alone, which run without this package (``torch.export``)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.utils import _pytree

from scm_media.conditioning import NO_LABEL, Conditioning
from scm_media.nn.embedding import LabelEmbedding
from scm_media.pipeline.loaded_model import LoadedModel
from scm_media.trigflow import wrapped_attribute

OWN_INPUTS = ("x_t", "t")
TEXT_KINDS = ("tokens", "token_mask", "pooled")
"""The inputs that a text becomes, which ``Conditioning`` calls alike."""
LIMITED_BATCH = 32
"""The largest batch of a module that treats larger ones in another way, as layers of diffusers do 64 samples."""


class UnsupportedError(ValueError):
    """Says that a network cannot be brought into a format."""


@dataclass(frozen=True)
class GraphInput:
    """An input of the student's graph beside x_t and t.

    name: that of the input, key: that of the label ("" for other kinds). kind: "label", "guidance",
    "actions", "given", "mask" or one of ``TEXT_KINDS``. shape: of one sample. facts: what the manifest says beside.
    """

    name: str
    kind: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    facts: Mapping[str, Any]
    key: str = ""


class StudentGraph(nn.Module):
    """Computes the denoised x0 of a loaded model's student, whose labels it renames, from tensors by name."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        self.backbone = model.network("student")
        self.flow, self.layout = model.flow, model.layout
        self.inputs = _list_inputs(model, self.backbone)
        embeddings = [layer for layer in self.backbone.modules() if isinstance(layer, LabelEmbedding)]
        labels = [each.key for each in self.inputs if each.kind == "label"]
        # Names of layers become words of a program, which "class" and names with spaces are not.
        self.layer_names = {name: f"label_{number}" if embeddings else name for number, name in enumerate(labels)}
        for embedding in embeddings:
            embedding.rename(self.layer_names)

    def forward(self, x_t: Tensor, t: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns x0 ``(B, c, *s)`` for x_t ``(B, c, *s)``, t ``(B,)`` in radians and all inputs of ``self.inputs``."""
        by_kind = {each.kind: inputs[each.name] for each in self.inputs}
        labels = {self.layer_names[each.key]: inputs[each.name] for each in self.inputs if each.kind == "label"}
        own = {kind: by_kind[kind] for kind in ("guidance", *TEXT_KINDS) if kind in by_kind}
        cond = Conditioning(labels=labels, **own)
        given = [by_kind.get(kind) for kind in ("actions", "given", "mask")]
        cond = self.layout.assemble(cond, x_t.shape[2:], *given)
        return self.flow.denoise(x_t, self.backbone(x_t / self.flow.sigma_data, t, cond), t)


class DecoderGraph(nn.Module):
    """Computes samples ``(B, C, *S)`` in [-1, 1] from latents ``(B, c, *s)`` by an autoencoder."""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latents: Tensor) -> Tensor:
        """Returns the samples."""
        return self.autoencoder.decode(latents)


@dataclass(frozen=True)
class Graph:
    """A module with arguments whose first axis is the batch, and its captured program.

    batch: the largest batch that the program takes; None where it takes any.
    """

    module: nn.Module
    arguments: tuple[Any, ...]
    program: ExportedProgram
    batch: int | None

    @classmethod
    def capture(cls, module: nn.Module, arguments: tuple[Any, ...], name: str) -> Graph:
        """Returns the graph of a module; raises UnsupportedError, with the name, for one that cannot be captured."""
        module = module.eval().requires_grad_(False)
        with torch.no_grad():
            module(*arguments)  # what a module does once, in its first call, is no part of the graph
            program, batch = _capture(module, arguments, name)
        graphs = [each.graph for each in program.graph_module.modules() if isinstance(each, torch.fx.GraphModule)]
        for node in (node for graph in graphs for node in graph.nodes):
            node.meta.pop("stack_trace", None)  # has the paths of this machine
        return cls(module, arguments, program, batch)

    @cached_property
    def expected(self) -> Tensor:
        """Returns the module's own output for the arguments."""
        with torch.no_grad():
            return self.module(*self.arguments)

    @cached_property
    def rounding(self) -> float:
        """Returns how far the output moves where the first argument does by one part in a million.

        Decoders that look for peaks in spectra move by more than others.
        """
        first, *rest = self.arguments
        noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            moved = self.module(first * (1 + 1e-6 * noise), *rest)
        return float((moved - self.expected).abs().max() / self.expected.abs().max())


def _capture(module: nn.Module, arguments: tuple[Any, ...], name: str) -> tuple[ExportedProgram, int | None]:
    """Returns the program of a module, and the largest batch that it takes: None for any."""
    for largest in (None, LIMITED_BATCH):
        batch = Dim("batch", min=1, max=largest)
        dynamic = _pytree.tree_map(lambda _, batch=batch: {0: batch}, arguments)
        with suppress(Exception):  # whatever the module's own code raises of a size that is no number
            return export(module, arguments, dynamic_shapes=dynamic, strict=False), largest
    try:
        return export(module, _pytree.tree_map(lambda value: value[:1], arguments), strict=False), 1
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UnsupportedError(
            f"the {name} cannot be captured by torch.export ({type(error).__name__}: {reason}): its code must not "
            "depend on the values of tensors; rewrite that part by torch.where and the like"
        ) from error


def _list_inputs(model: LoadedModel, backbone: Any) -> list[GraphInput]:
    """Returns the inputs of a student in their order: labels, text, the guidance scale, actions, and what is given."""
    description = model.folder.description
    inputs, knows_none = [], wrapped_attribute(backbone, "null_label") is not False
    reserved = {*OWN_INPUTS, *TEXT_KINDS, "latents", "guidance", "actions", "given", "mask"}
    for name, classes in description.labels.items():
        if model.text is not None and not model.text.inputs.shows(name):
            continue
        facts: dict[str, Any] = {"classes": list(classes), "null": NO_LABEL if knows_none else None}
        if not classes:
            quantiles = description.label_quantiles.get(name)
            facts = {"range": [quantiles[0], quantiles[-1]] if quantiles else None, "null": "nan"}
        facts["label_dropout"] = description.student_label_dropout
        dtype = torch.int64 if classes else torch.float32
        inputs.append(GraphInput(f"{name}_label" if name in reserved else name, "label", dtype, (), facts, key=name))
    inputs += _list_text_inputs(model)
    if description.guidance_max is not None:
        facts = {"range": [1, description.guidance_max], "default": model.settings.guidance}
        inputs.append(GraphInput("guidance", "guidance", torch.float32, (), facts))
    if names := list(model.actions.names):
        per_frame = (len(names), description.sample_shape[1])
        inputs.append(GraphInput("actions", "actions", torch.float32, per_frame, {"names": names, "default": 0}))
    if description.mask:
        shape = tuple(description.latent_shape)
        inputs.append(GraphInput("given", "given", torch.float32, shape, {"default": 0}))
        inputs.append(GraphInput("mask", "mask", torch.float32, (1, *shape[1:]), {"default": 0}))
    return inputs


def _list_text_inputs(model: LoadedModel) -> list[GraphInput]:
    """Returns the inputs of a text; zeros everywhere are no text. A model without text has none."""
    if model.text is None:
        return []
    embeddings, length = model.text.bank.embeddings, model.text.num_tokens
    width = embeddings["tokens"].shape[-1]
    found = [
        GraphInput("tokens", "tokens", torch.float32, (length, width), {"default": 0}),
        GraphInput("token_mask", "token_mask", torch.bool, (length,), {"default": False}),
    ]
    if (pooled := embeddings.get("pooled")) is not None:
        found.append(GraphInput("pooled", "pooled", torch.float32, (pooled.shape[-1],), {"default": 0}))
    return found

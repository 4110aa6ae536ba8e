"""The protocols of backbones, autoencoders, modalities and feature extractors.

Shapes are written ``(B, C, *S)`` for samples (pixels, waveforms, frames) and ``(B, c, *s)`` for latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from scm_media.conditioning import Conditioning


class Backbone(Protocol):
    """The network F of the flow: unit-variance input and output, always one tensor back.

    A backbone may have an attribute ``accepts_dual``, which says whether it also maps pairs of a value and its tangent
    (``scm_media.nn.dual.DualTensor``) to a pair. ``value_and_tangent`` finds out where it has none.
    """

    def __call__(self, u: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """F(u, t) ``(B, c, *s)`` for u = x_t / sigma_data ``(B, c, *s)`` and t ``(B,)`` in radians."""
        ...


class Autoencoder(Protocol):
    """Samples to latents and back; frozen while a backbone trains.

    It may also offer ``decode_in_chunks(latent)``, an iterator of what ``decode`` gives, one stretch along the first
    axis of S after the other, so that the memory of decoding does not grow along it.
    """

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents ``(B, c, *s)`` of deviation sigma_data per channel, for samples ``(B, C, *S)``."""
        ...

    def decode(self, latent: Tensor) -> Tensor:
        """Samples ``(B, C, *S)`` in [-1, 1] for latents ``(B, c, *s)``."""
        ...

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """``(c, *s)`` of the latent of a sample of shape ``(C, *S)``."""
        ...

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """``(C, *S)`` of the sample that a latent of shape ``(c, *s)`` decodes to."""
        ...

    def latent_mask(self, mask: Tensor) -> Tensor:
        """``(B, 1, *s)``: one where a latent place stands for valid places of a mask ``(B, 1, *S)`` alone."""
        ...


@dataclass(frozen=True)
class SizeOption:
    """One measure of a sample that a user may set: its unit and default; the CLI's flags come from here.

    axis: the axis of samples ``(C, *S)`` that it measures, counted from the end (-1: the last); with it clips can be
    continued and filled along that axis. rate: places of the sample along the axis in one unit (22,050 a second).
    longest: what is drawn at once, in the same unit; longer clips are drawn in windows that overlap. None: no limit.
    """

    default: float
    unit: str
    help: str
    longest: float | None = None
    axis: int | None = None
    rate: float = 1.0

    def __post_init__(self) -> None:
        if self.axis is None and self.longest is not None:
            raise ValueError(f"an extent with longest={self.longest} needs the axis along which it is continued")
        if self.axis is not None and self.axis >= 0:
            raise ValueError(f"the axis of an extent is counted from the end (-1: the last), got {self.axis}")


@dataclass(frozen=True)
class Segment:
    """A stretch of a file that is one sample of its own, from ``start`` to ``stop`` seconds (None: the file's end)."""

    path: Path
    start: float
    stop: float | None = None

    def __str__(self) -> str:
        return f"{self.path} ({self.start:g} to {'its end' if self.stop is None else f'{self.stop:g} s'})"


@runtime_checkable
class Modality(Protocol):
    """How samples of one kind are read, brought to a recipe's shape, written and shown.

    A modality may also offer ``feature_networks`` (name to the configuration of an ``FeatureExtractor`` that was
    trained elsewhere, for ``evaluate --features``) and ``pipeline_tag`` (what the Hugging Face hub calls its models'
    task).

    Where files are large or carry more than a sample, it may also offer these, of a file that is a path or opened
    bytes with a ``name``; a ValueError may have a ``reason``, a few words that rejects are counted by:

    - ``read_transformed(file, generator) -> (sample, valid)``: what ``transform`` makes of the file, read no further
    than
      it needs, and its mask ``(1, *S)``, one where the sample is no padding, or None (of every file, or of none);
    - ``validate(file)``: raises ValueError for a file that cannot be used, without reading all of it;
    - ``measure(file) -> {name: number}``: what ``data.measures`` may make labels of.

    One whose three methods above take a ``Segment`` for a file says so by ``takes_segments = True``, so that manifests
    may cut long files; one whose samples may also be folders tells by ``is_sample_dir(folder)`` which are, and takes
    their paths.

    One whose samples may have rows of numbers along their first axis (the actions of each frame) offers
    ``check_actions()``, which raises ValueError, naming the keys, where what is read of a file does not begin at its
    start, or is turned round, so that rows would lie beside other places than they belong to.

    For edits it may offer ``read_whole(path)``, the file's sample as ``transform`` would have it (rate, channels, size)
    but as long as it is, untrimmed and no louder, along the axis that an extent measures; and
    ``blend(known, made, mask)``, how samples ``(B, C, *S)`` that are to be kept (mask ``(B, 1, *S)`` one) are joined
    to made ones: without it each place is the one or the other.
    """

    name: str
    suffixes: frozenset[str]
    size_options: Mapping[str, SizeOption]

    def shape(self, **sizes: float) -> tuple[int, ...]:
        """``(C, *S)`` of a sample with these extents, the defaults where one is not given."""
        ...

    def read(self, path: Path) -> Tensor:
        """The file's sample ``(C, *S)``, float32 in [-1, 1], as large as it is in the file."""
        ...

    def transform(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The sample brought to ``shape()``: cut, padded, flipped as the recipe says; random only through generator."""
        ...

    def write(self, path: Path, sample: Tensor, metadata: Mapping[str, Any]) -> str | None:
        """Writes one sample ``(C, *S)`` with the metadata inside the file; what had to be changed of it, in words."""
        ...

    def preview(self, samples: Tensor, captions: Sequence[str] = (), columns: int | None = None) -> Any:
        """One picture (PIL) of many samples ``(B, C, *S)``, row by row; columns: pictures a row (None: its choice)."""
        ...


class FeatureExtractor(Protocol):
    """A feature network: what Fréchet distances are measured in."""

    def features(self, sample: Tensor) -> Tensor:
        """Features ``(B, d)`` of samples ``(B, C, *S)`` in [-1, 1]."""
        ...

    def logits(self, sample: Tensor) -> Mapping[str, Tensor]:
        """Label name to class scores ``(B, num_classes)``: what agreement with the labels is measured by."""
        ...

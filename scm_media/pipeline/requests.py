"""Requests: what a user asks a pipeline for. Each field is documented here, with its unit and bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from scm_media.bounds import COUNT, Bounds
from scm_media.modality import Modality
from scm_media.pipeline.actions import Actions
from scm_media.pipeline.labels import Label
from scm_media.pipeline.randomness import check_samples

Source = str | Path | Tensor
"""A file, or a sample ``(C, *S)`` of the model's rate and size."""

LARGEST_SAMPLE = 2**30
"""Numbers in one sample, which is held in memory as a whole: 4 GiB."""


@dataclass(frozen=True, kw_only=True)
class SamplingRequest:
    """Samples to generate. Raises ValueError for a value that no model can use.

    The noise of sample k depends on (seed, k) alone. With another batch size matrix products round differently, and
    samples change with them: in float32 by up to about 1e-5 (pictures) or 1e-3 (sounds), in bf16 by up to about 0.05
    (pictures); in sounds bf16 also moves phases.
    """

    num: int = 1
    """Number of samples, at least 1."""
    label: Label | Sequence[Label] = None
    """A class, ``"name=value ..."``, a mapping, or a sequence with one of these for each sample.

    ``generate`` draws labels that are missing from (seed, k), as often as the training data has them. An edit gives
    the network no label where it was trained with label dropout, and draws the labels otherwise.
    """
    prompt: str | Sequence[str] | None = None
    """A text that the sample is to match, or several, which take turns by the number of the sample.

    "" is no text. None: texts of the training data are drawn, as labels are.
    """
    negative: str | None = None
    """A text that a guided teacher is steered away from in the place of no text; students take none."""
    steps: int | None = None
    """Steps of the student, or of the teacher's solver, from 1 to 10,000; None: the model's own number."""
    times: Sequence[float] | None = None
    """Times in radians, descending within (0, π/2], instead of steps."""
    guidance: float | None = None
    """Guidance scale, at least 0; 1 is none.

    None: the model's own scale for the teacher and for a student that takes the scale as an input, otherwise 1.
    """
    guidance_interval: Sequence[float] | None = None
    """Times (low, high) in radians, within [0, π/2], that guidance acts in; None: the model's own interval."""
    seed: int = 0
    """Seed of the noise, from 0 to 2^63 - 1."""
    first: int = 0
    """Index of the first sample, from 0 to 2^48 - num: samples ``first`` to ``first + num - 1`` are generated."""
    walk: tuple[int, float] | None = None
    """A second seed and a fraction from 0 to 1 of the way to its noise; None: the noise of ``seed`` alone.

    The noise is cos(θ) z + sin(θ) z' with θ = π/2 times the fraction, so that its variance stays 1. Labels that are
    drawn stay those of ``seed``.
    """
    batch_size: int = 64
    """Samples that are generated at once, at least 1."""
    teacher: bool = False
    """Samples the diffusion teacher instead of the student when true."""
    sampler: str | None = None
    """Name of the teacher's sampler, ``heun``, ``dpm_solver`` or one of a plugin; None: the model's own."""
    overlap: float | None = None
    """Part of a window that the next one is given, in the unit of the size option; None: a quarter of a window.

    It belongs to samples that are longer than one window.
    """
    actions: Actions = None
    """Numbers for each frame, for models that were trained with actions.

    A .jsonl or .csv file, ``"ahead*8,left*8"``, or numbers ``(n, k)`` or ``(num, n, k)`` for n frames; in an edit for
    the given frames too. None: those of a training sample with the same classes, drawn from (seed, k).
    """
    sizes: Mapping[str, float] = field(default_factory=dict)
    """Size options of the modality in their units, above 0: ``{"duration": 3}`` for three seconds."""

    def __post_init__(self) -> None:
        for name, bounds in (("num", COUNT), ("batch_size", Bounds(1, whole=True))):
            if (expected := bounds.complaint(getattr(self, name))) is not None:
                raise ValueError(f"{name} must be {expected}, got {getattr(self, name)}")
        check_samples(self.seed, self.first, self.num)
        if self.walk is not None:
            other, fraction = self.walk
            check_samples(other, self.first, self.num)
            if not 0 <= fraction <= 1:
                raise ValueError(f"the fraction of a walk must lie in 0 … 1, got {fraction}")
        _check_finite(self.sizes)

    @classmethod
    def from_arguments(cls, num: int, label: Label | Sequence[Label], arguments: Mapping[str, Any]) -> SamplingRequest:
        """Returns the request of keyword arguments; those that are no field are size options."""
        names = {each.name for each in fields(cls)}
        given = {name: value for name, value in arguments.items() if name in names}
        options = {name: value for name, value in arguments.items() if name not in names}
        return cls(num=num, label=label, **{**given, "sizes": {**given.get("sizes", {}), **options}})


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """Samples in which a part of a source is kept and the rest is made by the student."""

    task: str
    """One of ``edits.TASKS``: ``continue``, ``prepend``, ``interpolate``, ``animate`` or ``inpaint``."""
    source: Source
    """A file that the modality reads, or a sample ``(C, *S)``."""
    keep: float | None = None
    """Length of the kept part in the unit of the size option, above 0; None: a fraction that the task chooses."""
    region: Sequence[float] | None = None
    """Region that ``inpaint`` makes: (first, last) in the unit of the size option, or by index along every axis."""
    mask: Source | None = None
    """A file or a sample that is above 0 where ``inpaint`` makes the sample anew."""
    sampling: SamplingRequest = field(default_factory=SamplingRequest)
    """The number of samples and their sampling. Its ``sizes`` set their length (by default the model's own), except for
    ``inpaint``, which keeps the length of the source."""

    def __post_init__(self) -> None:
        if self.sampling.teacher:
            raise ValueError("an edit is made by the student; leave teacher (--teacher) out")

    @classmethod
    def from_arguments(
        cls, task: str, source: Source, num: int, label: Label | Sequence[Label], arguments: Mapping[str, Any]
    ) -> EditRequest:
        """Returns the request of keyword arguments; those that are no field of both requests are size options."""
        own = {name: value for name, value in arguments.items() if name in ("keep", "region", "mask")}
        rest = {name: value for name, value in arguments.items() if name not in own}
        return cls(task=task, source=source, **own, sampling=SamplingRequest.from_arguments(num, label, rest))


def check_sizes(modality: Modality, sizes: Mapping[str, float]) -> None:
    """Raises ValueError for sizes that the modality does not have, and for a sample that no memory holds."""
    _check_finite(sizes)
    shape = modality.shape(**sizes)
    if math.prod(shape) > LARGEST_SAMPLE:
        asked, size = ", ".join(f"{name} {value:g}" for name, value in sizes.items()), "×".join(map(str, shape))
        raise ValueError(f"{asked}: a sample of {size} has more than {LARGEST_SAMPLE} numbers (4 GiB); ask for less")


def _check_finite(sizes: Mapping[str, float]) -> None:
    for name, value in sizes.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value}")

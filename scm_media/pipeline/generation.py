"""A pipeline: a trained model that makes clips."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scm_media import weights
from scm_media.build import build
from scm_media.guidance import Guided
from scm_media.interfaces import Autoencoder, Backbone, Conditioning, Modality
from scm_media.pipeline.export import export
from scm_media.pipeline.folder import ModelFolder
from scm_media.pipeline.labels import Label, LabelSet
from scm_media.pipeline.randomness import clip_noise
from scm_media.samplers import (
    Counted,
    check_times,
    consistency_times,
    sample_consistency,
    sample_dpm_solver,
    sample_heun,
    teacher_times,
)
from scm_media.trigflow import TrigFlow

TEACHER_SAMPLERS = {"heun": sample_heun, "dpm_solver": sample_dpm_solver}
PRECISIONS = {"float32": None, "bf16": torch.bfloat16}
Run = Callable[..., Tensor]


@dataclass(frozen=True)
class Clips:
    """What a pipeline made: samples ``(B, C, *S)`` in [-1, 1] on the CPU, and how.

    labels: one mapping a clip, label name to class or number. seeds, indices: clip k's noise follows from both.
    evaluations: network calls a clip; a guided call without a guided network counts two.
    seconds_model, seconds_decode: spent on sampling and on decoding, for all clips together.
    """

    samples: Tensor
    labels: list[dict[str, Any]]
    seeds: list[int]
    indices: list[int]
    evaluations: int
    seconds_model: float
    seconds_decode: float

    def __len__(self) -> int:
        return len(self.samples)


class Pipeline:
    """A model that makes clips: ``pipeline(4, label="Bag", steps=2, seed=0)``.

    device: a torch device, or "auto" for the fastest there is. precision: "float32" or "bf16" (matrix products only).
    Networks are read when first used. Raises ValueError for a device or precision that there is not.
    """

    def __init__(self, folder: ModelFolder, device: str = "auto", precision: str = "float32") -> None:
        self.folder = folder
        description = folder.description
        self.name: str = description["name"]
        self.flow: TrigFlow = build(description["flow"])
        self.modality: Modality = build(description["modality"])
        self.settings: dict[str, Any] = dict(description["sampler"])
        self.labels = LabelSet.of(description)
        self._networks: dict[str, nn.Module] = {}
        self.to(device, precision)

    @classmethod
    def from_pretrained(cls, source: str | Path, device: str = "auto", precision: str = "float32") -> Pipeline:
        """The model of a bundled name, a run folder, an exported folder or ``hf://org/name``."""
        return cls(ModelFolder.open(source), device, precision)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None, teacher: bool = True) -> Path:
        """Writes a self-contained model folder, with a sheet of samples for its card, and gives it back.

        dtype: what weights are stored as (None: as is). teacher: whether the teacher goes along.
        """
        # Before the sheet, which reads networks: what nobody asked for is written as it lies in its file.
        states = {name: network.state_dict() for name, network in self._networks.items()}
        sheet = self.sheet() if self.folder.has("student") else None
        return export(self.folder, Path(folder), states, dtype, teacher, sheet)

    def sheet(self, num: int = 16, columns: int = 8, seed: int = 0) -> Any:
        """A picture (PIL) of the first clips of a seed, with their labels: the same for the same model."""
        clips = self(num, seed=seed, batch_size=num)
        captions = [" ".join(str(value) for value in label.values()) for label in clips.labels]
        return self.modality.preview(clips.samples, captions if any(captions) else (), columns)

    def to(self, device: str | None = None, precision: str | None = None) -> Pipeline:
        """The same pipeline, moved; what is None stays as it is."""
        if precision is not None:
            if precision not in PRECISIONS:
                raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
            self.precision = precision
        if device is not None:
            self.device = choose_device(device)
            for network in self._networks.values():
                network.to(self.device)
        return self

    def network(self, name: str) -> Any:
        """A network of the model by name (autoencoder, teacher, guide, student, embedder), ready for inference."""
        if name not in self._networks:
            component = self.folder.read(name)
            module = build(component.config)
            weights.load_into(module, component.state, self.folder.file(name))
            self._networks[name] = module.eval().requires_grad_(False).to(self.device)
        return self._networks[name]

    def __call__(
        self,
        num: int = 1,
        label: Label | Sequence[Label] = None,
        steps: int | None = None,
        times: Sequence[float] | None = None,
        guidance: float | None = None,
        seed: int = 0,
        batch_size: int = 64,
        teacher: bool = False,
        guidance_interval: Sequence[float] | None = None,
        **extents: float,
    ) -> Clips:
        """``num`` clips; the arguments are those of ``batches``."""
        parts = list(
            self.batches(num, label, steps, times, guidance, seed, batch_size, teacher, 0, guidance_interval, **extents)
        )
        return Clips(
            samples=torch.cat([part.samples for part in parts]),
            labels=[label for part in parts for label in part.labels],
            seeds=[seed for part in parts for seed in part.seeds],
            indices=[index for part in parts for index in part.indices],
            evaluations=parts[0].evaluations,
            seconds_model=sum(part.seconds_model for part in parts),
            seconds_decode=sum(part.seconds_decode for part in parts),
        )

    def batches(
        self,
        num: int,
        label: Label | Sequence[Label] = None,
        steps: int | None = None,
        times: Sequence[float] | None = None,
        guidance: float | None = None,
        seed: int = 0,
        batch_size: int = 64,
        teacher: bool = False,
        first: int = 0,
        guidance_interval: Sequence[float] | None = None,
        **extents: float,
    ) -> Iterator[Clips]:
        """Clips ``first`` to ``first + num - 1`` of a seed, batch by batch; clip k's noise depends on (seed, k) alone.

        label: a class, "name=value ...", a mapping, or a list with one of these a clip; what is not given is drawn
        from (seed, k) as often as the training data has it. steps: of the student, or of the teacher's solver; the
        model's own number when None. times: in radians, instead of steps. guidance: scale, 1 is none; when None, the
        model's own for its teacher and for a student that takes the scale as an input, else none.
        guidance_interval: times (low, high) in radians that guidance is kept to; the model's own when None.
        extents: what the modality lets one set, e.g. seconds. Raises ValueError for anything the model cannot do.
        """
        for name, count in (("num", num), ("batch_size", batch_size)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        wanted = [label] * num if label is None or isinstance(label, str | Mapping) else list(label)
        if len(wanted) != num:
            raise ValueError(f"got {len(wanted)} labels for {num} clips; give one, or one a clip")
        labels = [self.labels.resolve(one, seed, first + place) for place, one in enumerate(wanted)]
        run = self._sampler(teacher, steps, times)
        own_scale, scale = self.scales(teacher, guidance)
        interval = self._guidance_interval(guidance_interval, scale)
        backbone = self.network("teacher" if teacher else "student")
        shape = self.latent_shape(**extents)
        for start in range(0, num, batch_size):
            part = labels[start : start + batch_size]
            indices = [first + start + place for place in range(len(part))]
            counted, guide = Counted(backbone), self._guide(teacher, scale)
            guided = counted if scale == 1 else Guided(counted, scale, interval, guide)
            begun = time.perf_counter()
            latent = self._latents(run, guided, self.conditioning(part, own_scale), seed, indices, shape)
            sampled = time.perf_counter()
            samples = self.decode(latent)
            yield Clips(
                samples=samples,
                labels=part,
                seeds=[seed] * len(part),
                indices=indices,
                evaluations=counted.evaluations + (0 if guide is None else guide.evaluations),
                seconds_model=sampled - begun,
                seconds_decode=time.perf_counter() - sampled,
            )

    def latent_shape(self, **extents: float) -> tuple[int, ...]:
        """``(c, *s)`` of a clip with these extents, the model's own without."""
        if not extents:
            return tuple(self.folder.description["latent_shape"])
        return self.network("autoencoder").latent_shape(self.modality.shape(**extents))

    def conditioning(self, labels: Sequence[dict[str, Any]], guidance: float | None = None) -> Conditioning:
        """What the backbone is told of clips with these labels, on its device."""
        cond = self.labels.conditioning(labels)
        if guidance is not None:
            cond = replace(cond, guidance=torch.full((len(labels),), float(guidance)))
        return cond.to(self.device)

    def autocast(self) -> torch.autocast:
        """The context that networks run in at this pipeline's precision."""
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Tensor:
        """Samples ``(B, C, *S)`` on the CPU for latents ``(B, c, *s)``."""
        autoencoder: Autoencoder = self.network("autoencoder")
        return autoencoder.decode(latent).cpu()

    @torch.inference_mode()
    def _latents(
        self,
        run: Run,
        backbone: Backbone,
        cond: Conditioning,
        seed: int,
        indices: Sequence[int],
        shape: tuple[int, ...],
    ) -> Tensor:
        def noise(step: int) -> Tensor:
            return clip_noise(seed, indices, step, shape).to(self.device) * self.flow.sigma_data

        with self.autocast():
            latent = run(backbone, self.flow, noise, cond=cond)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return latent

    def _sampler(self, teacher: bool, steps: int | None, times: Sequence[float] | None) -> Run:
        settings = self.settings
        if teacher:
            solver = TEACHER_SAMPLERS[settings.get("teacher", "heun")]
            if times is None:
                num_steps = settings.get("teacher_steps", 32) if steps is None else steps
                times = teacher_times(num_steps, self.flow, sigma_max=settings.get("sigma_max", 80.0))
            return partial(solver, times=tuple(times))
        if times is None:
            num_steps = settings.get("steps", 2) if steps is None else steps
            times = (settings.get("times") or {}).get(str(num_steps)) or consistency_times(
                num_steps, self.flow, settings.get("sigma_max", 80.0), settings.get("second_time", 1.1)
            )
        check_times(times)
        return partial(sample_consistency, times=tuple(times))

    def scales(self, teacher: bool, guidance: float | None) -> tuple[float | None, float]:
        """The scale that a network takes as an input (None: it takes none), and the one it is guided by in two calls.

        guidance: as in ``batches``. Raises ValueError for a scale that the network cannot be guided by.
        """
        highest = self.folder.description.get("guidance_max")
        scale = guidance
        if scale is None:  # a student that takes no scale has its teacher's guidance in it already
            scale = 1.0 if not teacher and highest is None else self.settings.get("guidance", 1.0)
        if not teacher and highest is not None:
            if not 1 <= scale <= highest:
                raise ValueError(f"guidance must lie in [1, {highest}], what the student was trained for, got {scale}")
            return scale, 1.0
        if teacher and self.folder.has("guide"):
            return None, scale
        if scale != 1 and not self.labels.names:
            raise ValueError(f"the model was trained without labels, so guidance {scale} has nothing to steer by")
        name = "teacher" if teacher else "student"
        if scale != 1 and self.folder.description.get("label_dropout" if teacher else "student_label_dropout") == 0:
            by_input = "" if teacher else " or student.loss.guidance_max=2"
            raise ValueError(
                f"the {name} never saw a clip without its label (label_dropout 0), so guidance {scale} has nothing to "
                f"steer away from; train with {name}.loss.label_dropout=0.1{by_input}, or leave guidance out"
            )
        return None, scale

    def _guide(self, teacher: bool, scale: float) -> Counted | None:
        """What the teacher is steered away from instead of itself without labels, where the model has it."""
        if not teacher or scale == 1 or not self.folder.has("guide"):
            return None
        return Counted(self.network("guide"))

    def _guidance_interval(self, asked: Sequence[float] | None, scale: float) -> tuple[float, float] | None:
        """The interval that guidance by two calls is kept to: what is asked for, else the model's own."""
        if asked is not None and scale == 1:
            raise ValueError(
                f"guidance_interval {tuple(asked)} keeps nothing in bounds: there is no guidance by two calls here; "
                "give a guidance scale, or leave the interval out"
            )
        interval = self.settings.get("guidance_interval") if asked is None else asked
        if interval is None:
            return None
        if len(interval) != 2:
            raise ValueError(f"guidance_interval must be (low, high) in radians, got {tuple(interval)}")
        return float(interval[0]), float(interval[1])


def load(source: str | Path, device: str = "auto", precision: str = "float32") -> Pipeline:
    """The pipeline of a bundled name, a run folder, an exported folder or ``hf://org/name``.

    Raises ValueError when there is no such model, or a file of it is missing, cut short or foreign.
    """
    return Pipeline.from_pretrained(source, device, precision)


def choose_device(name: str) -> torch.device:
    """The device of a name, the fastest there is for "auto"; ValueError where it cannot be used."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}); choose auto or cpu") from error
    return torch.device(name)

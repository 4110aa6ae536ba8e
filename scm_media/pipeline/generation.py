"""A pipeline: a trained model that makes clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scm_media.build import build
from scm_media.conditioning import Conditioning, ConditioningLayout, FrameGrouping
from scm_media.guidance import Guided
from scm_media.modality import Modality
from scm_media.networks import restore
from scm_media.pipeline import sampling
from scm_media.pipeline.actions import Actions, ActionSet
from scm_media.pipeline.batch_sampler import BatchSampler, Samples
from scm_media.pipeline.decoding import decoded
from scm_media.pipeline.export import check_target, export
from scm_media.pipeline.folder import ModelFolder
from scm_media.pipeline.inputs import Source, canvas_of
from scm_media.pipeline.labels import Label, LabelSet
from scm_media.pipeline.requests import SampleActions, SampleLabels, actions_of, check_sizes
from scm_media.pipeline.windows import longer, windows_of
from scm_media.samplers import CallCounter
from scm_media.trigflow import TrigFlow

PRECISIONS = {"float32": None, "bf16": torch.bfloat16}


class Pipeline:
    """A model that makes clips: ``pipeline(4, label="Bag", steps=2, seed=0)``.

    device: a torch device, or "auto" for the fastest there is. precision: "float32" or "bf16" (matrix products only).
    Networks are read when first used. Raises ValueError for a device or precision that there is not.
    """

    def __init__(self, folder: ModelFolder, device: str = "auto", precision: str = "float32") -> None:
        self.folder = folder
        description = folder.description
        self.name: str = description["name"]
        self.flow: TrigFlow = build(description["flow"], "flow")
        self.modality: Modality = build(description["modality"], "modality")
        if tuple(self.modality.shape()) != tuple(description["sample_shape"]):
            raise ValueError(
                f"{folder.path}: its modality makes samples of shape {tuple(self.modality.shape())}, but sample_shape "
                f"is {tuple(description['sample_shape'])}; export the model again"
            )
        self.settings: dict[str, Any] = dict(description["sampler"])
        self.labels = LabelSet.of(description)
        self.actions = ActionSet.of(folder)
        self._networks: dict[str, nn.Module] = {}
        self.to(device, precision)

    @classmethod
    def from_pretrained(cls, source: str | Path, device: str = "auto", precision: str = "float32") -> Pipeline:
        """The model of a bundled name, a run folder, an exported folder or ``hf://org/name``."""
        return cls(ModelFolder.open(source), device, precision)

    def save_pretrained(
        self, folder: str | Path, dtype: torch.dtype | None = None, teacher: bool = True, overwrite: bool = False
    ) -> Path:
        """Writes a self-contained model folder, with a sheet of samples for its card, and returns it.

        dtype: what weights are stored as (None: as is). teacher: whether the teacher goes along. overwrite: whether an
        earlier export in the folder is replaced, as a whole; ValueError without. Other files in it stay.
        """
        target = Path(folder)
        check_target(self.folder, target, overwrite)
        # Before the sheet, which reads networks: what nobody asked for is written as it lies in its file.
        states = {name: network.state_dict() for name, network in self._networks.items()}
        sheet = self.sheet() if self.folder.has("student") else None
        return export(self.folder, target, states, dtype, teacher, sheet, overwrite)

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
        """A network of the model by name (autoencoder, teacher, guide, student, feature extractor), ready for
        inference."""
        if name not in self._networks:
            module = restore(self.folder.read(name), name, self.folder.file(name))
            self._networks[name] = module.eval().requires_grad_(False).to(self.device)
        return self._networks[name]

    def __call__(self, num: int = 1, label: Label | Sequence[Label] = None, **arguments: Any) -> Samples:
        """``num`` clips; the arguments are those of ``batches``."""
        return Samples.joined(list(self.batches(num, label, **arguments)))

    def edit(
        self, task: str, source: Source, num: int = 1, label: Label | Sequence[Label] = None, **wanted: Any
    ) -> Samples:
        """``num`` clips in which a part of the source is kept; the arguments are those of ``edit_batches``."""
        return Samples.joined(list(self.edit_batches(task, source, num, label, **wanted)))

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
        overlap: float | None = None,
        actions: Actions = None,
        **sizes: float,
    ) -> Iterator[Samples]:
        """Samples ``first`` to ``first + num - 1`` of a seed, batch by batch.

        Clip k's noise depends on (seed, k) alone, with seeds from 0 to 2^63 - 1. With another batch size matrix
        products round differently, and its samples change with them: in float32 by up to about 1e-5 (pictures) or 1e-3
        (sounds), in bf16 by up to about 0.05 (pictures); in sounds bf16 also moves phases.
        label: a class, "name=value ...", a mapping, or a list with one of these a clip; what is not given is drawn
        from (seed, k) as often as the training data has it. steps: of the student, or of the teacher's solver; the
        model's own number when None. times: in radians, instead of steps. guidance: scale, 1 is none; when None, the
        model's own for its teacher and for a student that takes the scale as an input, else none.
        guidance_interval: times (low, high) in radians that guidance is kept to; the model's own when None.
        actions: of a model that was trained with some, a row of numbers for each place along the first axis of the
        clip (each frame): a .jsonl or .csv, ``"ahead*8,left*8"``, or rows ``(n, k)``, one a clip ``(num, n, k)``; those
        of a training example of the clip's classes, drawn from (seed, k), when None.
        sizes: what the modality lets one set, e.g. seconds. A clip longer than what is drawn at once is drawn in
        windows, each of which knows ``overlap`` of the one before (in the extent's unit; None: a quarter of a window).
        Raises ValueError for anything the model cannot do.
        """
        check_sizes(self.modality, sizes)
        labels = self._labels(num, label, seed, first, True, sizes)
        canvas = longer(self.modality, overlap, sizes)
        if canvas is not None and teacher:
            raise ValueError("the teacher draws a clip at once; the student goes on in windows: leave the teacher out")
        shape = () if canvas is not None else self.latent_shape(**sizes)
        num_places = (self.modality.shape(**sizes) if canvas is None else canvas.sample.shape)[1]
        rows = actions_of(self.actions, actions, labels, num_places)
        for drawing in self._drawings(
            labels, rows, seed, first, batch_size, teacher, steps, times, guidance, guidance_interval
        ):
            if canvas is None:
                yield drawing.clips(drawing.at_once(shape))
            else:
                yield drawing.clips(drawing.complete(canvas, *windows_of(canvas, self.modality, overlap, sizes)))

    def edit_batches(
        self,
        task: str,
        source: Source,
        num: int = 1,
        label: Label | Sequence[Label] = None,
        keep: float | None = None,
        region: Sequence[float] | None = None,
        mask: Source | None = None,
        steps: int | None = None,
        times: Sequence[float] | None = None,
        guidance: float | None = None,
        seed: int = 0,
        batch_size: int = 64,
        first: int = 0,
        guidance_interval: Sequence[float] | None = None,
        overlap: float | None = None,
        actions: Actions = None,
        **sizes: float,
    ) -> Iterator[Samples]:
        """Samples in which a part of the source is kept and the rest is made, batch by batch (``edits.TASKS``).

        source: a file, or a sample ``(C, *S)`` of the model's rate and size. keep: how much of it, in the unit of the
        modality's extent. region: of what is made anew, (first, last) along that extent in its unit, or first and last
        place along every axis. mask: a file or a sample, above 0 where it is made anew. sizes: how long the clip is
        to be, the model's own length when not given, the input's for inpaint. The other arguments are those of
        ``batches``; actions are of the whole clip, what is kept included. A label that is not given is not told to a
        network that did without some in training, else drawn.
        Source: Song et al. 2023 (arXiv 2303.01469), algorithm 4. Raises ValueError for anything the model cannot do.
        """
        check_sizes(self.modality, sizes)
        canvas = canvas_of(self.modality, task, source, keep, region, mask, sizes)
        if guidance is not None and label is None and self.labels.names and not self._draws:
            raise ValueError(f"guidance {guidance} steers towards a label: give one")
        labels = self._labels(num, label, seed, first, self._draws, sizes)
        windows = windows_of(canvas, self.modality, overlap, sizes)
        rows = actions_of(self.actions, actions, labels, canvas.sample.shape[1])
        for drawing in self._drawings(
            labels, rows, seed, first, batch_size, False, steps, times, guidance, guidance_interval
        ):
            yield drawing.clips(drawing.complete(canvas, *windows))

    @property
    def edit_steps(self) -> int:
        """Steps of an edit when nothing else is asked for."""
        return len(self._edit_run(None, None).keywords["times"])

    def drawn_labels(self, label: Label) -> list[str]:
        """Labels that an edit draws for each clip, since they are not given and the network never did without."""
        given = self.labels.parse(label)
        return [name for name in self.labels.resolve(label, 0, 0) if name not in given] if self._draws else []

    @property
    def _draws(self) -> bool:
        """Whether a class that an edit is not given is drawn: where the student never did without one in training."""
        return not self.folder.description.get("student_label_dropout")

    @property
    def _tells(self) -> bool:
        """Whether the networks were trained to be told what is known of a clip."""
        return bool(self.folder.description.get("mask"))

    def _edit_run(self, steps: int | None, times: Sequence[float] | None) -> sampling.Run:
        return sampling.edit_sampler(self.settings, self.flow, steps, times, self._tells)

    def _labels(
        self,
        num: int,
        label: Label | Sequence[Label],
        seed: int,
        first: int,
        drawn: bool,
        sizes: Mapping[str, float],
    ) -> SampleLabels:
        """Returns the labels of each clip; drawn: whether a class that is not given is, else the network is told none.

        An extent that is a label of the model too (the rate of frames) is one, unless the label says otherwise.
        """
        labels = SampleLabels(self.labels, num, label, seed, first, drawn)
        labels.add(self.labels.parse({name: value for name, value in sizes.items() if name in self.labels.names}))
        return labels

    def _drawings(
        self,
        labels: SampleLabels,
        rows: SampleActions | None,
        seed: int,
        first: int,
        batch_size: int,
        teacher: bool,
        steps: int | None,
        times: Sequence[float] | None,
        guidance: float | None,
        interval: Sequence[float] | None,
    ) -> Iterator[BatchSampler]:
        """Samples with these labels and rows to be drawn, batch by batch; what was asked is checked before the
        first."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        sampler = sampling.teacher_sampler if teacher else sampling.student_sampler
        run = sampler(self.settings, self.flow, steps, times)
        own_scale, scale = self.scales(teacher, guidance)
        bounds = sampling.guidance_interval(self.settings, interval, scale)
        backbone = self.network("teacher" if teacher else "student")
        grouping = None
        if rows is not None:
            grouping = FrameGrouping.of(self.network("autoencoder"), self.folder.description["sample_shape"])
        num_mask_channels = self.folder.description["latent_shape"][0] + 1 if self._tells else 0
        layout = ConditioningLayout(self.flow.sigma_data, num_mask_channels, grouping)
        for start in range(0, len(labels), batch_size):
            part = labels[start : start + batch_size]
            counted = [CallCounter(backbone)]
            guide = None
            if teacher and scale != 1 and self.folder.has("guide"):  # else the network itself, without labels
                counted.append(guide := CallCounter(self.network("guide")))
            yield BatchSampler(
                flow=self.flow,
                modality=self.modality,
                autoencoder=self.network("autoencoder"),
                autocast=self.autocast,
                device=self.device,
                run=run,
                edit_run=run if teacher else self._edit_run(steps, times),
                backbone=counted[0] if scale == 1 else Guided(counted[0], scale, bounds, guide),
                counted=counted,
                cond=self.conditioning(part, own_scale),
                layout=layout,
                labels=part,
                seed=seed,
                indices=[first + start + place for place in range(len(part))],
                rows=None if rows is None else rows[start : start + batch_size].to(self.device),
            )

    def latent_shape(self, **sizes: float) -> tuple[int, ...]:
        """``(c, *s)`` of a clip with these extents, the model's own without."""
        made = tuple(self.network("autoencoder").latent_shape(self.modality.shape(**sizes)))
        told = tuple(self.folder.description["latent_shape"])
        if not sizes and made != told:
            raise ValueError(
                f"{self.folder.path}: its autoencoder makes latents of shape {made}, but latent_shape is {told}; "
                "export the model again"
            )
        return made

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

    def decode(self, latent: Tensor) -> Tensor:
        """Samples ``(B, C, *S)`` on the CPU for latents ``(B, c, *s)``."""
        return decoded(self.network("autoencoder"), latent)

    def scales(self, teacher: bool, guidance: float | None) -> tuple[float | None, float]:
        """The scale that a network takes as an input (None: it takes none), and the one it is guided by in two calls.

        guidance: as in ``batches``. Raises ValueError for a scale that the network cannot be guided by.
        """
        return sampling.scales(self.folder, self.settings, teacher, guidance)


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

"""BatchSampler a batch of clips: at once, or completed in windows that overlap where something of them is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scm_media.conditioning import Conditioning, ConditioningLayout
from scm_media.interfaces import Autoencoder, Backbone
from scm_media.modality import Modality
from scm_media.pipeline.blending import surroundings
from scm_media.pipeline.decoding import decoded
from scm_media.pipeline.edits import InpaintingInput
from scm_media.pipeline.randomness import sample_noise
from scm_media.pipeline.sampling import Run
from scm_media.samplers import CallCounter
from scm_media.trigflow import TrigFlow


@dataclass(frozen=True)
class Samples:
    """What a pipeline made: samples ``(B, C, *S)`` in [-1, 1] on the CPU, and how.

    labels: one mapping a clip, label name to class or number. seeds, indices: clip k's noise follows from both.
    evaluations: network calls a clip; a guided call without a guided network counts two.
    seconds_model, seconds_decode: spent on sampling and on the autoencoder, for all clips together.
    actions: ``(B, n, k)``, the row of numbers of each place along the first axis of S; None of a model without.
    """

    samples: Tensor
    labels: list[dict[str, Any]]
    seeds: list[int]
    indices: list[int]
    evaluations: int
    seconds_model: float
    seconds_decode: float
    actions: Tensor | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        """All clips of some batches that were drawn alike."""
        return cls(
            samples=torch.cat([part.samples for part in parts]),
            labels=[label for part in parts for label in part.labels],
            seeds=[seed for part in parts for seed in part.seeds],
            indices=[index for part in parts for index in part.indices],
            evaluations=parts[0].evaluations,
            seconds_model=sum(part.seconds_model for part in parts),
            seconds_decode=sum(part.seconds_decode for part in parts),
            actions=torch.cat(actions) if (actions := [p.actions for p in parts if p.actions is not None]) else None,
        )


@dataclass
class BatchSampler:
    """A batch of clips that is being drawn.

    run, edit_run: the samplers where nothing and where something of a clip is known. counted: the networks that the
    backbone calls. layout: the channels that the network takes beside the latent. rows: ``(B, k, n)``, the actions of
    each position along the first axis of the samples. The seconds add up.
    """

    flow: TrigFlow
    modality: Modality
    autoencoder: Autoencoder
    autocast: Callable[[], AbstractContextManager[Any]]
    device: torch.device
    run: Run
    edit_run: Run
    backbone: Backbone
    counted: Sequence[CallCounter]
    cond: Conditioning
    layout: ConditioningLayout
    labels: list[dict[str, Any]]
    seed: int
    indices: list[int]
    rows: Tensor | None = None
    seconds_model: float = 0.0
    seconds_decode: float = 0.0

    def clips(self, samples: Tensor) -> Samples:
        """The clips of this batch with all that is known of how they were made."""
        return Samples(
            samples=samples,
            labels=self.labels,
            seeds=[self.seed] * len(self.labels),
            indices=self.indices,
            evaluations=sum(network.evaluations for network in self.counted),
            seconds_model=self.seconds_model,
            seconds_decode=self.seconds_decode,
            actions=None if self.rows is None else self.rows.transpose(1, 2).cpu(),
        )

    def at_once(self, latent_shape: Sequence[int]) -> Tensor:
        """Samples ``(B, C, *S)`` of latents ``(c, *s)`` of which nothing is known."""
        return self._decode(self._sample(self.run, latent_shape, 0, self._conditioning(latent_shape, self.rows)))

    def complete(self, canvas: InpaintingInput, starts: Sequence[int], window: int | None) -> Tensor:
        """Samples ``(B, C, *S)``: the canvas with what is not kept made anew.

        starts, window: where the windows along the canvas's axis begin and how many places they have; each knows what
        the ones before it have made. No window: the canvas is one. What lies beyond the canvas is made and left out.
        """
        num, axis = len(self.indices), canvas.axis
        sample = canvas.sample.expand(num, *canvas.sample.shape).clone()
        mask = canvas.mask.clone()[None]
        for number, start in enumerate(starts):
            part, known, rows = sample, mask, self.rows
            if window is not None and axis is not None:
                part, known = (_window(each, axis, start, window) for each in (sample, mask))
                if rows is not None and axis == 2 - sample.ndim:  # the axis that the rows are along
                    rows = _window(rows, -1, start, window)
            if not bool((known <= 0).any()):
                continue  # a window before this one has made all of it
            made = self._window(part, known, axis, number, rows)
            blended = self.modality.blend(part, made, known.expand(num, *known.shape[1:]))
            if window is None or axis is None:
                return blended
            inside = min(window, sample.shape[axis] - start)
            sample.narrow(axis, start, inside).copy_(blended.narrow(axis, 0, inside))
            mask.narrow(axis, start, inside).fill_(1)
        return sample

    def _window(self, part: Tensor, known: Tensor, axis: int | None, number: int, rows: Tensor | None) -> Tensor:
        """Samples ``(B, C, *S)`` for known ones where the mask ``(1, 1, *S)`` is one."""
        shape = self.autoencoder.latent_shape(part.shape[1:])
        if not bool((known > 0).any()):
            latent = self._sample(self.run, shape, number, self._conditioning(shape, rows))
        else:
            given, mask = self._encode(surroundings(part, known, axis), known)
            cond = self._conditioning(shape, rows, given, mask)

            def constrain(x0: Tensor, step: int) -> Tensor:
                return torch.where(mask > 0, given.to(x0), x0)

            latent = self._sample(self.edit_run, shape, number, cond, start=given * mask, constrain=constrain)
        made = self._decode(latent)
        if any(got < wanted for got, wanted in zip(made.shape[2:], part.shape[2:], strict=True)):
            raise ValueError(
                f"the autoencoder gives {_size(made)} back for samples of {_size(part)}, which cannot be edited so; "
                "choose a length that it keeps"
            )
        for place, size in enumerate(part.shape[2:]):
            made = made.narrow(2 + place, 0, size)
        return made

    def _conditioning(self, shape: Sequence[int], *channels: Tensor | None) -> Conditioning:
        """Returns the conditioning of latents ``(c, *s)``; channels: actions, given latent and mask of ``assemble``."""
        return self.layout.assemble(self.cond, shape[1:], *channels)

    def _encode(self, sample: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Latents ``(B, c, *s)`` and their mask ``(1, 1, *s)``; ValueError where no place of them is known wholly."""
        begun = time.perf_counter()
        # One clip is all clips, unless windows before this one have made them different.
        alike = len(sample) > 1 and bool((sample == sample[:1]).all())
        with torch.inference_mode():
            latent = self.autoencoder.encode((sample[:1] if alike else sample).to(self.device))
            mask = (self.autoencoder.latent_mask(known.to(self.device)) >= 1).to(latent.dtype)
        if not bool(mask.any()):
            raise ValueError(
                "what is kept is less than one place of the model's latents stands for, so that the network would know "
                "nothing of it; keep more"
            )
        self.seconds_decode += time.perf_counter() - begun
        return latent.expand(len(sample), *latent.shape[1:]), mask

    @torch.inference_mode()
    def _sample(self, run: Run, shape: Sequence[int], window: int, cond: Conditioning, **constrained: Any) -> Tensor:
        begun = time.perf_counter()

        def noise(step: int) -> Tensor:
            return sample_noise(self.seed, self.indices, step, shape, window).to(self.device) * self.flow.sigma_data

        with self.autocast():
            latent = run(self.backbone, self.flow, noise, cond=cond, **constrained)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds_model += time.perf_counter() - begun
        return latent

    def _decode(self, latent: Tensor) -> Tensor:
        begun = time.perf_counter()
        sample = decoded(self.autoencoder, latent)
        self.seconds_decode += time.perf_counter() - begun
        return sample


def _window(tensor: Tensor, axis: int, start: int, size: int) -> Tensor:
    """A window along an axis; what lies beyond the tensor's end is zero."""
    inside = tensor.narrow(axis, start, min(size, tensor.shape[axis] - start))
    if inside.shape[axis] == size:
        return inside
    missing = list(inside.shape)
    missing[axis] = size - inside.shape[axis]
    return torch.cat([inside, inside.new_zeros(missing)], axis)


def _size(sample: Tensor) -> str:
    return "×".join(map(str, sample.shape[2:]))

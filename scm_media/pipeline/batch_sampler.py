"""Samples one batch: at once, or in windows that overlap when a part of the samples is given."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scm_media.conditioning import Conditioning
from scm_media.guidance import Guided
from scm_media.interfaces import Autoencoder
from scm_media.pipeline.blending import fill_missing
from scm_media.pipeline.edits import InpaintingInput, format_size
from scm_media.pipeline.loaded_model import LoadedModel
from scm_media.pipeline.randomness import sample_noise
from scm_media.pipeline.sampling import PartialSampler, SamplingMethod
from scm_media.pipeline.windows import Windows
from scm_media.samplers import CallCounter


@dataclass(frozen=True)
class Samples:
    """Samples ``(B, C, *S)`` in [-1, 1] on the CPU, and how a pipeline made them.

    labels: label to class or number, one mapping a sample. seeds, indices: the noise of sample k follows from both.
    evaluations: network calls for one sample; a guided call counts two unless the network takes the scale as an input.
    seconds_model, seconds_decode: time of sampling and of the autoencoder, for all samples together.
    actions: ``(B, n, k)``, the numbers of each frame; None for a model without actions.
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
    def join(cls, parts: Sequence[Samples]) -> Samples:
        """Returns all samples of some batches of one request."""
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


class BatchSampler:
    """A batch of samples with these labels; its clocks and counters add up.

    indices: the index k of each sample. actions: ``(B, k, n)`` for n frames; None for a model without actions.
    walk: a second seed, and the fraction of the way to its noise; None for the noise of one seed.
    """

    def __init__(
        self,
        model: LoadedModel,
        method: SamplingMethod,
        seed: int,
        indices: Sequence[int],
        labels: list[dict[str, Any]],
        actions: Tensor | None,
        walk: tuple[int, float] | None = None,
    ) -> None:
        self.model, self.method, self.seed, self.indices, self.walk = model, method, seed, list(indices), walk
        self.labels = labels if model.text is None else [model.text.whole(each) for each in labels]
        self.actions = None if actions is None else actions.to(model.device)
        self.autoencoder: Autoencoder = model.network("autoencoder")
        self.cond = model.conditioning(self.labels, method.guidance.as_input)
        self.seconds_model = self.seconds_decode = 0.0
        self.backbone: CallCounter | Guided = CallCounter(model.backbone("teacher" if method.teacher else "student"))
        self.counters = [self.backbone]
        scale, interval = method.guidance.scale, method.guidance.interval
        if scale != 1:
            guide = None
            if method.teacher and model.folder.has("guide"):  # else the network itself, without labels
                self.counters.append(guide := CallCounter(model.backbone("guide")))
            away = None if method.negative is None else model.replace_text(method.negative)
            self.backbone = Guided(self.backbone, scale, interval, guide, away)

    def sample(self, latent_shape: Sequence[int]) -> Samples:
        """Returns the samples of latents ``(c, *s)``, made at once from noise alone."""
        cond = self._condition(latent_shape, self.actions)
        return self._report(self._decode(self._sample_latent(self.method.sampler, latent_shape, 0, cond)))

    def complete(self, given: InpaintingInput, windows: Windows | None) -> Samples:
        """Returns the samples of an input, completed: in windows, each with what the ones before it made, or at once.

        A window may reach beyond the end of the input; that part is made and left out.
        """
        sample = given.sample.expand(len(self.indices), *given.sample.shape).clone()
        mask = given.mask.clone()[None]
        if windows is None:
            generated = self._complete_window(sample, mask, given.axis, 0, self.actions)
            return self._report(self._blend(sample, generated, mask))
        axis, length = windows.axis, windows.length
        for number, start in enumerate(windows.starts):
            part, part_mask = (_window(each, axis, start, length) for each in (sample, mask))
            if bool((part_mask > 0).all()):
                continue  # a window before this one has made all of it
            actions = self.actions
            if actions is not None and axis == 2 - sample.ndim:  # the axis of frames
                actions = _window(actions, -1, start, length)
            generated = self._complete_window(part, part_mask, axis, number, actions)
            inside = min(length, sample.shape[axis] - start)
            blended = self._blend(part, generated, part_mask)
            sample.narrow(axis, start, inside).copy_(blended.narrow(axis, 0, inside))
            mask.narrow(axis, start, inside).fill_(1)
        return self._report(sample)

    def _report(self, samples: Tensor) -> Samples:
        return Samples(
            samples=samples,
            labels=self.labels,
            seeds=[self.seed] * len(self.labels),
            indices=self.indices,
            evaluations=sum(counter.evaluations for counter in self.counters),
            seconds_model=self.seconds_model,
            seconds_decode=self.seconds_decode,
            actions=None if self.actions is None else self.actions.transpose(1, 2).cpu(),
        )

    def _blend(self, given: Tensor, generated: Tensor, mask: Tensor) -> Tensor:
        return self.model.modality.blend(given, generated, mask.expand(len(given), *mask.shape[1:]))

    def _complete_window(
        self, sample: Tensor, mask: Tensor, axis: int | None, window: int, actions: Tensor | None
    ) -> Tensor:
        """Returns generated samples ``(B, C, *S)`` that fit the given ones where the mask ``(1, 1, *S)`` is one."""
        shape = self.autoencoder.latent_shape(sample.shape[1:])
        if not bool((mask > 0).any()):
            cond = self._condition(shape, actions)
            latent = self._sample_latent(self.method.sampler, shape, window, cond)
        else:
            given, latent_mask = self._encode(fill_missing(sample, mask, axis), mask)
            cond = self._condition(shape, actions, given, latent_mask)

            def constrain(x0: Tensor, step: int) -> Tensor:
                return torch.where(latent_mask > 0, given.to(x0), x0)

            start = given * latent_mask
            sampler = self.method.edit_sampler
            latent = self._sample_latent(sampler, shape, window, cond, start=start, constrain=constrain)
        generated = self._decode(latent)
        if any(got < wanted for got, wanted in zip(generated.shape[2:], sample.shape[2:], strict=True)):
            raise ValueError(
                f"the autoencoder gives {format_size(generated[0])} back for samples of {format_size(sample[0])}, so "
                "these cannot be edited; choose a length that it keeps"
            )
        for axis, size in enumerate(sample.shape[2:], start=2):
            generated = generated.narrow(axis, 0, size)
        return generated

    def _condition(self, shape: Sequence[int], *channels: Tensor | None) -> Conditioning:
        """Returns the conditioning of latents ``(c, *s)``; channels: actions, given latent and mask of ``assemble``."""
        return self.model.layout.assemble(self.cond, shape[1:], *channels)

    def _encode(self, sample: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns latents ``(B, c, *s)`` and their mask ``(1, 1, *s)``; raises ValueError for an empty latent mask."""
        begun = time.perf_counter()
        # All samples are alike, unless windows before this one have made them different.
        alike = len(sample) > 1 and bool((sample == sample[:1]).all())
        with torch.inference_mode():
            latent = self.autoencoder.encode((sample[:1] if alike else sample).to(self.model.device))
            latent_mask = (self.autoencoder.latent_mask(mask.to(self.model.device)) >= 1).to(latent.dtype)
        if not bool(latent_mask.any()):
            raise ValueError(
                "what is kept is less than one position of the model's latents, so that the network would be given "
                "nothing of it; keep more"
            )
        self.seconds_decode += time.perf_counter() - begun
        return latent.expand(len(sample), *latent.shape[1:]), latent_mask

    @torch.inference_mode()
    def _sample_latent(
        self, sampler: PartialSampler, shape: Sequence[int], window: int, cond: Conditioning, **constraint: Any
    ) -> Tensor:
        begun, device, flow = time.perf_counter(), self.model.device, self.model.flow

        def noise(step: int) -> Tensor:
            return self._noise(step, shape, window).to(device) * flow.sigma_data

        with self.model.autocast():
            latent = sampler(self.backbone, flow, noise, cond=cond, **constraint)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.seconds_model += time.perf_counter() - begun
        return latent

    def _noise(self, step: int, shape: Sequence[int], window: int) -> Tensor:
        """Returns standard normal noise ``(B, *shape)`` on the CPU, on its way between two seeds for a walk."""
        noise = sample_noise(self.seed, self.indices, step, shape, window)
        if self.walk is None:
            return noise
        other, angle = self.walk[0], self.walk[1] * math.pi / 2
        return math.cos(angle) * noise + math.sin(angle) * sample_noise(other, self.indices, step, shape, window)

    def _decode(self, latent: Tensor) -> Tensor:
        begun = time.perf_counter()
        sample = self.model.decode(latent)
        self.seconds_decode += time.perf_counter() - begun
        return sample


def _window(tensor: Tensor, axis: int, start: int, length: int) -> Tensor:
    """Returns a window along an axis; it is zero beyond the tensor's end."""
    inside = tensor.narrow(axis, start, min(length, tensor.shape[axis] - start))
    if inside.shape[axis] == length:
        return inside
    missing = list(inside.shape)
    missing[axis] = length - inside.shape[axis]
    return torch.cat([inside, inside.new_zeros(missing)], axis)

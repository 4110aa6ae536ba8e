"""The shapes that an autoencoder codes: samples to latents and back, with errors that name the modality's keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scm_media.nn.kl_autoencoder import all_within

AXES = {1: "length", 2: "height, width", 3: "frames, height, width"}


@dataclass(frozen=True)
class LatentGrid:
    """Describes the shapes that one autoencoder codes.

    name: its class, for errors. strides: the positions of a sample that one position of a latent stands for, along each
    axis; one axis is time (sounds), two are a picture's sides, three are a clip's frames and sides. The first frame of
    a clip is coded alone. group: the latent frames after the first come in multiples of it.
    """

    name: str
    channels: int
    latent_channels: int
    strides: tuple[int, ...]
    group: int = 1

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(c, *s)`` for samples ``(C, *S)``; ValueError for sizes that cannot be encoded."""
        sizes = tuple(sample_shape[1:])
        if len(sizes) != len(self.strides) or any(
            size < max(1, first) or (size - first) % step
            for size, first, step in zip(sizes, self._alone, self._multiples, strict=True)
        ):
            raise ValueError(self._refusal(sizes))
        grid = zip(sizes, self._alone, self.strides, strict=True)
        return (self.latent_channels, *(first + (size - first) // step for size, first, step in grid))

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(C, *S)`` for latents ``(c, *s)``; ValueError for a number of frames that cannot be decoded."""
        sizes = tuple(latent_shape[1:])
        if self.group > 1 and (sizes[0] - 1) % self.group:
            raise ValueError(
                f"latents of {sizes[0]} frames cannot be decoded: {self.name} needs 1 + {self.group} × k of them; set "
                f"modality.num_frames to 1 + {self._multiples[0]} × k"
            )
        grid = zip(sizes, self._alone, self.strides, strict=True)
        return (self.channels, *(first + (size - first) * step for size, first, step in grid))

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Returns ``(B, 1, *s)``, one where a mask ``(B, 1, *S)`` is one in all that a latent position stands for."""
        self.latent_shape(mask.shape[1:])
        if not any(self._alone):
            return all_within(mask, self.strides)
        first, rest = mask[:, :, :1], mask[:, :, 1:]
        return torch.cat([all_within(first, (1, *self.strides[1:])), all_within(rest, self.strides)], 2)

    def check_sample(self, sample: Tensor) -> None:
        """Raises ValueError for a batch of samples that cannot be encoded."""
        if sample.ndim != 2 + len(self.strides) or sample.shape[1] != self.channels:
            raise ValueError(
                f"{self.name} takes samples (batch, {self.channels}, {AXES[len(self.strides)]}), got a tensor of shape "
                f"{tuple(sample.shape)}: check the modality and modality.channels"
            )
        self.latent_shape(sample.shape[1:])

    def check_latent(self, latent: Tensor) -> None:
        """Raises ValueError for a batch of latents that cannot be decoded."""
        if latent.ndim != 2 + len(self.strides) or latent.shape[1] != self.latent_channels:
            raise ValueError(
                f"{self.name} takes latents (batch, {self.latent_channels}, {AXES[len(self.strides)]}), got a tensor "
                f"of shape {tuple(latent.shape)}: they are of another autoencoder"
            )
        self.sample_shape(latent.shape[1:])

    @property
    def _alone(self) -> tuple[int, ...]:
        """Returns the number of first positions that are coded alone, along each axis."""
        return (int(len(self.strides) == 3), *[0] * (len(self.strides) - 1))

    @property
    def _multiples(self) -> tuple[int, ...]:
        return (self.strides[0] * self.group, *self.strides[1:])

    def _refusal(self, sizes: tuple[int, ...]) -> str:
        step, side, shape = self._multiples[0], self.strides[-1], "×".join(map(str, sizes))
        if len(sizes) != len(self.strides):
            return (
                f"samples of size {shape} cannot be encoded: {self.name} needs {AXES[len(self.strides)]}; check the "
                "modality against autoencoder.network"
            )
        if len(sizes) == 1:
            return (
                f"waveforms of {shape} samples cannot be encoded: {self.name} needs a multiple of its hop, {step}; set "
                f"modality.multiple={step}"
            )
        if len(sizes) == 2:
            return (
                f"pictures of {shape} cannot be encoded: {self.name} needs sides in multiples of {side}; set "
                "modality.size (or modality.buckets)"
            )
        below = 1 + max(0, sizes[0] - 1) // step * step
        return (
            f"clips of {sizes[0]} frames of {'×'.join(map(str, sizes[1:]))} cannot be encoded: {self.name} needs 1 + "
            f"{step} × k frames ({below}, {below + step}) and sides in multiples of {side}; set modality.num_frames "
            "and modality.size"
        )

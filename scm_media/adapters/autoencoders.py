"""Autoencoders of diffusers with their own shift and scale, so that latents are those that a teacher was trained on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scm_media.adapters.autoencoder_classes import AUTOENCODERS, AutoencoderClass
from scm_media.parts import part

USUAL_STD = (0.5, 2.0)
"""The standard deviations of latents that ``DiffusersAutoencoder.fit`` says nothing about."""


@part("autoencoder")
class DiffusersAutoencoder(nn.Module):
    """Codes samples by an autoencoder of diffusers, frozen, with latents as its pipelines hand them to their network.

    network: the class in diffusers, one of ``AUTOENCODERS``. config: the content of its ``config.json``. tiled: whether
    samples larger than a tile are coded in overlapping tiles, which bounds memory and changes the result a little.
    Nothing is measured: the latents' shift and scale are those of config, or of the weights. The state has the
    network's own tensors, as ``network.…``. Raises ValueError for a class that is not known or not installed, for a
    config that it does not take, and for tiles where it has none.
    """

    def __init__(self, network: str, config: Mapping[str, Any], tiled: bool = False) -> None:
        super().__init__()
        if network not in AUTOENCODERS:
            raise ValueError(
                f"autoencoder.network.network must be one of {', '.join(sorted(AUTOENCODERS))}, got {network!r}"
            )
        self.described: AutoencoderClass = AUTOENCODERS[network]
        made = _make(network, config)
        if tiled:
            try:
                self.described.tile(made)
            except (AttributeError, NotImplementedError) as error:
                raise ValueError(
                    f"autoencoder.network.tiled: {network} of the installed diffusers has no tiles for this config "
                    f"({error}); set it to false"
                ) from error
        self.network = made.eval().requires_grad_(False)
        self.grid = self.described.grid(made)
        for statistic in self.described.scaling(made):
            if isinstance(statistic, Tensor) and statistic.shape != (self.grid.latent_channels,):
                raise ValueError(
                    f"autoencoder.network.config: latents_mean and latents_std must have {self.grid.latent_channels} "
                    f"numbers, one for each latent channel, got {statistic.numel()}"
                )

    def train(self, mode: bool = True) -> DiffusersAutoencoder:
        """Returns the autoencoder unchanged, because it is frozen."""
        return self

    def fit(self, samples: Iterable[Tensor]) -> None:
        """Changes nothing; says on stderr when latents of batches ``(B, C, *S)`` are far from unit variance."""
        sums = torch.zeros(3, dtype=torch.float64)
        device = next(self.network.parameters()).device
        for sample in samples:
            with torch.no_grad():
                latent = self.encode(sample.to(device)).cpu().double()
            sums += torch.stack([torch.ones_like(latent).sum(), latent.sum(), latent.square().sum()])
        if sums[0] == 0:
            return
        mean, square = sums[1:] / sums[0]
        std = (square - mean.square()).clamp(min=0).sqrt().item()
        if not USUAL_STD[0] <= std <= USUAL_STD[1]:
            print(
                f"{self.described.name}: its latents have a standard deviation of {std:.3g}, expected about 1: check "
                "that samples fill [-1, 1], and that this is the autoencoder that the teacher was trained with",
                file=sys.stderr,
            )

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns latents ``(B, c, *s)`` in float32: the posterior's mean, or a sample of it with a generator."""
        self.grid.check_sample(sample)
        network: Any = self.network
        found = network.encode(sample.to(network.dtype), return_dict=False)[0]
        code = (found if isinstance(found, Tensor) else found.mean).float()
        if generator is not None and not isinstance(found, Tensor):
            noise = torch.randn(code.shape, generator=generator, device=generator.device, dtype=code.dtype)
            code = code + found.std.float() * noise.to(code.device)
        shift, scale = self._scaling(code)
        return (code - shift) * scale

    def decode(self, latent: Tensor) -> Tensor:
        """Returns samples ``(B, C, *S)`` in float32, clipped to [-1, 1]."""
        self.grid.check_latent(latent)
        network: Any = self.network
        shift, scale = self._scaling(latent)
        code = latent.float() / scale + shift
        return self.described.decode(network, code.to(network.dtype)).float().clamp(-1, 1)

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(c, *s)`` for samples ``(C, *S)``; raises ValueError for sizes that cannot be encoded."""
        return self.grid.latent_shape(sample_shape)

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(C, *S)`` for latents ``(c, *s)``; raises ValueError for sizes that cannot be decoded."""
        return self.grid.sample_shape(latent_shape)

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Returns ``(B, 1, *s)``, one where a mask ``(B, 1, *S)`` is one in all that a latent position stands for."""
        return self.grid.latent_mask(mask)

    def _scaling(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Returns shift and scale in float32, in a shape that broadcasts against ``(B, c, *s)``."""
        shift, scale = (
            torch.as_tensor(each, dtype=torch.float32, device=like.device).reshape(-1, *[1] * (like.ndim - 2))
            for each in self.described.scaling(self.network)
        )
        return shift, scale


@part("autoencoder")
class UnchangedSamples(nn.Module):
    """Takes samples as latents, for networks that work on samples in [-1, 1] themselves; it has no tensors."""

    def fit(self, samples: Iterable[Tensor]) -> None:
        """Does nothing, and reads no samples."""

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns the sample."""
        return sample

    def decode(self, latent: Tensor) -> Tensor:
        """Returns the latent, clipped to [-1, 1]."""
        return latent.float().clamp(-1, 1)

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the same shape."""
        return tuple(sample_shape)

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the same shape."""
        return tuple(latent_shape)

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Returns the mask."""
        return mask


def _make(name: str, config: Mapping[str, Any]) -> Any:
    """Returns a network of diffusers with random weights; ValueError as ``DiffusersAutoencoder``."""
    try:
        import diffusers

        kind = getattr(diffusers, name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"DiffusersAutoencoder needs {name} of the package diffusers ({error}): "
            "pip install -U 'scm-media[diffusers]'"
        ) from error
    public = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        return kind.from_config(public)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ValueError(f"autoencoder.network.config: {name} of diffusers does not take it ({error})") from error

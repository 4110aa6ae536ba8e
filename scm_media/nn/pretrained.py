"""Pretrained autoencoders: frozen networks whose weights a user has as a safetensors file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from scm_media.nn.channel_scale import ChannelScale


class PretrainedAutoencoder(nn.Module):
    """A frozen network that the recipe's keys describe; ``fit`` reads its weights from a file.

    After ``fit`` the weights are saved with the measured scale, and the file is not needed again.
    """

    def __init__(self, network: nn.Module, weights: str | None, scale: ChannelScale) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.weights, self.scale = weights, scale

    def train(self, mode: bool = True) -> PretrainedAutoencoder:
        """Returns the autoencoder unchanged, because it is frozen."""
        return self

    def fit(self, samples: Iterable[Tensor]) -> None:
        """Reads the weights, then measures the scale of latents over batches ``(B, channels, *S)``.

        Raises ValueError for weights that are missing, not safetensors or of another network.
        """
        self._load()
        device = self.scale.mean.device
        with torch.no_grad():
            self.scale.fit(self._code(sample.to(device))[0] for sample in samples)

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns normalised latents: the posterior's mean, or a sample of it with a generator."""
        code, std = self._code(sample)
        if generator is not None and std is not None:
            noise = torch.randn(code.shape, generator=generator, device=generator.device, dtype=code.dtype)
            code = code + std * noise.to(code.device)
        return self.scale.normalize(code)

    def decode(self, latent: Tensor) -> Tensor:
        """Returns samples ``(B, channels, *S)``, clipped to [-1, 1]."""
        return self._synthesize(self.scale.denormalize(latent.float())).clamp(-1, 1)

    def _load(self) -> None:
        read_pretrained(self.network, self.weights)

    def _code(self, sample: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns mean and standard deviation of the codes of samples; None for codes without noise."""
        raise NotImplementedError

    def _synthesize(self, code: Tensor) -> Tensor:
        """Returns the samples that codes decode to."""
        raise NotImplementedError


def read_pretrained(network: nn.Module, weights: str | None) -> None:
    """Loads a safetensors file into a network; raises ValueError that says what is wrong with the file."""
    key = "autoencoder.network.weights"
    if weights is None:
        raise ValueError(f"{key} must name the safetensors file that the network's weights are in")
    file = Path(weights).expanduser()
    if not file.is_file():
        raise ValueError(f"{key}={weights} is not a file: check the path")
    if file.suffix != ".safetensors":
        raise ValueError(
            f"{key}={weights} must be a safetensors file: pickles are not read. Convert one that you trust: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'weights.safetensors')"
        )
    try:
        found = load_file(file)
        missing, unexpected = network.load_state_dict(found, strict=False)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{key}={weights} does not fit the network that the other keys describe: {error}") from error
    if missing or unexpected:
        raise ValueError(
            f"{key}={weights} does not fit the network that the other keys describe: {len(missing)} tensors are "
            f"missing ({', '.join(missing[:2])}), {len(unexpected)} are unexpected ({', '.join(unexpected[:2])})"
        )

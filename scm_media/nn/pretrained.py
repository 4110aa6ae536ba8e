"""Autoencoders that were trained elsewhere: frozen networks whose weights a user has as a safetensors file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from scm_media.nn.channel_scale import ChannelScale


class PretrainedAutoencoder(nn.Module):
    """A frozen network that is described by keys, and whose weights are read when it is fitted.

    Once fitted, they are kept with what was measured: the file is not asked for again.
    """

    def __init__(self, network: nn.Module, weights: str | None, scale: ChannelScale) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.weights, self.scale = weights, scale

    def train(self, mode: bool = True) -> PretrainedAutoencoder:
        """Itself: it is frozen."""
        return self

    def fit(self, samples: Iterable[Tensor]) -> None:
        """Reads the weights, then measures what normalises latents over batches ``(B, channels, *S)``.

        Raises ValueError for weights that are not there, no safetensors or of another network.
        """
        self._load()
        device = self.scale.mean.device
        with torch.no_grad():
            self.scale.fit(self._code(sample.to(device))[0] for sample in samples)

    def encode(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents of deviation sigma_data: the mean of the posterior, or a draw from it by the generator."""
        code, deviation = self._code(sample)
        if generator is not None and deviation is not None:
            noise = torch.randn(code.shape, generator=generator, device=generator.device, dtype=code.dtype)
            code = code + deviation * noise.to(code.device)
        return self.scale.normalize(code)

    def decode(self, latent: Tensor) -> Tensor:
        """Samples ``(B, channels, *S)``, clipped to [-1, 1]."""
        return self._synthesize(self.scale.denormalize(latent.float())).clamp(-1, 1)

    def _load(self) -> None:
        read_pretrained(self.network, self.weights)

    def _code(self, sample: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and deviation (None: there is none) of what the network makes of samples."""
        raise NotImplementedError

    def _synthesize(self, code: Tensor) -> Tensor:
        """Samples of codes."""
        raise NotImplementedError


def read_pretrained(network: nn.Module, weights: str | None) -> None:
    """Gives a network the weights of a safetensors file; ValueError that says what is wrong with it."""
    key = "autoencoder.network.weights"
    if weights is None:
        raise ValueError(f"{key} must name the safetensors file that the network's weights are in")
    file = Path(weights).expanduser()
    if not file.is_file():
        raise ValueError(f"{key}={weights} is no file")
    if file.suffix != ".safetensors":
        raise ValueError(
            f"{key}={weights} must be a safetensors file: pickles are not read. Of one that you trust make it once: "
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
            f"missing ({', '.join(missing[:2])}), {len(unexpected)} are of none ({', '.join(unexpected[:2])})"
        )

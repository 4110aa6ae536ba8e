"""Wraps pretrained autoencoders of other packages: vocos, and Stable Audio's Oobleck."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modalities.audio.fourier import check_waveform
from scm_media.nn.channel_scale import ChannelScale
from scm_media.nn.pretrained import PretrainedAutoencoder
from scm_media.parts import part


@part("autoencoder")
class VocosMel(PretrainedAutoencoder):
    """Maps waveforms to log-mel spectrograms, and back by a network of the package ``vocos``.

    Latents are ``(B, channels, num_mels, T / hop)``. weights: a safetensors file of a ``vocos.Vocos`` over mel
    spectrograms. The other keys describe it; the defaults are those of the public 24 kHz model. hidden: width of a
    block's inner layer. padding: "center" or "same"; "center" makes one frame more than there are hops, which is left
    out, and the last one is repeated to decode. Channels are vocoded one by one. Raises ValueError if the package is
    not installed.
    """

    def __init__(
        self,
        weights: str | None = None,
        sample_rate: int = 24000,
        channels: int = 1,
        window: int = 1024,
        hop: int = 256,
        num_mels: int = 100,
        width: int = 512,
        hidden: int = 1536,
        depth: int = 8,
        padding: str = "center",
        sigma_data: float = 0.5,
    ) -> None:
        try:
            from vocos import Vocos
            from vocos.feature_extractors import MelSpectrogramFeatures
            from vocos.heads import ISTFTHead
            from vocos.models import VocosBackbone
        except ImportError as error:
            raise ValueError(f"VocosMel needs the package vocos ({error}): pip install vocos") from error
        if padding not in ("center", "same"):
            raise ValueError(f"autoencoder.network.padding must be center or same, got {padding!r}")
        network = Vocos(
            MelSpectrogramFeatures(sample_rate, window, hop, num_mels, padding),
            VocosBackbone(num_mels, width, hidden, depth),
            ISTFTHead(width, window, hop, padding),
        )
        channel_name, remedy = "the log-mel spectrogram of waveform channel {}", "check the data, or modality.channels"
        super().__init__(network, weights, ChannelScale(channels, sigma_data, channel_name, remedy))
        self.channels, self.num_mels, self.hop, self.padding = channels, num_mels, hop, padding

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(C, num_mels, T / hop)``; raises ValueError where the hop does not divide T."""
        return (self.channels, self.num_mels, _num_frames(sample_shape[-1], self.hop))

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(C, T)``, a hop for each frame."""
        return (self.channels, latent_shape[-1] * self.hop)

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Returns ``(B, 1, num_mels, T / hop)``: one where all samples ``(B, 1, T)`` of a hop are one."""
        return _by_hop(mask, self.hop).repeat(1, 1, self.num_mels, 1)

    def _load(self) -> None:
        described = {name: buffer.clone() for name, buffer in self.network.feature_extractor.named_buffers()}
        super()._load()
        for name, buffer in self.network.feature_extractor.named_buffers():
            if not torch.allclose(buffer, described[name], atol=1e-5):
                raise ValueError(
                    f"autoencoder.network.weights={self.weights}: its {name} is another than sample_rate, window and "
                    "num_mels give; set modality.sample_rate to the rate that it was trained at"
                )

    def _code(self, sample: Tensor) -> tuple[Tensor, None]:
        check_waveform(sample, self.channels)
        num_frames = _num_frames(sample.shape[-1], self.hop)
        features = self.network.feature_extractor(sample.float().flatten(0, 1))[..., :num_frames]
        return features.unflatten(0, sample.shape[:2]), None

    def _synthesize(self, code: Tensor) -> Tensor:
        features = code.flatten(0, 1)
        if self.padding == "center":
            features = torch.cat([features, features[..., -1:]], -1)
        return self.network.head(self.network.backbone(features)).unflatten(0, code.shape[:2])


@part("autoencoder")
class OobleckAutoencoder(PretrainedAutoencoder):
    """Wraps Stable Audio's autoencoder, diffusers' ``AutoencoderOobleck``.

    Latents are ``(B, latent_channels, 1, T / hop)``: patches of the backbone must be 1 along the axis of length 1.
    weights: the safetensors file of its folder (``vae/diffusion_pytorch_model.safetensors``). The other keys describe
    it, with diffusers' values; its hop is the product of ratios. Raises ValueError if the package is not installed.
    """

    def __init__(
        self,
        weights: str | None = None,
        sample_rate: int = 44100,
        channels: int = 2,
        latent_channels: int = 64,
        ratios: Sequence[int] = (2, 4, 4, 8, 8),
        multiples: Sequence[int] = (1, 2, 4, 8, 16),
        encoder_width: int = 128,
        decoder_width: int = 128,
        sigma_data: float = 0.5,
    ) -> None:
        try:
            from diffusers import AutoencoderOobleck
        except ImportError as error:
            raise ValueError(
                f"OobleckAutoencoder needs the package diffusers ({error}): pip install 'scm-media[diffusers]'"
            ) from error
        network = AutoencoderOobleck(
            encoder_hidden_size=encoder_width,
            downsampling_ratios=list(ratios),
            channel_multiples=list(multiples),
            decoder_channels=decoder_width,
            decoder_input_channels=latent_channels,
            audio_channels=channels,
            sampling_rate=sample_rate,
        )
        channel_name = f"latent channel {{}} of {latent_channels}"
        remedy = "check the data, or that autoencoder.network.weights are of this network"
        super().__init__(network, weights, ChannelScale(latent_channels, sigma_data, channel_name, remedy))
        self.channels, self.latent_channels, self.hop = channels, latent_channels, math.prod(ratios)

    def latent_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(latent_channels, 1, T / hop)``; raises ValueError where the hop does not divide T."""
        return (self.latent_channels, 1, _num_frames(sample_shape[-1], self.hop))

    def sample_shape(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns ``(C, T)``, a hop for each frame."""
        return (self.channels, latent_shape[-1] * self.hop)

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Returns ``(B, 1, 1, T / hop)``: one where all samples ``(B, 1, T)`` of a hop are one."""
        return _by_hop(mask, self.hop)

    def _code(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        check_waveform(sample, self.channels)
        _num_frames(sample.shape[-1], self.hop)
        posterior: Any = self.network.encode(sample.float()).latent_dist
        return posterior.mean[:, :, None], posterior.std[:, :, None]

    def _synthesize(self, code: Tensor) -> Tensor:
        return self.network.decode(code.squeeze(2)).sample


def _num_frames(num_samples: int, hop: int) -> int:
    if num_samples < 1 or num_samples % hop:
        raise ValueError(
            f"waveforms of {num_samples} samples cannot be encoded: the autoencoder needs a multiple of its hop, "
            f"{hop}; set modality.multiple={hop}"
        )
    return num_samples // hop


def _by_hop(mask: Tensor, hop: int) -> Tensor:
    """Returns ``(B, 1, 1, K)``: one where all of a hop of ``(B, 1, K · hop)`` is one."""
    return mask.reshape(len(mask), 1, 1, _num_frames(mask.shape[-1], hop), hop).amin(-1)

"""A discriminator of patches, which learns to tell reconstructions from samples while an autoencoder trains."""

from __future__ import annotations

from torch import Tensor, nn

from scm_media.nn.autoencoder_layers import CONVOLUTIONS, group_norm
from scm_media.parts import part


@part("critic")
class PatchDiscriminator(nn.Module):
    """Scores each patch of a sample, higher for patches that look real (Isola et al. 2016, section 3.2.2).

    channels, rank: the channels and axes of samples ``(B, channels, *S)``. width: channels of the first layer; each
    next layer has twice as many. num_layers: strided layers; there is one score for 2^num_layers positions of an axis.
    """

    def __init__(self, channels: int, rank: int, width: int = 32, num_layers: int = 2) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[rank]
        layers: list[nn.Module] = []
        before = channels
        for number in range(num_layers):
            after = width * 2**number
            layers += [convolution(before, after, 4, stride=2, padding=1), group_norm(after), nn.LeakyReLU(0.2)]
            before = after
        self.layers = nn.Sequential(*layers, convolution(before, 1, 3, padding=1))

    def forward(self, sample: Tensor) -> Tensor:
        """Returns scores ``(B, 1, *patches)`` of samples ``(B, C, *S)``."""
        return self.layers(sample)

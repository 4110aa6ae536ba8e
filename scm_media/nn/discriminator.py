"""A critic of small patches: what tells reconstructions from samples while an autoencoder trains."""

from __future__ import annotations

from torch import Tensor, nn

from scm_media.nn.autoencoder_layers import CONVOLUTIONS, group_norm
from scm_media.parts import part


@part("critic")
class PatchDiscriminator(nn.Module):
    """A score of each patch of a sample, high for what looks real (Isola et al. 2016, section 3.2.2).

    channels, rank: of samples ``(B, channels, *S)``. width: channels of the first layer, each next has twice as many.
    num_layers: strided layers; a score stands for 2^num_layers places along each axis.
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
        """Scores ``(B, 1, *patches)`` of samples ``(B, C, *S)``."""
        return self.layers(sample)

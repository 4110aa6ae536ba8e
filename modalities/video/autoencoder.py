"""The causal autoencoder of videos, and its initialisation from an autoencoder of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from scm_media.nn.autoencoder_layers import SubPixelUpsample
from scm_media.nn.kl_autoencoder import KLAutoencoder
from scm_media.parts import part

SPACE_FACTORS = (1, 2, 4, 8, 16)
TIME_FACTORS = (1, 2, 3, 4)


@part("autoencoder")
class VideoAutoencoder(KLAutoencoder):
    """Codes videos by causal convolutions: ``(C, 1 + f · k, H, W)`` to ``(c, 1 + k, H / p, W / p)``.

    The first frame is coded alone, so that a video of one frame is a picture; then ``time_factor`` (f) frames are one
    latent frame, which depends on no later one. channels: of the frames. space_factor (p): a power of two, 4 and 8
    are usual. time_factor: 1 to 4. width: channels of the finest level; the next have twice, the others four times as
    many. depth: residual blocks of each level. finest: pixels along a side of one position of the finest level.
    finest_time: frames of one position of the finest level: 1, or the whole time_factor, which is several times faster
    (of 4 also 2); the coarsest levels take the rest of the factor. chunk: latent frames that are coded at once.

    linear_residual: principal components of blocks of f frames and p × p pixels bypass the network, and it starts from
    them. image_weights: a safetensors file of an ``ImageAutoencoder`` of the same factor, latent_channels, width,
    depth and finest, which training starts from (``inflate``). Raises ValueError for impossible factors.
    """

    def __init__(
        self,
        channels: int = 3,
        space_factor: int = 8,
        time_factor: int = 3,
        latent_channels: int = 8,
        width: int = 64,
        depth: int = 1,
        finest: int = 2,
        finest_time: int = 1,
        chunk: int = 4,
        linear_residual: bool = False,
        image_weights: str | None = None,
        sigma_data: float = 0.5,
    ) -> None:
        if linear_residual and image_weights is not None:
            raise ValueError("autoencoder.network: give image_weights or linear_residual, not both")
        super().__init__(
            channels,
            latent_channels,
            rank=3,
            strides=(strides := level_strides(space_factor, time_factor, finest, finest_time)),
            widths=[width * min(2**level, 4) for level in range(len(strides))],
            depth=depth,
            sigma_data=sigma_data,
            causal=True,
            chunk=chunk,
            linear_residual=linear_residual,
        )
        self.image_weights = image_weights

    def prepare(self, samples: Iterable[Tensor]) -> None:
        """Takes the weights of ``image_weights``, or measures the components of the linear residual.

        Raises ValueError for a file that is missing, not safetensors, or of another network.
        """
        super().prepare(samples)
        if self.image_weights is None:
            return
        key, file = "autoencoder.network.image_weights", Path(self.image_weights).expanduser()
        if not file.is_file():
            raise ValueError(
                f"{key}={self.image_weights} is no file: name the weights.safetensors of a run's autoencoder"
            )
        try:
            state = load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{key}={self.image_weights} is no safetensors file ({error})") from error
        try:
            inflate(self, state)
        except ValueError as error:
            raise ValueError(f"{key}={self.image_weights}: {error}") from error


def level_strides(space_factor: int, time_factor: int, finest: int, finest_time: int) -> list[tuple[int, int, int]]:
    """Returns the strides of each level along frames, height and width; raises ValueError as ``VideoAutoencoder``."""
    key = "autoencoder.network"
    for name, value in (("space_factor", space_factor), ("finest", finest)):
        if value not in SPACE_FACTORS:
            raise ValueError(f"{key}.{name} must be one of {', '.join(map(str, SPACE_FACTORS))}; got {value}")
    if space_factor < finest:
        raise ValueError(f"{key}.space_factor {space_factor} must be no less than finest {finest}")
    if time_factor not in TIME_FACTORS:
        raise ValueError(f"{key}.time_factor must be one of {', '.join(map(str, TIME_FACTORS))}; got {time_factor}")
    if finest_time < 1 or time_factor % finest_time:
        raise ValueError(f"{key}.finest_time must divide time_factor {time_factor}, got {finest_time}")
    sides = [finest] + [2] * ((space_factor // finest).bit_length() - 1)
    frames = [finest_time] + [1] * (len(sides) - 1)
    left = time_factor // finest_time
    if left == 4 and len(sides) > 2:
        frames[-2], left = 2, 2
    frames[-1] *= left
    return [(step, side, side) for step, side in zip(frames, sides, strict=True)]


def inflate(network: KLAutoencoder, state: Mapping[str, Tensor]) -> None:
    """Gives a video autoencoder the weights of one of pictures, so that both code pictures equally.

    state: of a ``KLAutoencoder`` of two axes (``ImageAutoencoder``) with the widths, depth and strides in space of
    the network. Kernels become the last of their frames and the others are zero: latent frame j is the picture's of
    frame j · time_factor, and all frames of its group are decoded as that picture. The normalisation is copied.
    Source: Yu et al. 2023 (MAGVIT-v2, arXiv 2310.05737), appendix B, after Carreira & Zisserman 2017.
    Raises ValueError, changing nothing, if a weight is missing, unknown to the network, or of another shape.
    """
    own = network.state_dict()
    names = {name: name.replace(".inner.", ".") for name in own}
    wanted = set(names.values())
    problems = [f"{name} is missing" for name in sorted(wanted - set(state))]
    problems += [f"{name} is none of it" for name in sorted(set(state) - wanted)]
    if problems:
        raise ValueError(f"these are no weights of the picture's part of this network ({len(problems)}: {problems[0]})")
    upsamples = {
        f"{name}.convolution": layer for name, layer in network.named_modules() if isinstance(layer, SubPixelUpsample)
    }
    inflated = {}
    for name, tensor in own.items():
        layer = upsamples.get(names[name].rpartition(".")[0])
        inflated[name] = made = _inflate_weight(state[names[name]].to(tensor), tensor.shape, layer)
        if made.shape != tensor.shape:
            raise ValueError(
                f"{names[name]} of {tuple(state[names[name]].shape)} is no weight of this network's, whose own is "
                f"{tuple(tensor.shape)}: give both the same width, depth and latent_channels"
            )
    network.load_state_dict(inflated)


def _inflate_weight(flat: Tensor, shape: Sequence[int], upsample: SubPixelUpsample | None) -> Tensor:
    """Returns a weight of pictures as one of videos; upsample: the layer whose channels become pixels, if any."""
    if flat.ndim == 4 and len(shape) == 5:
        flat = nn.functional.pad(flat[:, :, None], (0, 0, 0, 0, shape[2] - 1, 0))
    if upsample is None or flat.ndim == 0 or flat.shape[0] % upsample.out_channels:
        return flat
    each = flat.unflatten(0, (upsample.out_channels, 1, -1))  # (out_channels, frames, height · width, …)
    return each.expand(-1, upsample.stride[0], *each.shape[2:]).flatten(0, 2)

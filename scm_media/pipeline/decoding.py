"""From latents to samples on the CPU, piece by piece where the autoencoder can."""

from __future__ import annotations

import torch
from torch import Tensor

from scm_media.interfaces import Autoencoder


@torch.inference_mode()
def decoded(autoencoder: Autoencoder, latent: Tensor) -> Tensor:
    """Samples ``(B, C, *S)`` on the CPU for latents ``(B, c, *s)``.

    Of an autoencoder with ``decode_in_chunks`` the device never holds more than a piece, however long the clip is.
    """
    in_pieces = getattr(autoencoder, "decode_in_chunks", None)
    if in_pieces is None:
        return autoencoder.decode(latent).cpu()
    sample, filled = None, 0
    for chunk in in_pieces(latent):
        if sample is None:
            sample = torch.empty(len(latent), *autoencoder.sample_shape(latent.shape[1:]), dtype=chunk.dtype)
        sample[:, :, filled : filled + chunk.shape[2]] = chunk.cpu()
        filled += chunk.shape[2]
    assert sample is not None and filled == sample.shape[2]
    return sample

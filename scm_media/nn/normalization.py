"""Normalisation layers that carry a dual tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scm_media.nn.dual import (
    DualTensor,
    Linear,
    TensorLike,
    add,
    apply_linear,
    full_precision,
    in_full_precision,
    multiply,
)


def rms_normalize(x: TensorLike, eps: float = 1e-6, dim: int = -1) -> TensorLike:
    """Returns x / sqrt(mean(x²) + eps) over one dimension (1 for pixel norm); the mean is taken in float32.

    The tangent is s · (dx − y · mean(y · dx)) with y the output and s = 1 / sqrt(mean(x²) + eps).
    """
    if not isinstance(x, DualTensor):
        return x * _inverse_rms(x, eps, dim)
    value = x.value * _inverse_rms(x.value, eps, dim)
    with torch.no_grad():
        scale = _inverse_rms(x.value, eps, dim)
        tangent = x.tangent.to(scale.dtype)
        normalized = x.value * scale
        projection = (normalized * tangent).mean(dim, keepdim=True)
        return DualTensor(value, scale * (tangent - normalized * projection))


def _inverse_rms(x: Tensor, eps: float, dim: int) -> Tensor:
    wide = x if x.dtype == torch.float64 else x.float()
    return torch.rsqrt(wide.square().mean(dim, keepdim=True) + eps)


class AdaptiveDoubleNorm(nn.Module):
    """Computes norm(x) · norm(s(c)) + g · norm(b(c)): scale and shift are normalised too ("double norm").

    Source: sCM, section 4.1, "adaptive double normalization", with the RMS norm of each token in place of group
    norm. A normalised modulation keeps dF/dt bounded whatever the embedding does. The gain g of the shift, a weight of
    each channel, starts at 0, so that a new layer modulates by its scale alone.
    """

    def __init__(self, width: int, cond_width: int) -> None:
        super().__init__()
        self.modulation = in_full_precision(Linear(cond_width, 2 * width))
        self.shift_gain = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.modulation.weight, std=0.5 * cond_width**-0.5)
        nn.init.ones_(self.modulation.bias[:width].data)

    def forward(self, x: TensorLike, c: TensorLike) -> TensorLike:
        """Returns tokens ``(B, L, width)`` modulated by c ``(B, cond_width)``."""
        width = self.shift_gain.shape[0]
        with full_precision(c):
            modulation = self.modulation(c)
        scale = rms_normalize(apply_linear(lambda m: m[:, None, :width], modulation))
        shift = rms_normalize(apply_linear(lambda m: m[:, None, width:], modulation))
        shift = apply_linear(lambda m: m * self.shift_gain, shift)
        return add(multiply(rms_normalize(x), scale), shift)

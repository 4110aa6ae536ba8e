"""Convolution and resampling of latents ``(B, c, *s)`` of rank 1, 2 or 3, carrying a pair."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as nnf
from torch import Tensor

from scm_media.nn.dual import TensorLike, apply_linear

_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: nnf.conv1d, 2: nnf.conv2d, 3: nnf.conv3d}
_POOLINGS: dict[int, Callable[..., Tensor]] = {1: nnf.avg_pool1d, 2: nnf.avg_pool2d, 3: nnf.avg_pool3d}


def convolve(x: TensorLike, weight: Tensor) -> TensorLike:
    """x ``(B, c_in, *s)`` convolved with weight ``(c_out, c_in, *k)``, k odd: ``(B, c_out, *s)``, zeros around."""
    convolution, padding = _CONVOLUTIONS[weight.ndim - 2], weight.shape[-1] // 2
    return apply_linear(lambda v: convolution(v, weight, padding=padding), x)


def halve(x: TensorLike) -> TensorLike:
    """Means over blocks of two places an axis: ``(B, c, *s / 2)``."""
    return apply_linear(lambda v: _POOLINGS[v.ndim - 2](v, 2), x)


def double(x: TensorLike) -> TensorLike:
    """Every place twice an axis: ``(B, c, 2 * s)``."""
    return apply_linear(lambda v: nnf.interpolate(v, scale_factor=2, mode="nearest"), x)

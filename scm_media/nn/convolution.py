"""Convolution and resampling of latents ``(B, c, *s)`` of rank 1, 2 or 3 that carry a dual tensor."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as nnf
from torch import Tensor

from scm_media.nn.dual import TensorLike, apply_linear

_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: nnf.conv1d, 2: nnf.conv2d, 3: nnf.conv3d}
_POOLINGS: dict[int, Callable[..., Tensor]] = {1: nnf.avg_pool1d, 2: nnf.avg_pool2d, 3: nnf.avg_pool3d}


def convolve(x: TensorLike, weight: Tensor) -> TensorLike:
    """Returns x ``(B, c_in, *s)``, padded by zeros and convolved with weight ``(c_out, c_in, *k)``, k odd."""
    convolution, padding = _CONVOLUTIONS[weight.ndim - 2], weight.shape[-1] // 2
    return apply_linear(lambda v: convolution(v, weight, padding=padding), x)


def halve(x: TensorLike) -> TensorLike:
    """Returns the means over blocks of two positions along each axis: ``(B, c, *s / 2)``."""
    return apply_linear(lambda v: _POOLINGS[v.ndim - 2](v, 2), x)


def double(x: TensorLike) -> TensorLike:
    """Returns x with every position repeated along each axis: ``(B, c, *2 s)``."""
    return apply_linear(lambda v: nnf.interpolate(v, scale_factor=2, mode="nearest"), x)

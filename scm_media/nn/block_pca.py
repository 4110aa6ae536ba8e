"""Computes principal components of blocks of samples, and adds them to an autoencoder as a linear residual."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from scm_media.nn.autoencoder_layers import CausalSequential, FeatureCache

INITIAL_LOG_VARIANCE = -6.0
"""The log variance of codes at the start of training: noise of 0.05 times their standard deviation."""


class BlockPCA(nn.Module):
    """Encodes blocks of ``strides`` positions as principal components, each scaled to a standard deviation of 1.

    Among linear maps to ``num`` numbers it has the least squared error (Pearson 1901). ``fit`` measures the components;
    nothing is trained. channels: channels of samples. num: number of components. causal: the first position along the
    first axis is repeated to fill a block of its own. Raises ValueError for more components than a block has values.
    """

    mean: Tensor
    basis: Tensor
    deviation: Tensor

    def __init__(self, channels: int, num: int, strides: Sequence[int], causal: bool) -> None:
        super().__init__()
        size = channels * math.prod(strides)
        if num > size:
            raise ValueError(f"a block of {size} values has fewer than {num} components: lower latent_channels")
        self.channels, self.strides, self.causal = channels, tuple(strides), causal
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("basis", torch.zeros(size, num))
        self.register_buffer("deviation", torch.ones(num))

    def fit(self, samples: Iterable[Tensor]) -> None:
        """Measures the components over batches ``(B, C, *S)``; raises ValueError for data that have fewer."""
        count, size = 0, len(self.mean)
        total = torch.zeros(size, dtype=torch.float64)
        products = torch.zeros(size, size, dtype=torch.float64)
        for sample in samples:
            blocks = self._blocks(sample.float(), is_first=True).flatten(0, -2).cpu()
            count, total = count + len(blocks), total + blocks.sum(0, dtype=torch.float64)
            products += (blocks.T @ blocks).double()
        mean = total / max(count, 1)
        variance, basis = torch.linalg.eigh(products / max(count, 1) - mean.outer(mean))
        num = len(self.deviation)
        variance, basis = variance.flip(0)[:num], basis.flip(1)[:, :num]
        if count < 2 or not bool(variance[-1] > 1e-9):
            raise ValueError(
                f"{count} blocks of the training data have fewer than {num} components: lower "
                "autoencoder.network.latent_channels, or set linear_residual=false"
            )
        self.mean.copy_(mean)
        self.basis.copy_(basis)
        self.deviation.copy_(variance.sqrt())

    def encode(self, sample: Tensor, is_first: bool) -> Tensor:
        """Returns codes ``(B, c, *s)`` of samples ``(B, C, *S)``; is_first: for the first chunk of a sample."""
        codes = (self._blocks(sample.to(self.mean.dtype), is_first) - self.mean) @ self.basis / self.deviation
        return codes.movedim(-1, 1)

    def decode(self, code: Tensor, is_first: bool) -> Tensor:
        """Returns samples ``(B, C, *S)`` for codes ``(B, c, *s)``; is_first: as for ``encode``."""
        rank = len(self.strides)
        blocks = (code.to(self.mean.dtype).movedim(1, -1) * self.deviation) @ self.basis.T + self.mean
        blocks = blocks.unflatten(-1, (self.channels, *self.strides))  # (B, *s, channels, *strides)
        axes = [axis for number in range(rank) for axis in (1 + number, 2 + rank + number)]
        blocks = blocks.permute(0, 1 + rank, *axes)  # (B, channels, s[0], strides[0], s[1], strides[1], …)
        sizes = [size * step for size, step in zip(code.shape[2:], self.strides, strict=True)]
        sample = blocks.reshape(code.shape[0], self.channels, *sizes)
        return sample[:, :, self.strides[0] - 1 :] if self.causal and is_first else sample

    def _blocks(self, sample: Tensor, is_first: bool) -> Tensor:
        """Returns the blocks ``(B, *s, channels · prod(strides))`` of samples ``(B, C, *S)``."""
        if self.causal and is_first:
            first = sample[:, :, :1].expand(-1, -1, self.strides[0] - 1, *sample.shape[3:])
            sample = torch.cat([first, sample], 2)
        rank = len(self.strides)
        sizes = [n for size, step in zip(sample.shape[2:], self.strides, strict=True) for n in (size // step, step)]
        blocks = sample.reshape(sample.shape[0], self.channels, *sizes)
        outer, inner = range(2, 2 + 2 * rank, 2), range(3, 3 + 2 * rank, 2)
        return blocks.permute(0, *outer, 1, *inner).flatten(1 + rank)


class LinearResidual(CausalSequential):
    """Adds layers in sequence to a ``BlockPCA``, so that they learn only what the components lose.

    The last convolution starts at zero, so that training starts from the components alone. An encoder returns the mean
    and the log variance of codes, which starts at ``INITIAL_LOG_VARIANCE``. Source: the linear shortcuts of Chen et al.
    2024 (DC-AE, arXiv 2410.10733, section 3.1), here with the linear map of least error.
    """

    def __init__(self, layers: Iterable[nn.Module], components: BlockPCA, is_encoder: bool) -> None:
        super().__init__(*layers)
        # The tuple keeps them from being a submodule: encoder and decoder share those of the autoencoder.
        self._components, self.is_encoder = (components,), is_encoder
        last = [layer for layer in self.modules() if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)][-1]
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        if is_encoder:
            last.bias.data[len(last.bias) // 2 :] = INITIAL_LOG_VARIANCE

    def forward(self, x: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """Returns the sum of the layers' output and the components'."""
        is_first = cache is None or self not in cache
        if cache is not None:
            cache[self] = x.new_empty(0)  # marks that the first chunk has passed
        out = super().forward(x, cache)
        with torch.autocast(x.device.type, enabled=False):
            if not self.is_encoder:
                return out + self._components[0].decode(x, is_first)
            code = self._components[0].encode(x, is_first)
            return out + torch.cat([code, torch.zeros_like(code)], 1)

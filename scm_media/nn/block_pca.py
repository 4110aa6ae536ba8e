"""A linear way past an autoencoder: the principal components of blocks of places."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from scm_media.nn.autoencoder_layers import CausalSequential, FeatureCache

FRESH_LOG_VARIANCE = -6.0
"""Of codes, before training has said otherwise: noise of a twentieth of their deviation."""


class BlockPCA(nn.Module):
    """Codes of blocks of ``strides`` places, and blocks of codes: each channel a principal component at deviation 1.

    Of all linear maps to so many numbers a block, these lose least (Pearson 1901). Nothing here is trained: ``fit``
    measures it. causal: along the first axis the first place is a block of its own, as often as the block is long.
    channels: of samples. num: components. Raises ValueError for more of them than a block has values.
    """

    mean: Tensor
    basis: Tensor
    deviation: Tensor

    def __init__(self, channels: int, num: int, strides: Sequence[int], causal: bool) -> None:
        super().__init__()
        size = channels * math.prod(strides)
        if num > size:
            raise ValueError(f"a block of {size} values has no {num} components: lower latent_channels")
        self.channels, self.strides, self.causal = channels, tuple(strides), causal
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("basis", torch.zeros(size, num))
        self.register_buffer("deviation", torch.ones(num))

    def fit(self, samples: Iterable[Tensor]) -> None:
        """Measures the components on batches ``(B, C, *S)``. Raises ValueError where fewer than ``num`` are there."""
        count, size = 0, len(self.mean)
        total = torch.zeros(size, dtype=torch.float64)
        products = torch.zeros(size, size, dtype=torch.float64)
        for sample in samples:
            blocks = self._blocks(sample.float(), begins=True).flatten(0, -2).cpu()
            count, total = count + len(blocks), total + blocks.sum(0, dtype=torch.float64)
            products += (blocks.T @ blocks).double()
        mean = total / max(count, 1)
        variance, basis = torch.linalg.eigh(products / max(count, 1) - mean.outer(mean))
        num = len(self.deviation)
        variance, basis = variance.flip(0)[:num], basis.flip(1)[:, :num]
        if count < 2 or not bool(variance[-1] > 1e-9):
            raise ValueError(
                f"{count} blocks of the training data have fewer than {num} components: lower "
                "autoencoder.network.latent_channels, or set shortcut=false"
            )
        self.mean.copy_(mean)
        self.basis.copy_(basis)
        self.deviation.copy_(variance.sqrt())

    def encode(self, sample: Tensor, begins: bool) -> Tensor:
        """Codes ``(B, c, *s)`` of samples ``(B, C, *S)``; begins: the first place is the sample's first."""
        codes = (self._blocks(sample.to(self.mean.dtype), begins) - self.mean) @ self.basis / self.deviation
        return codes.movedim(-1, 1)

    def decode(self, code: Tensor, begins: bool) -> Tensor:
        """Samples ``(B, C, *S)`` for codes ``(B, c, *s)``."""
        rank = len(self.strides)
        blocks = (code.to(self.mean.dtype).movedim(1, -1) * self.deviation) @ self.basis.T + self.mean
        apart = blocks.unflatten(-1, (self.channels, *self.strides))
        axes = [axis for each in range(rank) for axis in (1 + each, 2 + rank + each)]
        apart = apart.permute(0, 1 + rank, *axes)
        sizes = [size * step for size, step in zip(code.shape[2:], self.strides, strict=True)]
        sample = apart.reshape(len(code), self.channels, *sizes)
        return sample[:, :, self.strides[0] - 1 :] if self.causal and begins else sample

    def _blocks(self, sample: Tensor, begins: bool) -> Tensor:
        """``(B, *s, channels · prod(strides))``."""
        if self.causal and begins:
            first = sample[:, :, :1].expand(-1, -1, self.strides[0] - 1, *sample.shape[3:])
            sample = torch.cat([first, sample], 2)
        rank = len(self.strides)
        chunks = [
            part for size, step in zip(sample.shape[2:], self.strides, strict=True) for part in (size // step, step)
        ]
        apart = sample.reshape(len(sample), self.channels, *chunks)
        places, within = range(2, 2 + 2 * rank, 2), range(3, 3 + 2 * rank, 2)
        return apart.permute(0, *places, 1, *within).flatten(1 + rank)


class LinearResidual(CausalSequential):
    """A chain of layers and the components beside it, added: the chain learns what they leave.

    The last convolution of a fresh one is zero (of an encoder, whose code's mean comes before its log variance, it
    gives ``FRESH_LOG_VARIANCE``), so that training starts from the components alone. Source: the linear shortcuts of
    Chen et al. 2024 (DC-AE, arXiv 2410.10733, section 3.1), here with the map that loses least.
    """

    def __init__(self, layers: Iterable[nn.Module], components: BlockPCA, encodes: bool) -> None:
        super().__init__(*layers)
        # Held out of the module tree: encoder and decoder share them, and the autoencoder has them.
        self._components, self.encodes = (components,), encodes
        last = [layer for layer in self.modules() if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)][-1]
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        if encodes:
            last.bias.data[len(last.bias) // 2 :] = FRESH_LOG_VARIANCE

    def forward(self, x: Tensor, memory: FeatureCache | None = None) -> Tensor:
        """What the layers make of x, and what the components do."""
        begins = memory is None or self not in memory
        if memory is not None:
            memory[self] = x.new_empty(0)
        made = super().forward(x, memory)
        with torch.autocast(x.device.type, enabled=False):
            if not self.encodes:
                return made + self._components[0].decode(x, begins)
            code = self._components[0].encode(x, begins)
            return made + torch.cat([code, torch.zeros_like(code)], 1)

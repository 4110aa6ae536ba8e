"""Embeddings of times, labels, guidance scale and position."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from scm_media.conditioning import Conditioning
from scm_media.nn.dual import DualTensor, Linear, TensorLike, apply_linear, full_precision, silu, value_of


class SinusoidalFeatures(nn.Module):
    """Computes cos and sin of a scalar at log-spaced frequencies, in float32 under any precision.

    Low frequencies (0.25 … 8 radians per radian of t) keep dF/dt bounded; Fourier features of scale 16 do not
    (sCM, section 4.1, "positional time embedding").
    """

    frequencies: Tensor

    def __init__(self, num_frequencies: int, lowest: float = 0.25, highest: float = 8.0) -> None:
        super().__init__()
        exponents = torch.linspace(math.log(lowest), math.log(highest), num_frequencies)
        self.register_buffer("frequencies", exponents.exp(), persistent=False)

    def forward(self, t: TensorLike) -> TensorLike:
        """Returns features ``(B, 2 · num_frequencies)`` of standard deviation about 1 for scalars ``(B,)``."""
        if not isinstance(t, DualTensor):
            return self._features(t)[0]
        features, derivatives = self._features(t.value)
        return DualTensor(features, derivatives * t.tangent[:, None])

    def _features(self, t: Tensor) -> tuple[Tensor, Tensor]:
        frequencies = self.frequencies.to(t.dtype)
        angle = t[:, None] * frequencies
        cos, sin = torch.cos(angle), torch.sin(angle)
        features = torch.cat([cos, sin], dim=-1)
        derivatives = torch.cat([-sin * frequencies, cos * frequencies], dim=-1)
        return features * math.sqrt(2), derivatives * math.sqrt(2)


class ScalarEmbedding(nn.Module):
    """Embeds a scalar by its sinusoidal features and two linear layers, in float32 under any precision."""

    def __init__(self, width: int, num_frequencies: int = 32) -> None:
        super().__init__()
        self.features = SinusoidalFeatures(num_frequencies)
        self.first = Linear(2 * num_frequencies, width)
        self.second = Linear(width, width)

    def forward(self, t: TensorLike) -> TensorLike:
        """Returns ``(B, width)`` for scalars ``(B,)``."""
        with full_precision(t):
            return self.second(silu(self.first(self.features(t))))


def target_time(cond: Conditioning, t: TensorLike) -> TensorLike:
    """Returns the time ``(B,)`` that a flow map goes to, in the type of t ``(B,)``; zeros where none is given."""
    like = value_of(t)
    return torch.zeros_like(like) if cond.target is None else apply_linear(lambda s: s.to(like), cond.target)


def _half_embedding(num: int, width: int) -> nn.Module:
    """Returns a table whose entries start with a standard deviation of 0.5."""
    embedding = nn.Embedding(num, width)
    nn.init.normal_(embedding.weight, std=0.5)
    return embedding


class LabelEmbedding(nn.Module):
    """Sums the embeddings of all labels of a sample; a label that is not given has an embedding of its own.

    labels: name to the number of classes; 0 stands for a scalar label, which is embedded like a time. units: scalar
    label to its divisor (1 for labels that are not named), so that its range is about that of a time in radians.
    table, scalar: functions of (num, width) and of (width) that make the layers for the two kinds. Raises ValueError
    for units that are not positive or not of scalar labels.
    """

    def __init__(
        self,
        labels: Mapping[str, int],
        width: int,
        table: Callable[[int, int], nn.Module] = _half_embedding,
        scalar: Callable[[int], nn.Module] = ScalarEmbedding,
        units: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = dict(labels)
        self.units = dict(units or {})
        if wrong := [f"{name} {unit}" for name, unit in self.units.items() if labels.get(name) != 0 or not unit > 0]:
            raise ValueError(f"label_units are positive numbers of labels without classes, got {', '.join(wrong)}")
        self.tables = nn.ModuleDict({name: table(num + 1, width) for name, num in labels.items() if num > 0})
        self.scalars = nn.ModuleDict({name: scalar(width) for name, num in labels.items() if num == 0})
        self.absent = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(width)) for name, num in labels.items() if num == 0}
        )

    def rename(self, names: Mapping[str, str]) -> None:
        """Gives the labels other names: ``names`` has the new one of each."""
        self.num_classes = {names[name]: num for name, num in self.num_classes.items()}
        self.units = {names[name]: unit for name, unit in self.units.items()}
        self.tables = nn.ModuleDict({names[name]: table for name, table in self.tables.items()})
        self.scalars = nn.ModuleDict({names[name]: scalar for name, scalar in self.scalars.items()})
        self.absent = nn.ParameterDict({names[name]: vector for name, vector in self.absent.items()})

    def absent_vector(self, names: Sequence[str]) -> Tensor:
        """Returns the sum ``(width,)`` of the embeddings that these labels have where they are not given."""
        rows = [
            self.tables[name](torch.tensor([num]))[0] if num > 0 else self.absent[name]
            for name, num in self.num_classes.items()
            if name in names
        ]
        return torch.stack(rows).sum(0)

    def forward(self, labels: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """Returns the sum ``(B, width)`` in the type of ``like`` ``(B, width)``; raises ValueError for other labels."""
        unknown = sorted(set(labels) - set(self.num_classes))
        if unknown:
            raise ValueError(f"unknown labels {unknown}: this backbone knows {sorted(self.num_classes)}")
        total = torch.zeros_like(like)
        for name, num in self.num_classes.items():
            label = labels.get(name)
            if num > 0:
                if label is None:
                    index = torch.full(like.shape[:1], num, device=like.device)
                else:
                    index = torch.where(label < 0, num, label)
                total = total + self.tables[name](index).to(like.dtype)
            elif label is None:
                total = total + self.absent[name]
            else:
                given = ~torch.isnan(label)
                value = torch.where(given, label, 0.0).to(like.dtype) / self.units.get(name, 1.0)
                embedded = self.scalars[name](value)
                total = total + torch.where(given[:, None], embedded, self.absent[name])
        return total


PlainConditioning = Conditioning | Mapping[str, Tensor] | Tensor | None
"""Everything that losses, samplers and teachers take as conditioning; ``as_conditioning`` says how it is read."""


def as_conditioning(cond: PlainConditioning, network: object, device: torch.device | str | None = None) -> Conditioning:
    """Returns the conditioning that a plain value stands for; its labels are moved to the device, if one is given.

    None stands for no conditioning, a mapping for labels by name, a tensor ``(B,)`` for one label. It gets the name of
    the network's label if the network has a ``LabelEmbedding`` with one label, otherwise the name "class"; any network
    finds it as ``cond.label``. A ``Conditioning`` is returned unchanged. Raises ValueError for labels of another shape.
    """
    if isinstance(cond, Conditioning):
        return cond
    if cond is None:
        return Conditioning()
    labels = {_label_name(network): cond} if isinstance(cond, Tensor) else dict(cond)
    for name, label in labels.items():
        if not isinstance(label, Tensor) or label.ndim != 1:
            got = f"shape {tuple(label.shape)}" if isinstance(label, Tensor) else type(label).__name__
            raise ValueError(
                f"label {name!r} must be a tensor (B,) of class numbers or of real numbers, got {got}: text "
                "embeddings are Conditioning(tokens=…), maps beside the latent Conditioning(concat=…)"
            )
        labels[name] = (label if label.is_floating_point() else label.long()).to(device)
    return Conditioning(labels=labels)


def _label_name(network: object) -> str:
    layers = network.modules() if isinstance(network, nn.Module) else ()
    names = {name for layer in layers if isinstance(layer, LabelEmbedding) for name in layer.num_classes}
    if len(names) > 1:
        raise ValueError(
            f"the network has the labels {', '.join(sorted(names))}: give a mapping of them, not one tensor"
        )
    return next(iter(names), "class")


def axis_positions(sizes: Sequence[int], device: torch.device) -> Tensor:
    """Returns the coordinates ``(L, rank)`` of all positions of a grid, in row-major order."""
    axes = [torch.arange(size, device=device, dtype=torch.float32) for size in sizes]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(sizes))


def rotary_angles(sizes: Sequence[int], head_width: int, device: torch.device, base: float = 100.0) -> Tensor:
    """Returns angles ``(L, head_width / 2)`` of the rotary embedding (Su et al. 2021), equally many for each axis.

    The last angles are zero where the number of axes does not divide ``head_width / 2``. Raises ValueError for heads
    that are too narrow.
    """
    num_per_axis = head_width // (2 * len(sizes))
    if num_per_axis == 0:
        raise ValueError(f"a head of width {head_width} is too narrow for {len(sizes)} axes: use 2 channels for each")
    exponents = torch.arange(num_per_axis, device=device, dtype=torch.float32) / num_per_axis
    angles = axis_positions(sizes, device)[:, :, None] * base**-exponents
    angles = angles.reshape(angles.shape[0], -1)
    return nn.functional.pad(angles, (0, head_width // 2 - angles.shape[1]))


class PositionEmbedding(nn.Module):
    """A linear map of sinusoids of the coordinates, which distinguishes positions even under pure noise."""

    def __init__(self, rank: int, width: int, num_frequencies: int = 8) -> None:
        super().__init__()
        self.num_frequencies = num_frequencies
        self.project = nn.Linear(rank * 2 * num_frequencies, width, bias=False)

    def forward(self, sizes: Sequence[int], like: Tensor) -> Tensor:
        """Returns ``(L, width)`` for a grid of these sizes, in the type of ``like``."""
        exponents = torch.arange(self.num_frequencies, device=like.device, dtype=torch.float32)
        positions = axis_positions(sizes, like.device)[:, :, None] * 2.0 ** (-exponents * 0.75)
        features = torch.cat([positions.cos(), positions.sin()], dim=-1)
        return self.project(features.reshape(features.shape[0], -1).to(like.dtype))

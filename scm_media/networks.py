"""Restores a network from a weight file, within the time and memory that the file's own tensors call for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as registry
from torch.utils._python_dispatch import TorchDispatchMode

from scm_media import weights
from scm_media.build import build

ROLES: Mapping[str, str] = {
    "autoencoder": "autoencoder",
    "teacher": "backbone",
    "guide": "backbone",
    "warm_start": "backbone",
    "student": "backbone",
    "feature_extractor": "feature_extractor",
}
"""The role of the part that each network's weight file describes, by the network's name."""

SPARE_LAYERS = 64
SPARE_ELEMENTS = 1 << 22
"""Allowances beyond a file's tensors: for layers without weights, and for tensors that a network computes itself."""


def restore(component: weights.Component, name: str, source: str | Path) -> nn.Module:
    """Returns the network ``name`` of a model, made by its file's configuration and filled with its tensors.

    The configuration may come from a stranger: it is refused as soon as it asks for more layers, or larger tensors,
    than the file has. Raises ValueError that names the source where the two do not fit, and as ``build``.
    """
    budget = _Budget(component.state.values(), source)
    try:
        with budget.hooks(), budget:
            network: nn.Module = build(component.config, ROLES[name])
    except (RuntimeError, MemoryError, TypeError, ArithmeticError, IndexError, KeyError, AttributeError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(
            f"{source}: its configuration describes no network ({type(error).__name__}: {reason}); copy the file again"
        ) from error
    weights.load_into(network, component.state, source)
    return network


class _Budget(TorchDispatchMode):
    """Raises ValueError as soon as a network that is being built exceeds the tensors of its weight file."""

    def __init__(self, tensors: Any, source: str | Path) -> None:
        super().__init__()
        sizes = [tensor.numel() for tensor in tensors]
        self.source = source
        self.layers = 8 * len(sizes) + SPARE_LAYERS
        self.elements = sum(sizes) + SPARE_ELEMENTS
        self.largest = max([*sizes, SPARE_ELEMENTS])

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Returns False: PyTorch would load its compiler, for a second, to keep it away from ``__torch_dispatch__``."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (num := _asked_for(args)) > self.largest:
            raise self._refusal(f"a tensor of {num} elements")
        return func(*args, **(kwargs or {}))

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Counts layers and weights as they are added to modules."""
        handles = [
            registry.register_module_parameter_registration_hook(self._count),
            registry.register_module_module_registration_hook(self._count),
            registry.register_module_buffer_registration_hook(self._count),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _count(self, _: nn.Module, name: str, made: Tensor | nn.Module | None) -> None:
        self.layers -= 1
        self.elements -= made.numel() if isinstance(made, Tensor) else 0
        if self.layers < 0 or self.elements < 0:
            raise self._refusal("more layers" if self.layers < 0 else "larger layers")

    def _refusal(self, what: str) -> ValueError:
        return ValueError(
            f"{self.source}: its configuration describes {what} than its tensors can fill"
            if what.endswith("layers")
            else f"{self.source}: its configuration asks for {what}, more than any of its own tensors has"
        )


def _asked_for(args: Sequence[Any]) -> int:
    """Returns the most elements that an operation without tensors can make, from the shapes and numbers it is given."""
    if any(isinstance(each, Tensor) for each in args):
        return 0
    shapes = [math.prod(each) for each in args if isinstance(each, list | tuple) and all(map(_is_whole, each))]
    return max([*shapes, *(abs(each) for each in args if _is_whole(each))], default=0)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

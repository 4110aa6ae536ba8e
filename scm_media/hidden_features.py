"""Hidden features of a network: where they are read, how wide they are, and their distance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class HiddenLayer:
    """A layer of a network whose outputs are read as features.

    network: a backbone, also one that shares another's weights. name: the layer's in the network of diffusers or in the
    backbone itself; by default the middle one of its longest list of blocks. ``width`` is the number of channels that
    the layer's last weights put out. Raises ValueError for a network without such a list, for a name that it has not,
    and for a layer without weights.
    """

    def __init__(self, network: nn.Module, name: str | None = None) -> None:
        self._network: Any = getattr(network, "network", network)  # the modules that run, of a LoRA too
        self.name = name or _middle_layer(self._network)
        try:
            self.module = self._network.get_submodule(self.name)
        except AttributeError as error:
            raise ValueError(
                f"{type(self._network).__name__} has no layer {self.name!r} to read features of"
            ) from error
        weights = [each for each in self.module.parameters() if each.ndim >= 2]
        if not weights:
            raise ValueError(f"the layer {self.name!r} has no weights, so the width of its features is not known")
        self.width, self._channels_first = int(weights[-1].shape[0]), weights[-1].ndim > 2

    @contextmanager
    def reading(self) -> Iterator[list[Tensor]]:
        """Collects the layer's outputs, as tokens ``(B, L, width)``, of every call of the network in the block."""
        found: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                if len([each for each in output if isinstance(each, Tensor)]) > 1:  # which is the sample's is not said
                    raise ValueError(
                        f"the layer {self.name!r} gives several tensors, as those of samples and texts together do: "
                        f"name a layer of the sample alone, such as {self.name}.ff"
                    )
                output = output[0]
            found.append(self._as_tokens(output))

        handle = self.module.register_forward_hook(keep)
        try:
            yield found
        finally:
            handle.remove()

    def _as_tokens(self, features: Tensor) -> Tensor:
        """Returns features ``(B, L, width)`` or ``(B, width, *s)`` as tokens; ValueError for others."""
        in_tokens = features.ndim == 3 and not self._channels_first and features.shape[-1] == self.width
        tokens = features if in_tokens else features.flatten(2).transpose(1, 2)
        if tokens.shape[-1] != self.width:
            raise ValueError(
                f"the layer {self.name!r} gives features {tuple(features.shape)}, and {self.width} channels were "
                "expected; name another layer"
            )
        return tokens


def feature_distance(features: Tensor, other: Tensor) -> Tensor:
    """Returns the mean squared distance ``(B,)`` of features ``(B, L, w)``, each position's of unit length."""
    one, two = (nn.functional.normalize(each.float(), dim=-1) for each in (features, other))
    return (one - two).square().sum(-1).mean(1)


def _middle_layer(network: nn.Module) -> str:
    lists = [
        (name, each)
        for name, each in network.named_modules()
        # Lists of lists are levels of a U-Net, which are not called themselves.
        if isinstance(each, nn.ModuleList) and not any(isinstance(item, nn.ModuleList) for item in each)
    ]
    if not any(each for _, each in lists):
        raise ValueError(f"{type(network).__name__} has no list of blocks to read features of: name a layer")
    name, blocks = max(lists, key=lambda each: len(each[1]))
    return f"{name}.{len(blocks) // 2}"

"""The description of a network class of diffusers: what it is called with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scm_media.change_of_variables import Call
from scm_media.conditioning import Conditioning

ADAPTERS: dict[str, Adapter] = {}
"""The adapters by the names of their network classes."""
SIZE = 32
"""The side of latents of networks that were made for no size."""

Config = Mapping[str, Any]


def square(config: Config) -> tuple[int, ...]:
    """Returns the shape ``(c, h, w)`` of latents of pictures, by ``in_channels`` and ``sample_size``."""
    size = config.get("sample_size") or SIZE
    return (config["in_channels"], *((size, size) if isinstance(size, int) else size))


def no_input(config: Config) -> dict[str, int]:
    """Returns no entries, for networks without conditioning."""
    return {}


@dataclass(frozen=True)
class Adapter:
    """Describes a network class; making one registers it.

    network: the name of the class in diffusers. call: returns the prediction ``(B, c, *s)`` for latents, the network's
    time and a ``Conditioning``. inputs: returns, for a network's configuration, the entries of ``Conditioning`` that it
    cannot be called without, each with its width (of ``label``: its number of embeddings). latent_shape: returns the
    shape ``(c, *s)`` of latents that a network of this configuration was made for. null_label: the network has one more
    embedding than ``inputs`` counts, for no label; otherwise the last one may be trained to stand for it. time_scale:
    the network's time at pure noise, for rectified flows. gives_levels: its pipeline gives the scheduler n noise levels
    from 1 to 1/n, where others leave them to it. takes_scale: arguments with which a network of the class takes the
    guidance scale ``Conditioning.guidance`` as an input, by new layers that are zero at first; empty where it cannot.
    scale_layers: the names of these layers.
    """

    network: str
    call: Call
    inputs: Callable[[Config], Mapping[str, int]] = no_input
    latent_shape: Callable[[Config], tuple[int, ...]] = square
    null_label: bool = False
    time_scale: float = 1000.0
    gives_levels: bool = False
    takes_scale: Config = field(default_factory=dict)
    scale_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ADAPTERS[self.network] = self

    def called(self, network: Any, y: Any, time: Any, cond: Conditioning) -> Any:
        """Returns the prediction; ValueError where the conditioning lacks what the network needs."""
        if missing := [name for name in self.inputs(network.config) if getattr(cond, name) is None]:
            given = {"label": "labels={NAME: …}"}
            raise ValueError(
                f"{self.network} needs {' and '.join(missing)} in its conditioning: give scm_media.Conditioning("
                + ", ".join(given.get(name, f"{name}=…") for name in missing)
                + ")"
            )
        # Text encoders and networks may be of different types; the latents have the network's already.
        tokens, pooled = (None if each is None else each.to(y.dtype) for each in (cond.tokens, cond.pooled))
        return self.call(network, y, time, replace(cond, tokens=tokens, pooled=pooled))


def first_half(prediction: Any, y: Any) -> Any:
    """Returns the prediction without the channels of a learned variance, where the network has them."""
    return prediction[:, : y.shape[1]]

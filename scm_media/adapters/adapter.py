"""The description of a network class of diffusers: what it is called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scm_media.change_of_variables import Call
from scm_media.conditioning import Conditioning

ADAPTERS: dict[str, Adapter] = {}
"""The adapters by the names of their network classes."""


@dataclass(frozen=True)
class Adapter:
    """Describes a network class; making one registers it.

    network: the name of the class in diffusers. call: returns the prediction ``(B, c, *s)`` for latents, the network's
    time and a ``Conditioning``. needs: the entries of ``Conditioning`` that the network cannot be called without.
    time_scale: the network's time at pure noise, for rectified flows.
    """

    network: str
    call: Call
    needs: tuple[str, ...] = ()
    time_scale: float = 1000.0

    def __post_init__(self) -> None:
        ADAPTERS[self.network] = self

    def called(self, network: Any, y: Any, time: Any, cond: Conditioning) -> Any:
        """Returns the prediction; ValueError where the conditioning lacks what the network needs."""
        if missing := [name for name in self.needs if getattr(cond, name) is None]:
            raise ValueError(
                f"{self.network} needs {' and '.join(missing)} in its conditioning: give scm_media.Conditioning("
                + ", ".join(f"{name}=…" for name in missing)
                + ")"
            )
        return self.call(network, y, time, cond)


def first_half(prediction: Any, y: Any) -> Any:
    """Returns the prediction without the channels of a learned variance, where the network has them."""
    return prediction[:, : y.shape[1]]

"""The path between data and noise: x_t = cos t · x0 + sin t · z, t in [0, π/2].

Source: Lu & Song 2024, "Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models"
(arXiv 2410.11081), section 3, called sCM in this package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scm_media.parts import part


def broadcast_time(t: Tensor, like: Tensor) -> Tensor:
    """Returns t ``(B,)`` as ``(B, 1, ..., 1)``, so that it multiplies tensors of the rank of ``like``."""
    return t.reshape(-1, *([1] * (like.ndim - 1)))


def wrapped_attribute(network: object, name: str) -> Any:
    """Returns an attribute of a network, or of the network that guidance, DDP or a compiled module wraps; else None."""
    while network is not None:
        if (value := getattr(network, name, None)) is not None:
            return value
        inner = (getattr(network, each, None) for each in ("backbone", "module", "_orig_mod"))
        network = next((each for each in inner if each is not None), None)
    return None


@part("flow")
@dataclass(frozen=True)
class TrigFlow:
    """The trigonometric flow for data of standard deviation ``sigma_data``, with any number of axes ``(B, c, *s)``."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data must be positive, got {self.sigma_data}")

    @classmethod
    def of(cls, *networks: object) -> TrigFlow:
        """Returns the flow of networks whose attribute ``sigma_data`` says how large their data are, else of 0.5.

        The attribute may lie in a network that another one wraps. Raises ValueError where two networks differ.
        """
        found = {float(value) for network in networks if (value := wrapped_attribute(network, "sigma_data"))}
        if len(found) > 1:
            values = " and ".join(f"{value:g}" for value in sorted(found))
            raise ValueError(f"the networks' sigma_data differ, {values}: give the flow, TrigFlow(sigma_data)")
        return cls(*found)

    def interpolate(self, x0: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """Returns x_t = cos t · x0 + sin t · z for z ~ N(0, sigma_data²) (sCM, section 3.1)."""
        t = broadcast_time(t, x0)
        return torch.cos(t) * x0 + torch.sin(t) * z

    def velocity(self, x0: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """Returns v = dx_t/dt = cos t · z − sin t · x0 (sCM, section 3.1)."""
        t = broadcast_time(t, x0)
        return torch.cos(t) * z - torch.sin(t) * x0

    def denoise(self, x_t: Tensor, F: Tensor, t: Tensor) -> Tensor:
        """Returns x0 = cos t · x_t − sin t · sigma_data · F, a student's consistency function (sCM, equation 6)."""
        t = broadcast_time(t, x_t)
        return torch.cos(t) * x_t - torch.sin(t) * self.sigma_data * F

    def move(self, x_t: Tensor, F: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Returns x_s = cos(t − s) x_t − sin(t − s) · sigma_data · F for a flow map's F: at s = 0, ``denoise``."""
        return self.denoise(x_t, F, t - s)

    def prior(
        self,
        shape: Sequence[int],
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Returns noise z ~ N(0, sigma_data²) of a shape, from which every trajectory starts at t = π/2.

        It is drawn on the generator's device (without one on the CPU) and then moved, so that a seed gives the same
        noise on every device.
        """
        on = "cpu" if generator is None else generator.device
        return (torch.randn(tuple(shape), generator=generator, device=on, dtype=dtype) * self.sigma_data).to(device)

    def time_from_sigma(self, sigma: float) -> float:
        """Returns t = atan(sigma / sigma_data), in radians, for the noise level of x0 + sigma · n."""
        return math.atan(sigma / self.sigma_data)

    def sigma_from_time(self, t: float) -> float:
        """Returns sigma = sigma_data · tan t, the noise level at time t."""
        return self.sigma_data * math.tan(t)

"""Networks of other diffusion frameworks as TrigFlow backbones F(u, t, cond), by exact changes of variables.

A network of another framework sees data x0 and noise n ~ N(0, 1) as y = α x0 + σ n. TrigFlow mixes the same two as
x_t = cos t · x0 + sin t · z with z = σ_d n and u = x_t / σ_d, where σ_d is ``sigma_data``. Three facts give every
class of this module:

1. Both are the same noise level where σ / α = σ_d tan t. This fixes the network's time.
2. There y = (α / cos t) x_t, so that y is a multiple of u.
3. F = (dx_t/dt) / σ_d = cos t · n − sin t · x0 / σ_d, with the network's estimates of n and x0. Whatever the network
   predicts gives both estimates, because they also meet y = α x0 + σ n.

``sigma_data`` is the standard deviation of the data as the network knows them: 0.5 for EDM, 1 for latents that are
scaled to unit variance. The change of variables is exact for any value; u has unit variance for the right one. Losses
and samplers take ``TrigFlow(teacher.sigma_data)`` as their flow where none is given, so that they work on the
network's own latents.

The conversion runs in float32 or float64. Each class states where it clamps t; below, √ε is the square root of the
machine epsilon of t's type (1.5e-8 rad in float64, 3.5e-4 rad in float32), where rounding and clamping cost the same.
Beyond a clamp F depends on u alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scm_media.change_of_variables import Call, ChangeOfVariables
from scm_media.schedules import ContinuousSchedule, CosineSchedule, DiscreteSchedule, LinearSchedule, Schedule

__all__ = [
    "EDM",
    "ChangeOfVariables",
    "ContinuousSchedule",
    "CosineSchedule",
    "DiscreteSchedule",
    "EpsPrediction",
    "LinearSchedule",
    "RectifiedFlow",
    "VPrediction",
    "X0Prediction",
]


class EDM(ChangeOfVariables):
    """A network of EDM (Karras et al. 2022, arXiv 2206.00364) or EDM2 (arXiv 2312.02696): y = x0 + σ n, σ = σ_d tan t.

    By default ``network`` is the raw network F_x, which EDM's preconditioning calls with c_in y and c_noise = log(σ)/4
    (``Precond.unet`` of EDM2, ``EDMPrecond.model`` of EDM). With c_skip = cos² t, c_out = σ_d sin t and
    c_in y = cos t · y / σ_d = u (EDM, table 1), the denoiser is D = c_skip y + c_out F_x = cos t · x_t + σ_d sin t F_x.
    TrigFlow's is x0 = cos t · x_t − sin t σ_d F. Hence, with no cancellation at any t,

        F(u, t) = −F_x(u, log(σ_d tan t) / 4).

    With ``preconditioned=True`` the network is the denoiser D(y; σ) itself, called with y = x_t / cos t and σ:

        F(u, t) = (cos t · u − D / σ_d) / sin t,

    where rounding grows as 1 / sin t. sigma_data must be the network's own. t is clamped to [√ε, π/2 − √ε].
    """

    singular = (True, True)

    def __init__(
        self, network: nn.Module, sigma_data: float = 0.5, preconditioned: bool = False, call: Call | None = None
    ) -> None:
        super().__init__(network, sigma_data, call)
        own = getattr(network, "sigma_data", None)
        if own is not None and not preconditioned:
            raise ValueError(
                f"{type(network).__name__} has a sigma_data of its own, as preconditioned networks D(y; σ) do: give "
                "preconditioned=True, or the raw network inside it"
            )
        if own is not None and not math.isclose(float(own), sigma_data, rel_tol=1e-6):
            raise ValueError(f"sigma_data is {sigma_data}, but the network's own is {float(own)}: give that one")
        self.preconditioned = preconditioned

    def scale(self, t: Tensor) -> Tensor:
        """Returns 1 for the raw network, σ_d / cos t for the denoiser."""
        return self.sigma_data / torch.cos(t) if self.preconditioned else torch.ones_like(t)

    def network_time(self, t: Tensor) -> Tensor:
        """Returns log(σ) / 4 for the raw network, σ for the denoiser."""
        sigma = self.sigma_data * torch.tan(t)
        return sigma if self.preconditioned else torch.log(sigma) / 4

    def field(self, prediction: Tensor, u: Tensor, t: Tensor) -> Tensor:
        """Returns F ``(B, c, *s)``."""
        if not self.preconditioned:
            return -prediction
        return (torch.cos(t) * u - prediction / self.sigma_data) / torch.sin(t)


class _VariancePreserving(ChangeOfVariables):
    """y = cos φ · x0 + sin φ · n: TrigFlow's own path for σ_d = 1, at the angle φ with tan φ = σ_d tan t.

    From cos φ = k cos t and sin φ = k σ_d sin t follow k = (cos² t + σ_d² sin² t)^(−1/2) and y = k x_t = k σ_d u.

    schedule: one of ``scm_media.schedules``, or the tensor ``alphas_cumprod`` ``(T,)`` of a scheduler with T integer
    timesteps. t is clamped to the schedule's range of noise levels.
    """

    def __init__(
        self, network: nn.Module, schedule: Schedule | Tensor, sigma_data: float = 1.0, call: Call | None = None
    ) -> None:
        super().__init__(network, sigma_data, call)
        self.schedule: Schedule = DiscreteSchedule(schedule) if isinstance(schedule, Tensor) else schedule

    @property
    def time_range(self) -> tuple[float, float]:
        """Returns the times in radians of the schedule's least and most noise."""
        low, high = (math.atan2(math.sin(angle), self.sigma_data * math.cos(angle)) for angle in self.schedule.angles)
        return low, high

    def scale(self, t: Tensor) -> Tensor:
        """Returns k σ_d ``(B,)``."""
        return self.sigma_data * self._k(t)

    def network_time(self, t: Tensor) -> Tensor:
        """Returns the schedule's time ``(B,)``."""
        return self.schedule.time(torch.atan2(self.sigma_data * torch.sin(t), torch.cos(t)))

    def _k(self, t: Tensor) -> Tensor:
        return torch.rsqrt(torch.cos(t).square() + (self.sigma_data * torch.sin(t)).square())


class EpsPrediction(_VariancePreserving):
    """A network that predicts the noise n of y = cos φ · x0 + sin φ · n (DDPM, Stable Diffusion 1).

    The estimate of x0 is (x_t − sin t σ_d n) / cos t, so that F = cos t · n − sin t · x0 / σ_d becomes

        F(u, t) = (n − sin t · u) / cos t.

    An error of the network grows as 1 / cos t. schedule: one of this module's, or the tensor ``alphas_cumprod``
    ``(T,)`` of a scheduler with T integer timesteps. t is clamped to the schedule's range and to [0, π/2 − √ε].
    """

    singular = (False, True)

    def field(self, prediction: Tensor, u: Tensor, t: Tensor) -> Tensor:
        """Returns F ``(B, c, *s)``."""
        return (prediction - torch.sin(t) * u) / torch.cos(t)


class X0Prediction(_VariancePreserving):
    """A network that predicts the data x0 of y = cos φ · x0 + sin φ · n.

    The estimate of n is (u − cos t · x0 / σ_d) / sin t, so that F = cos t · n − sin t · x0 / σ_d becomes

        F(u, t) = (cos t · u − x0 / σ_d) / sin t.

    An error of the network grows as 1 / sin t. schedule: as for ``EpsPrediction``. t is clamped to the schedule's
    range and to [√ε, π/2].
    """

    singular = (True, False)

    def field(self, prediction: Tensor, u: Tensor, t: Tensor) -> Tensor:
        """Returns F ``(B, c, *s)``."""
        return (torch.cos(t) * u - prediction / self.sigma_data) / torch.sin(t)


class VPrediction(_VariancePreserving):
    """A network that predicts v = cos φ · n − sin φ · x0 (Salimans & Ho 2022, arXiv 2202.00512).

    The estimates are x0 = cos φ · y − sin φ · v and n = sin φ · y + cos φ · v. With cos φ = k cos t,
    sin φ = k σ_d sin t and y = k σ_d u, F = cos t · n − sin t · x0 / σ_d becomes

        F(u, t) = k v + k² (σ_d² − 1) sin t cos t · u,

    which is v itself for σ_d = 1, and finite at every t. schedule: as for ``EpsPrediction``. t is clamped to the
    schedule's range alone.
    """

    def field(self, prediction: Tensor, u: Tensor, t: Tensor) -> Tensor:
        """Returns F ``(B, c, *s)``."""
        k = self._k(t)
        return k * prediction + k.square() * ((self.sigma_data**2 - 1) * torch.sin(t) * torch.cos(t)) * u


class RectifiedFlow(ChangeOfVariables):
    """A network that predicts the velocity w = n − x0 of y = (1 − s) x0 + s n (rectified flow, flow matching).

    Source: Liu et al. 2022 (arXiv 2209.03003); Stable Diffusion 3 (arXiv 2403.03206) and FLUX are such networks.

    s / (1 − s) = σ_d tan t gives s = k σ_d sin t and 1 − s = k cos t with k = 1 / (cos t + σ_d sin t), and y = k σ_d u.
    The estimates are x0 = y − s w and n = y + (1 − s) w, so that F = cos t · n − sin t · x0 / σ_d becomes

        F(u, t) = k (w + (σ_d cos t − sin t) u),

    which is finite at every t: nothing is clamped but t to [0, π/2]. The network's time is ``time_scale`` · s (in
    diffusers 1000 for Stable Diffusion 3, 1 for FLUX).

    A shift, s' = shift · s / (1 + (shift − 1) s), chooses noise levels and leaves F as it is: σ/α is multiplied by it.
    ``rectified_flow_times`` returns shifted times for samplers; the logit-normal distribution of s with mean m,
    standard deviation d and a shift is ``LogNormalTimesteps(m + log(shift), d)``.
    """

    def __init__(
        self, network: nn.Module, sigma_data: float = 1.0, time_scale: float = 1.0, call: Call | None = None
    ) -> None:
        super().__init__(network, sigma_data, call)
        self.time_scale = time_scale

    def scale(self, t: Tensor) -> Tensor:
        """Returns k σ_d ``(B,)``."""
        return self.sigma_data * self._k(t)

    def network_time(self, t: Tensor) -> Tensor:
        """Returns time_scale · s ``(B,)``."""
        return self.time_scale * self.sigma_data * torch.sin(t) * self._k(t)

    def field(self, prediction: Tensor, u: Tensor, t: Tensor) -> Tensor:
        """Returns F ``(B, c, *s)``."""
        return self._k(t) * (prediction + (self.sigma_data * torch.cos(t) - torch.sin(t)) * u)

    def _k(self, t: Tensor) -> Tensor:
        return 1 / (torch.cos(t) + self.sigma_data * torch.sin(t))

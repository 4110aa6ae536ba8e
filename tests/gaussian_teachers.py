"""Networks of other frameworks in closed form, for Gaussian data, and the closed form of F for them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scm_media.conditioning import Conditioning
from scm_media.teachers import (
    EDM,
    ContinuousSchedule,
    CosineSchedule,
    EpsPrediction,
    LinearSchedule,
    RectifiedFlow,
    VPrediction,
    X0Prediction,
)
from scm_media.trigflow import TrigFlow, broadcast_time
from tests.oracles import Gaussian

NOTHING = Conditioning()
SHAPE = (2, 3)
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS_CUMPROD = torch.cumprod(1 - BETAS, 0)


class Posterior:
    """E[x0 | y] and E[n | y] for y = α x0 + σ n and Gaussian x0, as predictions of the networks under test."""

    def __init__(self, sigma_data: float) -> None:
        self.oracle = Gaussian.random(SHAPE)
        self.oracle.flow = TrigFlow(sigma_data)

    def __call__(self, y: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = broadcast_time(alpha, y), broadcast_time(sigma, y)
        mean, variance = self.oracle.mean, self.oracle.deviation**2
        error = (y - alpha * mean) / (alpha**2 * variance + sigma**2)
        return mean + alpha * variance * error, sigma * error

    def eps(self, path):
        return lambda y, s: self(y, *path(s))[1]

    def x0(self, path):
        return lambda y, s: self(y, *path(s))[0]

    def v(self, path):
        def network(y, s):
            x0, n = self(y, *path(s))
            alpha, sigma = (broadcast_time(each, y) for each in path(s))
            return alpha * n - sigma * x0

        return network

    def velocity(self, time_scale=1.0):
        def network(y, s):
            x0, n = self(y, 1 - s / time_scale, s / time_scale)
            return n - x0

        return network

    def denoiser(self, y, sigma):
        return self(y, torch.ones_like(sigma), sigma)[0]

    def raw_edm(self, u, c_noise):
        """(D − c_skip y) / c_out of EDM, with the terms that cancel at small sigma left out."""
        sigma, data = broadcast_time(torch.exp(4 * c_noise), u), self.oracle.flow.sigma_data
        variance, total = self.oracle.deviation**2, sigma**2 + data**2
        y = u * torch.sqrt(total)
        inner = self.oracle.mean + y * (variance - data**2) / total
        return sigma * torch.sqrt(total) / data * inner / (variance + sigma**2)


def cosine(s):
    return torch.cos(math.pi / 2 * s), torch.sin(math.pi / 2 * s)


def linear(s):
    log_alpha = -(s**2) * 19.9 / 4 - s * 0.05
    return torch.exp(log_alpha), torch.sqrt(-torch.expm1(2 * log_alpha))


def discrete(s):
    """Stable Diffusion's timesteps, between them linear in the angle."""
    angles = torch.acos(torch.sqrt(ALPHAS_CUMPROD))
    before = s.detach().floor().long().clamp(0, 998)
    angle = angles[before] + (s - before) * (angles[before + 1] - angles[before])
    return torch.cos(angle), torch.sin(angle)


OFFSET = 0.008


def improved_alpha(s):
    """The cosine with an offset of improved DDPM, up to where it is not yet zero."""
    return torch.cos(math.pi / 2 * (s + OFFSET) / (1 + OFFSET)) / math.cos(math.pi / 2 * OFFSET / (1 + OFFSET))


def improved(s):
    alpha = improved_alpha(s)
    return alpha, torch.sqrt((1 - alpha) * (1 + alpha))


SCHEDULES = {
    "cosine": (cosine, lambda: CosineSchedule()),
    "linear": (linear, lambda: LinearSchedule()),
    "functions": (improved, lambda: ContinuousSchedule(improved_alpha, lambda s: improved(s)[1], 1e-3, 0.999)),
    "discrete": (discrete, lambda: ALPHAS_CUMPROD),
}
PREDICTIONS = {"eps": EpsPrediction, "v": VPrediction, "x0": X0Prediction}
TEACHERS = ["edm", "denoiser", "rectified", "rectified 1000"]
TEACHERS += [f"{prediction} {schedule}" for prediction in PREDICTIONS for schedule in SCHEDULES]


def make(name: str, sigma_data: float = 0.5):
    """The teacher of a name, and the closed form of its F."""
    posterior = Posterior(sigma_data)
    if name == "edm":
        teacher = EDM(posterior.raw_edm, sigma_data)
    elif name == "denoiser":
        teacher = EDM(posterior.denoiser, sigma_data, preconditioned=True)
    elif name == "rectified":
        teacher = RectifiedFlow(posterior.velocity(), sigma_data)
    elif name == "rectified 1000":
        teacher = RectifiedFlow(posterior.velocity(1000.0), sigma_data, time_scale=1000.0)
    else:
        prediction, schedule = name.split()
        path, given = SCHEDULES[schedule]
        teacher = PREDICTIONS[prediction](getattr(posterior, prediction)(path), given(), sigma_data)
    return teacher, posterior.oracle


def inputs(teacher, inside: float = 0.0):
    """u and t at the ends of the teacher's range, near them (or from ``inside`` on) and between them."""
    low, high = teacher.time_range
    distances = [max(distance, inside) for distance in (0.0, 1e-6, 1e-4, 1e-3, 1e-2)]
    times = [low + each for each in distances] + [0.3, 0.8, 1.2] + [high - each for each in distances]
    t = torch.tensor(times, dtype=torch.float64)
    return torch.randn(len(t), *SHAPE, dtype=torch.float64), t

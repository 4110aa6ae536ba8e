"""Power-function averages of a network's weights, and averages of other lengths computed after training.

Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models" (EDM2,
arXiv 2312.02696), section 3 and appendix C.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

STDS = (0.05, 0.10)
"""Relative standard deviations of the averages that others are reconstructed from."""


def gamma_from_std(std: float) -> float:
    """Returns the exponent γ of the averaging profile τ^γ whose relative standard deviation is ``std``.

    It is the root γ ≥ 0 of std² = (γ + 1) / ((γ + 2)² (γ + 3)). Raises ValueError for std outside (0, 1/√12 ≈ 0.289],
    where 1/√12 is uniform averaging.
    """
    if not 0 < std <= 12**-0.5:
        raise ValueError(f"ema_std must lie in (0, {12**-0.5:.3f}], got {std}: 0.05 to 0.1 are usual")
    low, high = 0.0, 1 / std
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        wider = (middle + 1) / ((middle + 2) ** 2 * (middle + 3)) > std**2
        low, high = (middle, high) if wider else (low, middle)
    return low


class PowerEMA:
    """The average of a module's parameters with weights τ^γ over the steps τ so far; buffers are copied as they are.

    std: the standard deviation of the averaging profile as a fraction of the training so far. Parameters are averaged
    in float32 whatever the module's dtype. ``averaged`` is a state dict that the module takes, ``parameters`` the names
    in it that are averaged. ``step`` is the step of the last update: 0 at first, None when it is not known.
    """

    def __init__(self, module: nn.Module, std: float = 0.05) -> None:
        self.module = module
        self.std = std
        self.gamma = gamma_from_std(std)
        self.step: int | None = 0
        self.parameters = frozenset(name for name, _ in module.named_parameters(remove_duplicate=False))
        self.averaged: dict[str, Tensor] = {
            name: value.detach().to(torch.float32, copy=True) if name in self.parameters else value.detach().clone()
            for name, value in module.state_dict().items()
        }

    @torch.no_grad()
    def update(self, step: int | None = None) -> None:
        """Takes the module's weights in after optimiser step ``step``, counted from 1, with β = (1 − 1/step)^(γ+1).

        Without a step it is the one after the last update. Raises ValueError for a step below 1, and for none after
        averages were loaded without theirs.
        """
        if step is None:
            if self.step is None:
                raise ValueError(
                    "the step of the loaded averages is not known: update(step), or load_state_dict(state, step)"
                )
            step = self.step + 1
        if step < 1:
            raise ValueError(f"step counts from 1, got {step}")
        self.step = step
        beta = (1 - 1 / step) ** (self.gamma + 1)
        own = self.module.state_dict()
        averages = [self.averaged[name] for name in own if name in self.parameters]
        if averages:  # in a few kernels for all of them, where the device can
            wide = [value.to(torch.float32) for name, value in own.items() if name in self.parameters]
            torch._foreach_lerp_(averages, wide, 1 - beta)
        for name, value in own.items():
            if name not in self.parameters:
                self.averaged[name].copy_(value)

    def copy_to(self, module: Module) -> Module:
        """Gives a module of the same shape the averaged weights, in its own dtype, and returns it."""
        module.load_state_dict(self.averaged)
        return module

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Gives the module its averaged weights while its block runs, and then its own back, bit for bit."""
        own = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        self.copy_to(self.module)
        try:
            yield
        finally:
            with torch.no_grad():  # not load_state_dict, which would bring rows to unit length once more
                for name, value in self.module.state_dict().items():
                    value.copy_(own[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the averaged weights: with the number of the step, all that must be saved to go on bit for bit."""
        return dict(self.averaged)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor], step: int | None = None) -> None:
        """Takes saved averages back, and the step that they were saved at where ``update`` is to count by itself.

        Raises ValueError that lists missing and unexpected names.
        """
        missing, unexpected = self.averaged.keys() - state.keys(), state.keys() - self.averaged.keys()
        if missing or unexpected:
            raise ValueError(f"averaged weights do not fit: missing {sorted(missing)}, unexpected {sorted(unexpected)}")
        for name, value in self.averaged.items():
            value.copy_(state[name])
        self.step = step


def reconstruct(
    snapshots: Sequence[tuple[float, int, Mapping[str, Tensor]]], std: float, step: int
) -> dict[str, Tensor]:
    """Returns the average with relative standard deviation ``std`` at ``step`` from snapshots of other averages.

    snapshots: (std, step, averaged) of each. The result is the linear combination whose profile is nearest to the
    wanted one (EDM2, section 3.2 and appendix C). Values that are not floating point come from the last snapshot.
    """
    factors = combination([(entry[0], entry[1]) for entry in snapshots], std, step)
    result = dict(snapshots[-1][2])
    for name, value in result.items():
        if value.is_floating_point():
            terms = (factor * state[name].double() for factor, (_, _, state) in zip(factors, snapshots, strict=True))
            result[name] = sum(terms, torch.zeros_like(value, dtype=torch.float64)).to(value.dtype)
    return result


def combination(snapshots: Sequence[tuple[float, int]], std: float, step: int) -> list[float]:
    """Returns the factors of snapshots (std, step) whose sum is nearest to the average of ``std`` at ``step``.

    The factors sum to 1, so that weights keep their magnitude even where the snapshots lack the beginning of the wanted
    profile. Raises ValueError when there are no snapshots. Source: as for ``reconstruct``.
    """
    if not snapshots:
        raise ValueError("no snapshots to reconstruct an average from: train with trainer.snapshot_every=STEPS first")
    gammas = torch.tensor([gamma_from_std(entry[0]) for entry in snapshots], dtype=torch.float64)
    ends = torch.tensor([entry[1] / step for entry in snapshots], dtype=torch.float64)
    gram = _overlap(gammas[:, None], ends[:, None], gammas, ends)
    wanted = _overlap(
        gammas, ends, torch.tensor(gamma_from_std(std), dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    )
    # Least squares with a Lagrange multiplier: the last row sets the sum to 1.
    ones = torch.ones_like(wanted)
    system = torch.cat([torch.cat([gram, ones[:, None]], 1), torch.cat([ones, torch.zeros(1)])[None]])
    solution = torch.linalg.lstsq(system, torch.cat([wanted, ones[:1]])[:, None], driver="gelsd").solution
    return solution[:-1, 0].tolist()


def _overlap(gamma: Tensor, end: Tensor, other_gamma: Tensor, other_end: Tensor) -> Tensor:
    """Returns ∫ p q dτ of two profiles p = (γ + 1) τ^γ / end^(γ + 1) on [0, end]."""
    ratio = end / other_end
    shared = torch.where(ratio < 1, ratio**other_gamma / other_end, ratio**-gamma / end)
    return (gamma + 1) * (other_gamma + 1) / (gamma + other_gamma + 1) * shared

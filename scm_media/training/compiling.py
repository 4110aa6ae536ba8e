"""Compiles a backbone and checks that value and tangent of the compiled network are right."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from scm_media.compiler import compiler_errors
from scm_media.conditioning import Conditioning
from scm_media.nn.text import random_text
from scm_media.tangent import TangentMethod, value_and_tangent

TOLERANCES = {"32-true": 1e-3, "bf16-mixed": 6e-2}
"""The largest relative error of a compiled network's value and tangent, by precision."""


def compile_backbone(
    backbone: nn.Module,
    latent_shape: Sequence[int],
    num_classes: Mapping[str, int],
    precision: str,
    method: TangentMethod | None = "one_pass",
    device: torch.device | str = "cpu",
    num_cond_channels: int = 0,
) -> None:
    """Compiles a backbone in place and checks its value and tangent against float64 and finite differences.

    precision: Fabric's name of the precision that is trained in. method: how tangents are computed, None for a frozen
    network, whose value alone is used and checked. device: where it is trained. num_cond_channels: channels of
    ``Conditioning.concat``. A backbone with text gets random embeddings.

    Compilers have dropped forward-mode rules silently, so a compiled network whose tangent is wrong is refused before
    it costs a training. Raises ValueError for it, and where there is no compiler.
    """
    # What was compiled before counts against the compiler's limits, and makes it try shapes of any size, which fails
    # for the tangents of U-Nets: each network begins anew, and is compiled for the shapes that it gets.
    torch.compiler.reset()
    # A fresh network is zero, and a wrong tangent would not show: the check perturbs a copy.
    candidate = copy.deepcopy(backbone).eval().float()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in candidate.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).to(parameter.device))
    exact = copy.deepcopy(candidate).to("cpu", torch.float64)
    device = torch.device(device)
    candidate.to(device).compile(dynamic=False)
    num = 4
    u, du = (torch.randn(num, *latent_shape, generator=generator) for _ in range(2))
    t, dt = torch.linspace(0.2, 1.4, num), torch.linspace(0.5, 1.0, num)
    labels = {
        name: torch.randint(classes, (num,), generator=generator) if classes else torch.rand(num, generator=generator)
        for name, classes in num_classes.items()
    }
    concat = torch.randn(num, num_cond_channels, *latent_shape[1:], generator=generator) if num_cond_channels else None
    target = None if getattr(backbone, "target", None) is None else 0.5 * t
    cond = replace(random_text(backbone, num), labels=labels, concat=concat, target=target)
    wide = replace(
        cond,
        labels={n: v.double() if v.is_floating_point() else v for n, v in labels.items()},
        concat=None if concat is None else concat.double(),
        target=None if target is None else target.double(),
    )

    def compute(network: nn.Module, how: TangentMethod, cond: Conditioning, *given: Tensor) -> dict[str, Tensor]:
        u, t, du, dt = given
        if method is None:
            with torch.no_grad():
                return {"value": network(u, t, cond)}
        dual = value_and_tangent(network, u, t, cond, du, dt, how)
        return {"value": dual.value, "tangent": dual.tangent}

    given = (u, t, du, dt)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision.startswith("bf16")), compiler_errors():
        found = compute(candidate, method or "one_pass", cond.to(device), *(each.to(device) for each in given))
    reference = compute(exact, "finite_difference", wide, *(each.double() for each in given))
    tolerance = TOLERANCES[precision]
    for name, got in found.items():
        got, expected = got.detach().to("cpu", torch.float64), reference[name].detach()
        error = ((got - expected).norm() / expected.norm()).item()
        if not error < tolerance:
            raise ValueError(
                f"trainer.compile: the compiled {name} differs from float64 finite differences by {error:.2g} "
                f"(relative; below {tolerance} expected): set trainer.compile=false with this version of torch"
            )
    backbone.compile(dynamic=False)

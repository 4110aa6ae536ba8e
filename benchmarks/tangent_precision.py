"""Measures the error of bf16 in a student's tangent g, by time, and how far computing a part in float32 helps.

    python benchmarks/tangent_precision.py [MODEL] [--num 64] [--batch 256] [--below 0.3]

The student draws latents x0 and learns from its guided teacher at r = 1, as in training. The first table holds the
relative error of g before it is normalised, against float64, where the named parts are computed in float32 and the
rest under bf16 autocast (sums and differences are in float32 in any case). The second holds the relative error and the
cosine of the loss's gradient against float32, for a batch at the recipe's training times. Nothing is trained.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import yaml
from distilled import draw_conditioning, guided_teacher, load_without_actions
from torch import Tensor, nn

from scm_media.build import build
from scm_media.conditioning import Conditioning
from scm_media.losses import ConsistencyLoss
from scm_media.pipeline import Pipeline, SamplingRequest
from scm_media.pipeline.randomness import sample_noise
from scm_media.tangent import value_and_tangent
from scm_media.trigflow import broadcast_time

TIMES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.1, 1.4)
PARTS = ("teacher", "value", "tangent")
VARIANTS: dict[str, frozenset[str]] = {
    "all bf16": frozenset(),
    "teacher": frozenset(["teacher"]),
    "value": frozenset(["value"]),
    "tangent": frozenset(["tangent"]),
    "teacher, value": frozenset(["teacher", "value"]),
    "value, tangent": frozenset(["value", "tangent"]),
    "last layers": frozenset(["last"]),
    "all float32": frozenset(PARTS),
}
"""Columns of the first table: the parts that are computed in float32."""


@dataclass(frozen=True)
class Networks:
    """A student and its guided teacher, each with the conditioning that it is given."""

    student: nn.Module
    teacher: nn.Module
    student_cond: Conditioning
    teacher_cond: Conditioning
    loss: ConsistencyLoss

    def double(self) -> Networks:
        """Returns copies in float64."""

        def widen(cond: Conditioning) -> Conditioning:
            return cond._map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)

        student, teacher = (copy.deepcopy(network).double() for network in (self.student, self.teacher))
        return replace(
            self,
            student=student,
            teacher=teacher,
            student_cond=widen(self.student_cond),
            teacher_cond=widen(self.teacher_cond),
        )

    def __getitem__(self, some: Tensor) -> Networks:
        """Returns the same networks with the conditioning of some samples."""
        return replace(self, student_cond=self.student_cond[some], teacher_cond=self.teacher_cond[some])


def main() -> None:
    """Prints both tables as Markdown."""
    commands = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands.add_argument("model", nargs="?", default="image/fashion")
    commands.add_argument("--num", type=int, default=64, help="samples at each time of the first table")
    commands.add_argument("--batch", type=int, default=256, help="samples of the second table")
    commands.add_argument("--below", type=float, default=0.3, help="times that one row of the second has in float32")
    asked = commands.parse_args()
    pipeline = load_without_actions(asked.model)
    x0, networks = draw_latents(pipeline, max(asked.num, asked.batch))
    some = torch.arange(asked.num)
    print(f"| t | {' | '.join(VARIANTS)} |\n|---:|{'---:|' * len(VARIANTS)}")
    for time in TIMES:
        found = errors(networks[some], x0[some], time)
        print(f"| {time:g} | {' | '.join(f'{100 * error:.2g} %' for error in found.values())} |")
    recipe = yaml.safe_load((pipeline.folder.path / "recipe.yaml").read_text())
    timesteps = build(recipe["student"]["loss"]["timesteps"])
    torch.manual_seed(0)
    t = timesteps.sample(asked.batch, pipeline.flow.sigma_data)
    fraction = (t < asked.below).double().mean().item()
    print(f"\n{100 * fraction:.0f} % of {asked.batch} training times lie below {asked.below:g}.\n")
    print("| in float32 | relative error of the gradient | cosine |\n|---|---:|---:|")
    rows = gradient_errors(networks[torch.arange(asked.batch)], x0[: asked.batch], t, asked.below)
    for name, (error, cosine) in rows.items():
        print(f"| {name} | {100 * error:.2g} % | {cosine:.5f} |")


@torch.no_grad()
def draw_latents(pipeline: Pipeline, num: int) -> tuple[Tensor, Networks]:
    """Returns latents ``(num, c, *s)`` that the student draws, and the networks with their conditioning."""
    flow, indices = pipeline.flow, range(num)
    teacher, student = guided_teacher(pipeline), pipeline.network("student")
    cond, student_cond = draw_conditioning(pipeline, indices)
    sample = pipeline.method(SamplingRequest()).sampler

    def noise(step: int) -> Tensor:
        return sample_noise(0, indices, step, pipeline.latent_shape()) * flow.sigma_data

    x0 = sample(student, flow, noise, cond=student_cond)
    student = copy.deepcopy(student).requires_grad_(True)
    return x0, Networks(student, teacher, student_cond, cond, ConsistencyLoss(student, flow, teacher=teacher))


def errors(networks: Networks, x0: Tensor, time: float) -> dict[str, float]:
    """Returns the relative error of g at a time in radians, by variant."""
    torch.manual_seed(0)
    z, t = torch.randn_like(x0) * networks.loss.flow.sigma_data, torch.full((len(x0),), time)
    with torch.no_grad():
        exact = tangent(networks.double(), x0.double(), z.double(), t.double(), frozenset(PARTS))[1]
        found = {name: tangent(networks, x0, z, t, wide)[1] for name, wide in VARIANTS.items()}
    return {name: ((g.double() - exact).norm() / exact.norm()).item() for name, g in found.items()}


def tangent(networks: Networks, x0: Tensor, z: Tensor, t: Tensor, wide: frozenset[str]) -> tuple[Tensor, Tensor]:
    """Returns F ``(B, c, *s)`` with its graph and g without; wide: the parts in float32."""
    flow, loss = networks.loss.flow, networks.loss
    x_t, cos_sin = flow.interpolate(x0, z, t), torch.cos(t) * torch.sin(t)
    u = x_t / flow.sigma_data
    with _precision("teacher" in wide), torch.no_grad():
        dxdt = flow.sigma_data * networks.teacher(u, t, networks.teacher_cond).to(x_t.dtype)
    du = broadcast_time(cos_sin, x_t) * dxdt / flow.sigma_data
    pairs = {}
    with _last_layers(networks.student, "last" in wide):
        for part in ("value", "tangent"):
            key = part in wide
            if key not in pairs:
                with _precision(key):
                    pairs[key] = value_and_tangent(networks.student, u, t, networks.student_cond, du, cos_sin)
    F, dF = pairs["value" in wide].value, pairs["tangent" in wide].tangent
    return F, loss.unnormalized_tangent(x_t, dxdt, F.detach(), dF, t, 1.0)


def gradient_errors(networks: Networks, x0: Tensor, t: Tensor, below: float) -> dict[str, tuple[float, float]]:
    """Returns the relative error and the cosine of the loss's gradient, by what is computed in float32.

    The last row holds those of float32 with other noise: the variation of a step's gradient.
    """
    narrow, everything, every = frozenset[str](), frozenset(PARTS), torch.arange(len(t))
    low, high = (t < below).nonzero()[:, 0], (t >= below).nonzero()[:, 0]

    def gradient(parts: Sequence[tuple[Tensor, frozenset[str], frozenset[str]]], seed: int = 1) -> Tensor:
        """parts: indices of samples, the parts in float32 for g, and those for F with its graph."""
        networks.student.zero_grad()
        torch.manual_seed(seed)
        z = torch.randn_like(x0) * networks.loss.flow.sigma_data
        for some, in_g, in_F in parts:
            if len(some) == 0:
                continue
            F, g = tangent(networks[some], x0[some], z[some], t[some], in_g)
            if in_F != in_g:
                F, _ = tangent(networks[some], x0[some], z[some], t[some], in_F)
            # The loss's gradient is that of −2 F · g, g normalised, since F and F⁻ are one value.
            (-2 * F.float() * networks.loss.normalize(g, None).float()).sum().backward()
        return torch.cat([p.grad.double().flatten() for p in networks.student.parameters() if p.grad is not None])

    exact = gradient([(every, everything, everything)])
    rows = {
        "nothing": gradient([(every, narrow, narrow)]),
        f"samples at t < {below:g}": gradient([(low, everything, everything), (high, narrow, narrow)]),
        "teacher": gradient([(every, frozenset(["teacher"]), narrow)]),
        "g of all samples": gradient([(every, everything, narrow)]),
        "everything, other noise": gradient([(every, everything, everything)], seed=2),
    }
    return {
        name: (((row - exact).norm() / exact.norm()).item(), torch.cosine_similarity(row, exact, dim=0).item())
        for name, row in rows.items()
    }


def _precision(wide: bool) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=not wide)


@contextmanager
def _last_layers(student: nn.Module, wide: bool) -> Iterator[None]:
    """Computes a transformer's layers after its last block without autocast."""
    layers = (
        [student.out_norm, student.patch_out, *([student.gate] if student.gate is not None else [])] if wide else []
    )
    originals = [layer.forward for layer in layers]

    def outside(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*arguments: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return forward(*arguments)

        return run

    for layer, original in zip(layers, originals, strict=True):
        layer.forward = outside(original)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


if __name__ == "__main__":
    main()

"""The whole method on points of the plane: a diffusion teacher, and a consistency student of one and two steps.

    python examples/scm_in_one_file.py

Needs PyTorch and einops alone, and about a minute on one core. The data are two moons. The script trains a teacher,
distils it into a student, samples from both and prints how far their samples are from the data.

Notation (Lu & Song 2024, arXiv 2410.11081): data x0 and noise z have the standard deviation σ_d = 0.5. The path is
x_t = cos t · x0 + sin t · z, with t = 0 at the data and t = π/2 at the noise. A network F(u, t) sees u = x_t / σ_d.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import scm_media as scm


def two_moons(num: int) -> Tensor:
    """Returns points ``(num, 2)`` of two noisy half circles, with mean 0 and standard deviation 0.5 on each axis."""
    angle = math.pi * torch.rand(num)
    side = 2.0 * torch.randint(2, (num,)) - 1  # +1: the upper moon, −1: the lower one, half turned and moved
    points = torch.stack([side * angle.cos() - side / 2, side * angle.sin() - side / 4], dim=1)
    points = points + 0.08 * torch.randn(num, 2)
    return 0.5 * points / torch.tensor([0.870, 0.5005])


class Network(nn.Module):
    """F(u, t, cond) ``(B, 2)``: a perceptron of u and of a few sinusoids of t, in PyTorch's own layers.

    The frequencies of t stay low: the student learns from dF/dt, which high frequencies would blow up.
    """

    def __init__(self, width: int = 128, depth: int = 4, num_frequencies: int = 4) -> None:
        super().__init__()
        self.frequencies = nn.Buffer(0.5 * 2.0 ** torch.arange(num_frequencies))
        self.first = nn.Linear(2 + 2 * num_frequencies, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, 2)
        nn.init.zeros_(self.last.weight)

    def forward(self, u: Tensor, t: Tensor, cond: scm.Conditioning) -> Tensor:
        """Returns F for u ``(B, 2)`` and t ``(B,)`` in radians; these data have no labels, so cond is not used."""
        angles = t[:, None] * self.frequencies
        x = self.first(torch.cat([u, angles.cos(), angles.sin()], dim=1))
        for block in self.blocks:
            x = x + block(nn.functional.silu(x))
        return self.last(nn.functional.silu(x))


def train(loss: nn.Module, num_steps: int, rate: float, batch_size: int) -> nn.Module:
    """Trains the loss's network and returns a copy of it with averaged weights."""
    optimizer = torch.optim.RAdam(loss.parameters(), lr=rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    ema = scm.PowerEMA(loss.backbone, std=0.1)
    for step in range(num_steps):
        value, _ = loss(two_moons(batch_size), step=step)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        ema.update()
    return ema.copy_to(copy.deepcopy(loss.backbone))


def train_teacher(num_steps: int, batch_size: int) -> nn.Module:
    """Trains a network to predict the mean velocity of the path, F ≈ (cos t · z − sin t · x0) / σ_d."""
    return train(scm.DiffusionLoss(Network()), num_steps, rate=3e-3, batch_size=batch_size)


def distil(teacher: nn.Module, num_steps: int, batch_size: int) -> nn.Module:
    """Trains a copy of the teacher to map every point of a trajectory to its end at t = 0.

    The defaults of the loss are made for images and sounds. A point has two coordinates alone, whose mean square varies
    much from sample to sample, so that the normalisation of the tangent gets a large constant.
    """
    student = copy.deepcopy(teacher)
    loss = scm.ConsistencyLoss(
        student,
        timesteps=scm.LogNormalTimesteps(mean=-0.5, std=2.0, stratified=True),
        teacher=teacher,
        norm_constant=1.0,
        tangent_warmup=num_steps // 8,
        tangent_method="forward",  # works for layers of any kind
    )
    return train(loss, num_steps, rate=1e-3, batch_size=batch_size)


def sliced_wasserstein(samples: Tensor, num_directions: int = 64) -> float:
    """Returns the mean distance between sorted projections of samples and of as many fresh points of the data."""
    angles = torch.arange(num_directions) * (math.pi / num_directions)
    directions = torch.stack([angles.cos(), angles.sin()])
    projected, reference = (points @ directions for points in (samples, two_moons(len(samples))))
    return (projected.sort(0).values - reference.sort(0).values).abs().mean().item()


def fraction_of_strays(samples: Tensor, radius: float = 0.1) -> float:
    """Returns the fraction of samples that have no point of the data within a radius."""
    nearest = torch.cdist(samples, two_moons(4000)).min(dim=1).values
    return (nearest > radius).float().mean().item()


@dataclass(frozen=True)
class Row:
    """Samples ``(N, 2)`` of one kind, their network evaluations, and how far they are from the data."""

    name: str
    evaluations: int
    samples: Tensor
    distance: float
    strays: float


def compare(teacher: nn.Module, student: nn.Module, num: int) -> list[Row]:
    """Samples in every way that the table has a row for, always from the same noise."""
    shape, seed = (num, 2), 0
    samples = {
        ("fresh data", 0): two_moons(num),
        ("noise", 0): scm.TrigFlow().prior(shape, torch.Generator().manual_seed(seed)),
        ("teacher, 32 Heun steps", 63): scm.sample_heun(teacher, shape=shape, steps=32, seed=seed),
        ("teacher, 1 step", 1): scm.sample_consistency(teacher, shape=shape, steps=1, seed=seed),
        ("student, 1 step", 1): scm.sample_consistency(student, shape=shape, steps=1, seed=seed),
        ("student, 2 steps", 2): scm.sample_consistency(student, shape=shape, steps=2, seed=seed),
    }
    return [Row(*key, x0, sliced_wasserstein(x0), fraction_of_strays(x0)) for key, x0 in samples.items()]


def run(teacher_steps: int, student_steps: int, batch_size: int, num: int) -> list[Row]:
    """Trains teacher and student from a fixed seed and returns the rows of the table."""
    torch.manual_seed(0)
    teacher = train_teacher(teacher_steps, batch_size)
    return compare(teacher, distil(teacher, student_steps, batch_size), num)


def main() -> None:
    """Parses the command line, trains, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher-steps", type=int, default=3000)
    parser.add_argument("--student-steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("-n", "--num", type=int, default=20_000, help="samples a row")
    options = parser.parse_args()

    begun = time.perf_counter()
    rows = run(options.teacher_steps, options.student_steps, options.batch_size, options.num)
    print(f"{'samples':<24}{'evaluations':>12}{'distance':>10}{'strays':>10}")
    for row in rows:
        print(f"{row.name:<24}{row.evaluations:>12}{row.distance:>10.4f}{100 * row.strays:>8.1f} %")
    print("distance: sliced Wasserstein distance to fresh data; strays: samples with no point of the data near them")
    print(f"{time.perf_counter() - begun:.0f} s in all")


if __name__ == "__main__":
    main()

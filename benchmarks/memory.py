"""Counts the memory of distilling networks of diffusers, whole and as a LoRA; prints a table.

    PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/memory.py             # small networks, counted and measured
    PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/memory.py --plan      # a video transformer of 1.3 billion, counted

Counted: the most bytes of tensors alive in a step of a batch, on the device "meta" (``scm_media.evaluation.memory``),
with Adam's averages and the average of the weights. Measured: how much the peak of a process's resident memory grows
by such steps on a CPU, in a process of its own.
"""

from __future__ import annotations

import argparse
import copy
import os
import resource
import subprocess
import sys
from typing import Any

import torch

from scm_media import PowerEMA
from scm_media.adapters import LoRA, LoRAStudent, change_of_variables
from scm_media.adapters.checkpointing import enable_checkpointing
from scm_media.adapters.examples import random_conditioning
from scm_media.distribution_matching import DistributionMatchingLoss
from scm_media.evaluation.memory import count_training_memory, fused_attention
from scm_media.losses import ConsistencyLoss, RegressionLoss
from scm_media.trajectories import Trajectory

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
SMALL: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "SD3Transformer2DModel": (
        {
            "sample_size": 32,
            "num_layers": 8,
            "attention_head_dim": 64,
            "num_attention_heads": 8,
            "joint_attention_dim": 256,
            "caption_projection_dim": 512,
            "pooled_projection_dim": 256,
        },
        (16, 32, 32),
    ),
    "WanTransformer3DModel": (
        {
            "num_attention_heads": 8,
            "attention_head_dim": 64,
            "text_dim": 256,
            "ffn_dim": 2048,
            "num_layers": 10,
        },
        (16, 3, 16, 16),
    ),
}
"""Networks of about 50 million parameters and the shape of their latents."""
LARGE = (
    "WanTransformer3DModel",
    {
        "num_attention_heads": 12,
        "attention_head_dim": 128,
        "text_dim": 4096,
        "ffn_dim": 8960,
        "num_layers": 30,
        "cross_attn_norm": True,
    },
    (16, 21, 60, 104),
)
"""The configuration of Wan 2.1 with 1.3 billion parameters, and the latents of 81 frames of 480 × 832 pixels."""
LOSSES = {"regression": RegressionLoss, "matching": DistributionMatchingLoss, "sCD": ConsistencyLoss}


def set_up(name: str, config: dict[str, Any], lora: bool, objective: str, dtype: torch.dtype) -> tuple[Any, list[Any]]:
    """Returns the loss of a student, and the networks that are frozen beside it."""
    import diffusers

    network = getattr(diffusers, name)(**config).to(dtype)
    teacher: Any = change_of_variables(network, FLOW).eval().requires_grad_(False)
    if lora:
        student: Any = LoRAStudent(teacher, LoRA(rank=16))
        return LOSSES[objective](student, teacher=student.teacher), [student.base]
    student = copy.deepcopy(teacher).requires_grad_(True).train()
    return LOSSES[objective](student, teacher=teacher), [teacher]


def make_arguments(
    name: str, config: dict[str, Any], shape: tuple[int, ...], objective: str, size: int
) -> tuple[Any, ...]:
    """Returns what a loss is called with for a batch of random latents."""
    import diffusers

    with torch.device("meta"):
        whole = getattr(diffusers, name)(**config).config
    cond, x0 = random_conditioning(name, whole, size), torch.randn(size, *shape)
    points = x0 if objective == "sCD" else Trajectory(torch.randn(size, *shape), torch.full((size,), 1.0), x0)
    return points, cond, torch.tensor(1000.0)


def count(name: str, config: dict[str, Any], shape: tuple[int, ...], lora: bool, objective: str, **more: Any) -> float:
    """Returns the counted MiB of a step; more: the batch size, the dtype of the weights, checkpointing."""
    size, dtype = more.get("size", 2), more.get("dtype", torch.float32)
    with torch.device("meta"):
        loss, frozen = set_up(name, config, lora, objective, dtype)
        if more.get("checkpointing"):
            for each in (loss.backbone, getattr(loss, "auxiliary", loss.backbone)):
                enable_checkpointing(each)
        arguments = make_arguments(name, config, shape, objective, size)
        return count_training_memory(loss, arguments, frozen) / 2**20


def measure(name: str, lora: bool, objective: str) -> float:
    """Returns the MiB that the peak of resident memory grows by, in a process of its own."""
    words = [sys.executable, __file__, "--measure", name, "lora" if lora else "whole", objective]
    lean = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    found = subprocess.run(words, env={**os.environ, **lean}, capture_output=True, text=True, check=True)
    return float(found.stdout.split()[-1])


def measure_here(name: str, lora: bool, objective: str) -> None:
    """Prints the MiB that the peak of this process's resident memory grows by in three steps."""
    config, shape = SMALL[name]
    torch.set_num_threads(1)
    torch.randn(64, 64).mm(torch.randn(64, 64))
    arguments = make_arguments(name, config, shape, objective, 2)
    before = _resident()
    loss, frozen = set_up(name, config, lora, objective, torch.float32)
    optimizer = torch.optim.AdamW([each for each in loss.parameters() if each.requires_grad], foreach=False)
    ema = PowerEMA(loss.backbone)
    for _ in range(3):
        loss(*arguments)[0].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.update()
    del frozen  # kept until here, as a training keeps its teacher
    print((_peak() - before) / 2**20)


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def print_small() -> None:
    """Prints counted and measured memory of the small networks."""
    print("| class | student | loss | counted, MiB | measured, MiB | error |")
    print("|---|---|---|---:|---:|---:|")
    for name, (config, shape) in SMALL.items():
        for lora in (False, True):
            for objective in LOSSES:
                counted, measured = count(name, config, shape, lora, objective), measure(name, lora, objective)
                student = "LoRA" if lora else "whole"
                error = f"{100 * (counted / measured - 1):+.0f} %"
                print(f"| {name} | {student} | {objective} | {counted:.0f} | {measured:.0f} | {error} |", flush=True)


def print_plan() -> None:
    """Prints the counted memory of the large network, for one clip a step, weights in bfloat16, fused attention."""
    print("| student | loss | checkpointing | counted, GiB |")
    print("|---|---|---|---:|")
    for lora in (False, True):
        for objective in LOSSES:
            for checkpointing in (False, True):
                more = {"size": 1, "dtype": torch.bfloat16, "checkpointing": checkpointing}
                with fused_attention():
                    found = count(*LARGE, lora, objective, **more) / 1024
                said = "yes" if checkpointing else "no"
                print(f"| {'LoRA' if lora else 'whole'} | {objective} | {said} | {found:.1f} |", flush=True)


def main() -> None:
    """Prints a table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--plan", action="store_true")
    arguments.add_argument("--measure", nargs=3, metavar=("CLASS", "STUDENT", "LOSS"))
    given = arguments.parse_args()
    if given.measure:
        measure_here(given.measure[0], given.measure[1] == "lora", given.measure[2])
    elif given.plan:
        print_plan()
    else:
        print_small()


if __name__ == "__main__":
    main()

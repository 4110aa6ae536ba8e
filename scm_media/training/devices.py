"""Devices of a training: which are allowed, how they are launched, and what one of them does for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from scm_media.build import build
from scm_media.training.sharding import sharding_strategy

SLOWER = 1.5
"""A product of matrices that takes this many times longer in bfloat16 than in float32 is worth a word."""


def check_device(config: Mapping[str, Any]) -> None:
    """Raises ValueError for a device that is not available."""
    device = config["device"]
    available: Mapping[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if device in available and not available[device]():
        raise ValueError(f"device={device}: there is none that this installation of torch can use; set device=cpu")


def training_device(config: Mapping[str, Any]) -> torch.device:
    """Returns the device that training will run on."""
    on_cuda = config["device"] in ("auto", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if on_cuda else "cpu")


def precision_advice(config: Mapping[str, Any], seconds: Callable[[torch.dtype], float] | None = None) -> str | None:
    """Returns a sentence where a recipe asks for bfloat16 on a processor that is slower in it, else None.

    seconds: measures a product of matrices in a type, None for this processor's.
    """
    if config["precision"] != "bf16-mixed" or training_device(config).type != "cpu":
        return None
    measure = seconds or _product_seconds
    ratio = measure(torch.bfloat16) / measure(torch.float32)
    if ratio < SLOWER:
        return None
    return (
        f"this processor multiplies matrices {ratio:.0f} times slower in bfloat16 (precision=bf16-mixed) than in "
        "float32: precision=32-true trains the same model faster here"
    )


def _product_seconds(dtype: torch.dtype) -> float:
    """Returns the shortest of four times of a product of two matrices of 512 × 512."""
    matrix, times = torch.ones(512, 512, dtype=dtype), []
    for _ in range(4):
        begun = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - begun)
    return min(times)


def launch_fabric(
    config: Mapping[str, Any], folder: Path | None, precision: str | None = None, shardable: bool = True
) -> Any:
    """Returns a launched Fabric for the recipe's devices.

    folder: where the recipe's logger writes, None for no logger. precision: None for the recipe's. shardable: false for
    a training whose networks ``strategy=fsdp`` leaves whole; its gradients are averaged as by ``ddp``.
    """
    from scm_media.fabric import Fabric

    loggers = []
    if config["logger"] and folder is not None:
        extra = {} if "root_dir" in config["logger"] else {"root_dir": str(folder), "name": "", "version": ""}
        loggers.append(build(config["logger"], "logger", **extra))
    fabric_precision: Any = precision or config["precision"]
    strategy, devices = config["strategy"], config["num_devices"] * config["num_nodes"]
    if strategy == "fsdp":
        narrow = fabric_precision == "bf16-mixed"
        strategy = sharding_strategy(devices, config["context_parallel"], narrow) if shardable else "ddp"
    fabric = Fabric(
        accelerator=config["device"],
        devices=config["num_devices"],
        num_nodes=config["num_nodes"],
        strategy=strategy,
        precision=fabric_precision,
        loggers=loggers,
    )
    fabric.launch()
    return fabric


def rank_zero_only(fabric: Any, act: Callable[[], object]) -> None:
    """Calls a function on rank 0 while the other ranks wait for it.

    Its error is raised on every rank, as RuntimeError on the others, which would otherwise wait forever for a rank
    that has ended. (Reports and sheets are written by rank 0 alone, between steps: an error there ends its process,
    and ``watch`` then ends the others.)
    """
    error = None
    if fabric.global_rank == 0:
        try:
            act()
        except Exception as caught:  # any kind: it is raised again below, when the others know
            error = caught
    reason = fabric.broadcast(None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    if reason is not None:
        raise RuntimeError(f"the first device stopped ({reason}), so this one does")

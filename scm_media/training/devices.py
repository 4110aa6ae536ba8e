"""Devices of a training: which are allowed, how they are launched, and what one of them does for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from scm_media.build import build


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


def launch_fabric(config: Mapping[str, Any], folder: Path | None, precision: str | None = None) -> Any:
    """Returns a launched Fabric for the recipe's devices.

    folder: where the recipe's logger writes, None for no logger. precision: None for the recipe's.
    """
    from lightning.fabric import Fabric

    loggers = []
    if config["logger"] and folder is not None:
        extra = {} if "root_dir" in config["logger"] else {"root_dir": str(folder), "name": "", "version": ""}
        loggers.append(build(config["logger"], "logger", **extra))
    fabric_precision: Any = precision or config["precision"]
    fabric = Fabric(
        accelerator=config["device"],
        devices=config["num_devices"],
        num_nodes=config["num_nodes"],
        strategy=config["strategy"],
        precision=fabric_precision,
        loggers=loggers,
    )
    fabric.launch()
    return fabric


def rank_zero_only(fabric: Any, act: Callable[[], object]) -> None:
    """Calls a function on rank 0 while the other ranks wait for it.

    Its error is raised on every rank, as RuntimeError on the others, which would otherwise wait forever for a rank
    that has ended. (Reports and sheets are written by rank 0 alone, between steps: an error there ends its process,
    and the others fail in the next exchange of gradients, at the latest when the process group's time runs out.)
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

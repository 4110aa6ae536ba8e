"""Says what a training will take before it starts: time, memory and disk, with warnings where these do not fit."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scm_media.display import byte_size, printable

if TYPE_CHECKING:
    from scm_media.training.context import Context

PROCESS_BYTES = 2**29
"""PyTorch itself takes about so many bytes of each process."""
CHECKPOINT_COPIES = 4
"""A checkpoint holds a network so many times: weights, average, and two moments of the optimizer."""
SNAPSHOT_COPIES = 2
TOLD = "(each stage says after its first steps how long it takes)"


def expectation(context: Context, stages: Sequence[str]) -> str:
    """Returns what a training takes, line by line, with warnings; nothing that cannot be estimated stops a training.

    stages: those that are still to be trained.
    """
    from scm_media.recipe.cost import count_cost

    config = context.config
    try:
        cost = count_cost(config)
    except Exception:  # a network that cannot be built without storage
        return f"{printable(config['recipe'])}: samples: {_samples(config)} {TOLD}"
    lines = [
        f"{printable(config['recipe'])}: networks of {cost.parameters / 1e6:.2f} M parameters, about "
        f"{byte_size(cost.training_bytes)} in training on each device; samples: {_samples(config)}"
    ]
    seconds = _time(context, stages, cost.multiply_adds)
    disk = disk_bytes(config, stages, cost.parameters, len(context.data) + len(context.held_out), cost.latent_shape)
    lines.append(f"expected: {_told_time(seconds)}, {byte_size(disk)} of disk in {printable(context.run_dir)} {TOLD}")
    on_cpu = context.device.type != "cuda"
    devices = config["num_devices"] if on_cpu else 1
    needed = devices * (cost.training_bytes + (PROCESS_BYTES if on_cpu else 0))
    lines += find_warnings(
        memory=(needed, free_memory(on_cpu)),
        disk=(disk, free_disk(context.run_dir)),
        hours=(None if seconds is None else sum(seconds.values()) / 3600, config.get("hours")),
        place=str(context.run_dir),
    )
    return "\n".join(lines)


def find_warnings(
    memory: tuple[float, float | None],
    disk: tuple[float, float | None],
    hours: tuple[float | None, float | None],
    place: str,
) -> list[str]:
    """Returns warnings where what is needed is more than what there is; pairs of both, None where it is not known."""
    found = []
    if memory[1] is not None and memory[0] > memory[1]:
        found.append(
            f"warning: about {byte_size(memory[0])} of memory are needed, and {byte_size(memory[1])} are free: "
            "the system may stop the training; close other programs, or set trainer.accumulate=4 or "
            "trainer.gradient_checkpointing=true"
        )
    if disk[1] is not None and disk[0] > disk[1]:
        found.append(
            f"warning: about {byte_size(disk[0])} of disk are needed, and {byte_size(disk[1])} are free at "
            f"{printable(place)}: set run_dir to a folder on another disk, trainer.keep_checkpoints=1, or "
            "latents.variants=1"
        )
    if hours[0] is not None and hours[1] is not None and hours[0] > hours[1]:
        found.append(
            f"warning: about {hours[0]:.2g} hours are expected for training and evaluation, and hours={hours[1]:g} is "
            "given: stop other programs, or ask scm-media recipes --for FOLDER --hours H for a recipe that fits"
        )
    return found


def disk_bytes(
    config: Mapping[str, Any], stages: Sequence[str], parameters: int, num_files: int, latent_shape: Sequence[int]
) -> int:
    """Returns the bytes that a run writes: checkpoints, snapshots and weights, latents, and trajectories.

    stages: those that are trained. parameters: of one backbone. num_files: of training and held-out examples.
    """
    trainer, latent = config["trainer"], 2 * math.prod(latent_shape)
    copies = 0
    for stage in stages:
        if stage in ("teacher", "guide", "warm_start", "student"):
            copies += 1 + CHECKPOINT_COPIES * trainer["keep_checkpoints"]
            copies += SNAPSHOT_COPIES * trainer["keep_snapshots"] if trainer["snapshot_every"] else 0
    total = 4 * parameters * copies
    if config["latents"]["automatic"] and {"teacher", "guide", "student"} & set(stages):
        total += num_files * config["latents"]["variants"] * latent
    if "trajectories" in stages and config["trajectories"] is not None:
        total += config["trajectories"]["num"] * (2 + config["trajectories"].get("steps", 16)) * latent
    return total


def free_memory(
    on_cpu: bool, meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Returns the free bytes of the machine, of the container where it has less, or of the GPU; None if unknown.

    group: the folder of the control group (version 2) that limits a container's memory.
    """
    if not on_cpu:
        import torch

        return torch.cuda.mem_get_info()[0]
    found = (_of_machine(meminfo), _of_container(group))
    return min((each for each in found if each is not None), default=None)


def _of_machine(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _of_container(group: Path) -> int | None:
    """Returns what a control group leaves; the files that it holds in memory can be dropped. None without a limit."""
    try:
        limit, used = (int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, limit - used + int(statistics["inactive_file"]))
    except (OSError, ValueError, KeyError):  # "max" is no number: there is no limit
        return None


def free_disk(folder: Path) -> int | None:
    """Returns the free bytes of the disk that a folder lies on, or will lie on."""
    place = folder.absolute()
    try:
        return shutil.disk_usage(next(each for each in (place, *place.parents) if os.path.lexists(each))).free
    except (OSError, StopIteration):
        return None


def _time(context: Context, stages: Sequence[str], multiply_adds: int) -> dict[str, float] | None:
    try:
        from scm_media.evaluation.training_time import expected_seconds

        return expected_seconds(context, stages, multiply_adds)
    except Exception:  # whatever a network raises that is called in another way: training says it better
        return None


def _told_time(seconds: Mapping[str, float] | None) -> str:
    from scm_media.training.forecast import duration

    if not seconds:
        return "a time that is not known yet"
    parts = ", ".join(f"{stage} {duration(each)}" for stage, each in seconds.items() if each >= 1)
    details = f" ({parts})" if parts else ""
    return f"about {duration(sum(seconds.values()))} on this machine{details}, reading files and previews aside"


def _samples(config: Mapping[str, Any]) -> str:
    from scm_media.training.fingerprint import stage_settings
    from scm_media.training.stages import STAGES

    samples = []
    for stage in STAGES if config["stage"] == "all" else (config["stage"],):
        settings = {} if config[stage] is None else stage_settings(config, stage)
        num = settings.get("num") or settings.get("max_steps", 0) * settings.get("batch_size", 0)
        samples += [f"{stage} {num:,}"] if num else []
    return ", ".join(samples)

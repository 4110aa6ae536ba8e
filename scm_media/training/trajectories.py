"""The stage ``trajectories``: solves the teacher's ODE from noise, and keeps points and ends for later stages."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scm_media import weights
from scm_media.conditioning import Conditioning
from scm_media.data import Batch, Dataset, batches
from scm_media.display import byte_size
from scm_media.latents.manifest import DTYPES, GIVEN, GUIDANCE, LATENTS, MANIFEST, MASK, PADDING_MASK
from scm_media.latents.trajectories import (
    MixedDataset,
    TrajectoryDataset,
    TrajectoryManifest,
    write_missing_trajectories,
)
from scm_media.samplers import SAMPLERS, teacher_times
from scm_media.seeds import mix
from scm_media.training.context import Context
from scm_media.training.fingerprint import stage_settings, takes_guidance_scale, uses_trajectories
from scm_media.training.optimization import stage_number
from scm_media.training.stages.backbones import LatentInputs, compile_for
from scm_media.training.stages.student import guided_teacher

Progress = Callable[[str, int, int], None]


def trajectory_folder(context: Context) -> Path:
    """Returns the folder of a run's trajectories."""
    return context.run_dir / "trajectories"


def has_manifest(context: Context) -> bool:
    """Returns whether a run's trajectories are described, so that several processes may solve them."""
    return (trajectory_folder(context) / MANIFEST).exists()


def find_missing_shards(context: Context) -> list[int]:
    """Returns the numbers of the shards that a run's described trajectories lack; ValueError without a manifest."""
    folder = trajectory_folder(context)
    return TrajectoryManifest.load(folder).find_missing(folder)


def write_trajectories(
    context: Context, rank: int = 0, world: int = 1, progress: Progress | None = None
) -> dict[str, Any]:
    """Solves the trajectories that a run lacks, one rank's share of them, and returns what was done.

    The result has folder, trajectories (written now) and seconds. Raises ValueError where a stage before has not been
    trained, where the folder holds trajectories of another teacher, and for data of several shapes.
    """
    settings, folder = _settings(context), trajectory_folder(context)
    if context.data.buckets is not None:
        raise ValueError("trajectories are kept in one shape: set modality.buckets=null, or trajectories=null")
    manifest = _manifest(context, settings)
    if has_manifest(context):
        manifest.check(folder)
    elif rank == 0:
        manifest.save(folder)
    if not manifest.find_missing(folder):
        return {"folder": folder, "trajectories": 0, "seconds": 0.0}
    begun = time.monotonic()
    solver = _Solver(context, settings)
    if rank == 0:
        print(f"trajectories: {_expectation(manifest, solver, world, folder)}", file=sys.stderr)
    splits = context.latent_cache.open()

    def read(first: int, num: int) -> Iterator[Batch]:
        return batches(splits["train"], settings["batch_size"], first, num, manifest.seed)

    num = write_missing_trajectories(folder, manifest, read, solver, rank, world, progress)
    return {"folder": folder, "trajectories": num, "seconds": time.monotonic() - begun}


def select_data(context: Context, stage: str, splits: Mapping[str, Dataset]) -> Mapping[str, Dataset]:
    """Returns the splits that a stage trains on: the given ones, or trajectories where the stage wants these.

    Raises ValueError where the trajectories are missing, or made with another teacher.
    """
    config, folder = context.config, trajectory_folder(context)
    points = uses_trajectories(config, stage)
    fraction = config["student"]["generated"] if stage == "student" else 0
    if not points and not fraction:
        return splits
    if not has_manifest(context):
        raise ValueError(f"{folder} holds no trajectories: train stage=trajectories first, or stage=all")
    _manifest(context, _settings(context)).check(folder)
    if points:
        return {split: TrajectoryDataset(folder, context.data, split, with_points=True) for split in splits}
    if fraction == 1:
        return {split: TrajectoryDataset(folder, context.data, split) for split in splits}
    return {**splits, "train": MixedDataset(splits["train"], TrajectoryDataset(folder, context.data), fraction)}


def check_trajectories(config: Mapping[str, Any]) -> None:
    """Raises ValueError for a recipe whose stages need trajectories that it does not describe."""
    if config["trajectories"] is not None:
        return
    wanting = [stage for stage in ("warm_start", "student") if uses_trajectories(config, stage)]
    if config["student"]["generated"]:
        wanting.append("student.generated")
    if wanting:
        raise ValueError(
            f"{' and '.join(wanting)} of this recipe need trajectories, and trajectories is null: set for example "
            "trajectories=default, or leave these out"
        )


def _settings(context: Context) -> Mapping[str, Any]:
    if context.config["trajectories"] is None:
        raise ValueError("this recipe has no trajectories (it is null): set for example trajectories=default")
    return stage_settings(context.config, "trajectories")


def _manifest(context: Context, settings: Mapping[str, Any]) -> TrajectoryManifest:
    """Returns the manifest that trajectories of this run get; ValueError before their networks were trained."""
    config = context.config
    dtype, digests = config["trainer"]["teacher_dtype"], {}
    for stage in ("teacher", "autoencoder", *(["guide"] if config["guide"] is not None else [])):
        file = context.weights_file(stage)
        if not file.exists():
            raise ValueError(f"{file} does not exist: train stage={stage} first, or stage=all")
        digests[stage] = weights.digest(weights.read(file))
    sampling = {
        "sampler": settings["sampler"],
        "guidance": config["student"]["loss"].get("guidance_max") or config["sampler"]["guidance"],
        "guidance_interval": config["sampler"]["guidance_interval"],
        "mask": config["conditioning"]["mask"],
        "guidance_max": config["student"]["loss"].get("guidance_max"),
        "teacher_dtype": None if dtype == "float32" else dtype,
    }
    size = settings["batch_size"]
    return TrajectoryManifest(
        teacher=digests["teacher"],
        guide=digests.get("guide"),
        autoencoder=digests["autoencoder"],
        dataset=context.data.fingerprint(),
        sampling=sampling,
        times=list(teacher_times(settings["steps"], context.flow, sigma_max=config["sampler"]["sigma_max"])[:-1]),
        seed=mix(config["seed"], stage_number("trajectories")),
        num=settings["num"],
        batch_size=size,
        shape=list(context.latent_shape),
        dtype=settings["dtype"],
        shard_size=size * max(1, settings["shard_size"] // size),
    )


def _expectation(manifest: TrajectoryManifest, solver: _Solver, world: int, folder: Path) -> str:
    """Returns what the missing trajectories will take, in disk space and time, as measured by one evaluation."""
    num = sum(len(manifest.shard(number)) for number in manifest.find_missing(folder))
    width = torch.finfo(DTYPES[manifest.dtype]).bits // 8
    size = num * manifest.variants * math.prod(manifest.shape) * width
    minutes = solver.seconds_per_trajectory() * num / world / 60
    return (
        f"{num} of {manifest.num}, {len(manifest.times)} steps of {manifest.sampling['sampler']}; they take "
        f"{byte_size(size)} in {folder} and about {minutes:.1f} minutes"
    )


class _Recorder(nn.Module):
    """A teacher that keeps the points at which a sampler evaluates it first at each of the times."""

    def __init__(self, backbone: Any, sigma_data: float, times: Sequence[float]) -> None:
        super().__init__()
        self.backbone, self.sigma_data, self.times = backbone, sigma_data, times
        self.points: list[Tensor] = []

    def forward(self, u: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Returns the teacher's F and keeps x_t = sigma_data · u at a new time."""
        num = len(self.points)
        if num < len(self.times) and abs(t[0].item() - self.times[num]) < 1e-5:
            self.points.append((u * self.sigma_data).cpu())
        return self.backbone(u, t, cond)


class _Solver:
    """Solves the teacher's ODE for the labels, actions and masks of a batch."""

    def __init__(self, context: Context, settings: Mapping[str, Any]) -> None:
        self.context, self.device = context, context.device
        self.teacher = guided_teacher(context).to(self.device)
        self.inputs = LatentInputs(context, context.load_trained("autoencoder"), self.teacher)
        self.sampler = SAMPLERS.find(settings["sampler"], "trajectories.sampler")
        self.batch_size = settings["batch_size"]
        self.times = teacher_times(settings["steps"], context.flow, sigma_max=context.config["sampler"]["sigma_max"])
        self.guidance_max = context.config["student"]["loss"].get("guidance_max")
        if context.config["trainer"]["compile"]:
            for network in (getattr(self.teacher, "backbone", self.teacher), getattr(self.teacher, "guide", None)):
                if isinstance(network, nn.Module):
                    compile_for(context, network, self.device, None)

    def autocast(self) -> torch.autocast:
        """Returns the context of the recipe's precision."""
        mixed = self.context.config["precision"] == "bf16-mixed"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed)

    def seconds_per_trajectory(self) -> float:
        """Returns the seconds of a trajectory, as one evaluation of the teacher after a first one takes them."""
        shape = (self.batch_size, *self.context.latent_shape)
        labels = {
            name: torch.zeros(self.batch_size, dtype=torch.int64 if classes else torch.float32, device=self.device)
            for name, classes in self.context.num_classes.items()
        }
        cond = Conditioning(labels=labels, guidance=torch.ones(self.batch_size, device=self.device))
        cond = cond if self.context.text is None else self.context.text(cond)
        latent, t = torch.zeros(shape, device=self.device), torch.ones(self.batch_size, device=self.device)
        seconds = 0.0
        for _ in range(2):
            begun = time.monotonic()
            with torch.no_grad(), self.autocast():
                self.teacher(latent, t, cond).cpu()
            seconds = time.monotonic() - begun
        return seconds * self.sampler.evaluations(len(self.times) - 1) / self.batch_size

    def __call__(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Returns points, padding masks, given parts and guidance scales of the trajectories of a batch."""
        flow, num = self.context.flow, len(batch.sample)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            latents, cond = self.inputs(batch.to(self.device))
            if takes_guidance_scale(self.context.config):
                scale = 1 + (self.guidance_max - 1) * torch.rand(num)
                cond = replace(cond, guidance=scale.to(self.device))
            noise = flow.prior(latents.shape, device=self.device)
            recorder = _Recorder(self.teacher, flow.sigma_data, self.times[:-1])
            with self.autocast():
                end = self.sampler(recorder, flow, noise, self.times, cond)
        found = {LATENTS: torch.stack([end.cpu(), *recorder.points], 1)}
        if cond.padding_mask is not None:
            found[PADDING_MASK] = cond.padding_mask[:, None]
        if cond.mask is not None:
            found |= {GIVEN: latents * cond.mask, MASK: cond.mask}
        if cond.guidance is not None:
            found[GUIDANCE] = cond.guidance
        return found

"""The speed table: what a training step of each kind, an evaluation, decoding and loading cost, in one run.

All are measured in turns, so that a slow moment of the machine falls on all alike, and after a warm-up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from scm_media.build import build
from scm_media.conditioning import Conditioning
from scm_media.data import Batch, batches
from scm_media.ema import PowerEMA
from scm_media.guidance import Guided
from scm_media.nn.magnitude import renormalize
from scm_media.training.compiling import compile_backbone
from scm_media.training.context import Context
from scm_media.training.training_fingerprint import by_input
from scm_media.training.waiting import DataWaitMeter

FIRST = "diffusion step"
TWO_PASS = "two-pass sCD step"
Progress = Callable[[str, int, int], None]


@dataclass
class Unread:
    """What stands for a dataset that is not there: its shape, and the labels that are known of it."""

    shape: tuple[int, ...]
    label_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def measure_speed(
    config: Mapping[str, Any],
    device: torch.device,
    batch_size: int | None = None,
    repeats: int = 7,
    labels: Mapping[str, Sequence[str]] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """The table of a composed recipe: {device, rows: [{what, seconds_median, seconds_min, seconds_max, ratio}], …}.

    Seconds are those of a batch (``batch_size``, None: the student's); ratio: to a diffusion step. precision and
    trainer.compile are the recipe's. Networks are fresh. labels: those of the data, where they are not there. data:
    examples read and brought to the recipe's shape per second by its workers, and the share of diffusion steps fed by
    them that is spent waiting; or why it was not measured. Raises ValueError for a recipe that cannot be trained.
    """
    modality = build(config["modality"], "modality")
    data, missing = _data(config, modality, labels or {})
    bench = Bench(Context(dict(config), Path(), modality, data, data), device, batch_size)
    jobs = bench.jobs()
    left_out = {}
    for number, (what, job) in enumerate(list(jobs.items())):
        progress("warming up", number + 1, len(jobs))
        try:
            job()
        except RuntimeError as error:  # what a compiler, or an operation without a rule for forward mode, raises
            if what != TWO_PASS:
                raise
            left_out[what] = str(error).strip().splitlines()[0]
            del jobs[what]
    if missing is None:
        jobs["loading a batch"] = bench.loading(repeats + 1)
        jobs["loading a batch"]()  # workers are started
    seconds = in_turns(jobs, repeats, progress)
    first = median(seconds[FIRST])
    return {
        "recipe": config["recipe"],
        "device": _name(device),
        "precision": config["precision"],
        "compile": config["trainer"]["compile"],
        "batch_size": bench.batch_size,
        "num_threads": torch.get_num_threads(),
        "rows": [
            {
                "what": what,
                "seconds_median": median(each),
                "seconds_min": min(each),
                "seconds_max": max(each),
                "ratio": median(each) / first,
            }
            for what, each in seconds.items()
        ],
        "left_out": left_out,
        "data": {"missing": missing} if missing is not None else bench.feeding(repeats, seconds["loading a batch"]),
    }


def in_turns(
    jobs: Mapping[str, Callable[[], object]], repeats: int, progress: Progress = lambda what, done, total: None
) -> dict[str, list[float]]:
    """Seconds of each job, by name, each done once in every one of ``repeats`` rounds."""
    seconds: dict[str, list[float]] = {what: [] for what in jobs}
    for number in range(repeats):
        for what, job in jobs.items():
            begun = time.perf_counter()
            job()
            seconds[what].append(time.perf_counter() - begun)
        progress("rounds", number + 1, repeats)
    return seconds


def _data(config: Mapping[str, Any], modality: Any, labels: Mapping[str, Sequence[str]]) -> tuple[Any, str | None]:
    """The recipe's training data; where they cannot be read, what stands for them, and why."""
    try:
        return build(config["data"], "data", modality=modality, split="train"), None
    except (ValueError, OSError) as error:
        known = {name: tuple(classes) for name, classes in labels.items()}
        return Unread(modality.shape(), known), str(error)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


class Bench:
    """The networks of a recipe, fresh, with one batch of latents to time them on."""

    def __init__(self, context: Context, device: torch.device, batch_size: int | None) -> None:
        self.context, self.device = context, device
        config = context.config
        self.batch_size = config["student"]["batch_size"] if batch_size is None else batch_size
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        torch.manual_seed(config["seed"])
        self.autoencoder = self._autoencoder()
        self.teacher: nn.Module = build(context.backbone_config(), "backbone").to(device)
        scale_input = {"guidance": True} if by_input(config) else {}
        self.student: nn.Module = build(
            context.backbone_config(**config["student"]["backbone"], **scale_input), "backbone"
        ).to(device)
        self.latent = torch.randn(self.batch_size, *context.latent_shape, device=device) * context.flow.sigma_data
        self.cond = context.condition(self.latent, Conditioning(labels=self._labels()), self._rows())
        if config["trainer"]["compile"]:
            shape, classes, told = context.latent_shape, context.num_classes, context.num_cond_channels
            compile_backbone(self.teacher, shape, classes, config["precision"], None, device, told)
            compile_backbone(self.student, shape, classes, config["precision"], context.tangent_method, device, told)
        self._step = self._diffusion_step()

    def jobs(self) -> dict[str, Callable[[], object]]:
        """What is timed, by name: training steps on the batch, one evaluation, encoding and decoding."""
        loss = self.context.config["student"]["loss"]
        kinds: list[tuple[str, nn.Module | None, dict[str, Any]]] = [
            ("sCD step", self.teacher, loss),
            (TWO_PASS, self.teacher, {**loss, "tangent_method": "forward"}),
            ("sCT step", None, {**loss, "guidance_max": None}),
        ]
        if (guided := self._guided()) is not None:
            kinds.append(("sCD step, guided teacher", guided, loss))
        steps = {FIRST: self._step} | {what: self._consistency_step(how, teacher) for what, teacher, how in kinds}
        found: dict[str, Callable[[], object]] = {
            what: partial(step, self.latent, self.cond) for what, step in steps.items()
        }
        sample = self._decode()
        found["one evaluation"] = self._evaluate
        found["decoding"] = self._decode
        found["encoding"] = lambda: self._encode(sample)
        return found

    def loading(self, num: int) -> Callable[[], object]:
        """What gets the next batch of the recipe's data, ``num`` times at most."""
        stream = self._stream(num)
        return lambda: next(stream)

    def feeding(self, num_steps: int, seconds: Sequence[float]) -> dict[str, Any]:
        """How fast data come, and what share of so many diffusion steps is spent waiting for them."""
        stream = DataWaitMeter(self._stream(num_steps + 1))
        self._fed_step(stream)  # workers are started
        stream.take_fraction()
        for _ in range(num_steps):
            self._fed_step(stream)
        return {
            "examples": len(self.context.data),
            "workers": self.context.config["trainer"]["num_workers"],
            "examples_per_second": self.batch_size / median(seconds),
            "wait_share": stream.take_fraction(),
        }

    def _fed_step(self, stream: DataWaitMeter) -> None:
        begun = time.perf_counter()
        batch: Batch = next(stream).to(self.device)
        latent = self._encode(batch.sample)
        cond = batch.conditioning(self.autoencoder.latent_mask)
        self._step(latent, self.context.condition(latent, cond, batch.actions))
        stream.stepped(time.perf_counter() - begun)

    def _stream(self, num: int) -> Any:
        config, data = self.context.config, self.context.data
        return batches(data, self.batch_size, 0, num, config["seed"], num_workers=config["trainer"]["num_workers"])

    def _autoencoder(self) -> Any:
        """The recipe's autoencoder with fresh weights, its statistics those of noise."""
        autoencoder = build(self.context.config["autoencoder"]["network"], "autoencoder").to(self.device)
        shape = self.context.data.shape
        with torch.no_grad():
            autoencoder.fit([torch.rand(2, *shape, device=self.device) * 2 - 1])
        return autoencoder.eval().requires_grad_(False)

    def _labels(self) -> dict[str, Tensor]:
        num, device = self.batch_size, self.device
        return {
            name: torch.randint(classes, (num,), device=device) if classes else torch.rand(num, device=device)
            for name, classes in self.context.num_classes.items()
        }

    def _rows(self) -> Tensor | None:
        """Rows ``(B, k, n)`` of zeros, where the data has any: speed does not hang on what they say."""
        names, num_places = self.context.data.action_names, self.context.data.shape[1]
        return torch.zeros(self.batch_size, len(names), num_places, device=self.device) if names else None

    def _guided(self) -> Guided | None:
        """The teacher as the recipe distils it, where it is steered by a second call."""
        config, sampler = self.context.config, self.context.config["sampler"]
        by_clip = by_input(config)
        if sampler["guidance"] == 1 and not by_clip:
            return None
        guide = None
        if config["guide"] is not None:
            guide = build(self.context.backbone_config(**config["guide"]["backbone"]), "backbone").to(self.device)
        return Guided(self.teacher, None if by_clip else sampler["guidance"], sampler["guidance_interval"], guide)

    def _diffusion_step(self) -> Callable[[Tensor, Conditioning], None]:
        settings = self.context.config["teacher"]
        return self._stepping(build(settings["loss"], "loss", backbone=self.teacher, flow=self.context.flow), settings)

    def _consistency_step(
        self, settings: Mapping[str, Any], teacher: nn.Module | None
    ) -> Callable[[Tensor, Conditioning], None]:
        loss = build(settings, "loss", backbone=self.student, teacher=teacher, flow=self.context.flow)
        return self._stepping(loss, self.context.config["student"])

    def _stepping(self, loss: nn.Module, settings: Mapping[str, Any]) -> Callable[[Tensor, Conditioning], None]:
        """A training step as the loop takes it: loss, gradients, clipping, optimiser, average."""
        loss.to(self.device).train()
        parameters = [parameter for parameter in loss.parameters() if parameter.requires_grad]
        optimizer = build(settings["optimizer"], "optimizer", params=parameters)
        backbone: Any = loss.backbone
        ema, limit = PowerEMA(backbone, settings["ema_std"]), self.context.config["trainer"]["gradient_clip"]
        number = torch.tensor(1e6, device=self.device)

        def step(latent: Tensor, cond: Conditioning) -> None:
            backbone.train()
            with self._autocast():
                value, _ = loss(latent, cond, number)
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, float("inf") if limit is None else limit)
            optimizer.step()
            renormalize(backbone)
            ema.update(1)
            optimizer.zero_grad(set_to_none=True)
            self._finish()

        return step

    def _evaluate(self) -> None:
        t = torch.full((self.batch_size,), 0.8, device=self.device)
        self.student.eval()
        with torch.inference_mode(), self._autocast():
            self.student(self.latent, t, self.cond)
        self._finish()

    def _decode(self) -> Tensor:
        with torch.inference_mode():
            sample = self.autoencoder.decode(self.latent)
        self._finish()
        return sample

    def _encode(self, sample: Tensor) -> Tensor:
        with torch.no_grad():
            latent = self.autoencoder.encode(sample)
        self._finish()
        return latent

    def _autocast(self) -> torch.autocast:
        narrow = self.context.config["precision"].startswith("bf16")
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=narrow)

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

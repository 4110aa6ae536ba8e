"""The speed table: the cost of each kind of training step, of an evaluation, of decoding and of loading, in one run.

After a warm-up all are measured in turns, so that a slow moment of the machine slows all of them alike.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from scm_media.build import TARGET, build, resolve
from scm_media.data import Batch, Dataset, Example, batches
from scm_media.evaluation.timing import Progress, in_turns
from scm_media.guidance import Guided
from scm_media.prompts import LABEL as PROMPT
from scm_media.sources import open_data
from scm_media.training.context import Context, make_context
from scm_media.training.fingerprint import stage_settings, takes_guidance_scale, uses_trajectories
from scm_media.training.optimization import Optimization, Task
from scm_media.training.reporting import DataWaitMeter
from scm_media.training.stages.backbones import (
    LatentInputs,
    auxiliary_network,
    backbone_config,
    compile_for,
    learned_weight,
    student_config,
)
from scm_media.training.texts import stand_in
from scm_media.trajectories import Trajectory

FIRST = "diffusion step"
EVALUATION = "one evaluation"
TWO_PASS = "two-pass sCD step"
DISTILLATION_STEP, GUIDED_STEP, STUDENT_STEP = "sCD step", "sCD step, guided teacher", "student step"
CONSISTENCY = {"_target_": "scm_media.losses.ConsistencyLoss"}
"""The loss that is timed beside the student's own where that one is no consistency loss."""
FROM_DATA = {"guidance_max": None, "direction": "eulerian"}
"""The values of a loss's settings that a student has without a teacher, which others need."""
STEP = 1_000_000
"""The step whose cost is measured: past every warm-up."""


class AbsentData(Dataset):
    """Stands for a dataset that is not there: its shape, and its labels if they are known."""

    def __init__(self, shape: tuple[int, ...], label_names: Mapping[str, tuple[str, ...]]) -> None:
        self.shape, self.label_names = shape, label_names

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Example:
        raise IndexError(index)


def measure_speed(
    config: Mapping[str, Any],
    device: torch.device,
    batch_size: int | None = None,
    repeats: int = 7,
    labels: Mapping[str, Sequence[str]] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Returns the speed table of a composed recipe.

    It has device, rows ``[{what, seconds_median, seconds_min, seconds_max, ratio}]`` and more. Seconds are those of a
    batch (``batch_size``, None: the student's), ratio is relative to a diffusion step; precision and trainer.compile
    are the recipe's, and networks have fresh weights. labels: those of data that are absent. The entry data has the
    examples that the recipe's workers read per second and the fraction of diffusion steps that is spent waiting for
    them, or the reason why this was not measured. Raises ValueError for a recipe that cannot be trained.
    """
    modality = build(config["modality"], "modality")
    data, missing = _data(config, modality, labels or {})
    context = make_context(config, modality, data, data)
    stand_in(context)
    bench = Bench(context, device, batch_size)
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
        jobs["loading a batch"] = bench.batch_reader(repeats + 1)
        jobs["loading a batch"]()  # workers are started
    seconds = in_turns(jobs, repeats, progress)
    first = median(seconds[FIRST])
    if missing is None:
        data_figures = bench.measure_feeding(repeats, seconds["loading a batch"])
    else:
        data_figures = {"missing": missing}
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
        "data": data_figures,
    }


def _data(config: Mapping[str, Any], modality: Any, labels: Mapping[str, Sequence[str]]) -> tuple[Any, str | None]:
    """Returns the recipe's training data, or a stand-in and the reason why they cannot be read."""
    try:
        return open_data(config, modality)["train"], None
    except (ValueError, OSError) as error:
        known = {name: tuple(classes) for name, classes in labels.items()}
        return AbsentData(modality.shape(), known), str(error)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


class Bench:
    """The networks of a recipe with fresh weights, and one batch of latents to time them on.

    Training steps are those of the training loop (``training.optimization``), on one device.
    """

    def __init__(self, context: Context, device: torch.device, batch_size: int | None) -> None:
        from scm_media.fabric import Fabric

        self.context, self.device, config = context, device, context.config
        self.batch_size = config["student"]["batch_size"] if batch_size is None else batch_size
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        devices = [device.index or 0] if device.type == "cuda" else 1
        self._fabric = Fabric(accelerator=device.type, devices=devices, precision=config["precision"])
        torch.manual_seed(config["seed"])
        self.autoencoder = self._autoencoder()
        self._inputs = LatentInputs(context, self.autoencoder)
        self.teacher = self._backbone(backbone_config(context))
        self.student = self._backbone(student_config(context))
        latent = torch.randn(self.batch_size, *context.latent_shape, device=device) * context.flow.sigma_data
        batch = Batch(latent, self._labels(), encoded=True, actions=self._actions())
        self.latent, self.cond = self._inputs(batch)
        if takes_guidance_scale(config):
            self.cond = replace(self.cond, guidance=torch.ones(self.batch_size, device=device))
        if config["trainer"]["compile"]:
            compile_for(context, self.teacher, device, None)
            compile_for(context, self.student, device, context.tangent_method)
        # A network of its own: losses freeze the teacher that they are given.
        trained = self._backbone(backbone_config(context))
        if config["trainer"]["compile"]:
            compile_for(context, trained, device, None)
        self._diffusion = self._optimization("teacher", trained, config["teacher"]["loss"])

    def network_jobs(self) -> dict[str, Callable[[], object]]:
        """Returns a training step of the teacher and one evaluation, by name."""
        given = repeat((self.latent, self.cond))
        return {FIRST: partial(self.step, self._diffusion, given), EVALUATION: self._evaluate}

    def jobs(self) -> dict[str, Callable[[], object]]:
        """Returns what is timed, by name: training steps on the batch, one evaluation, decoding and encoding."""
        config = self.context.config
        own = config["student"]["loss"]
        loss = dict(CONSISTENCY) if uses_trajectories(config, "student") else own
        from_data = loss | {name: other for name, other in FROM_DATA.items() if name in loss}
        kinds: list[tuple[str, nn.Module | None, dict[str, Any]]] = [(DISTILLATION_STEP, self.teacher, loss)]
        if "tangent_method" in inspect.signature(resolve(loss[TARGET])).parameters:
            kinds.append((TWO_PASS, self.teacher, {**loss, "tangent_method": "forward"}))
        kinds.append(("sCT step", None, from_data))
        if (guided := self._guided_teacher()) is not None:
            kinds.append((GUIDED_STEP, guided, loss))
        if config["warm_start"] is not None:
            kinds.append(("warm start step", self.teacher, stage_settings(config, "warm_start")["loss"]))
        if loss is not own:
            kinds.append((STUDENT_STEP, guided or self.teacher, own))
        optimizations = {FIRST: self._diffusion}
        for what, teacher, settings in kinds:
            optimizations[what] = self._optimization("student", self.student, settings, teacher=teacher)
        times = torch.ones(self.batch_size, device=self.device)
        trajectory = Trajectory(self.latent, times, self.latent)
        found: dict[str, Callable[[], object]] = {}
        for what, optimization in optimizations.items():
            given = trajectory if getattr(optimization.task.loss, "uses_trajectories", False) else self.latent
            found[what] = partial(self.step, optimization, repeat((given, self.cond)))
        sample = torch.rand(self.batch_size, *self.context.data.shape, device=self.device) * 2 - 1
        found[EVALUATION] = self._evaluate
        found["decoding"] = self._decode
        found["encoding"] = lambda: self._encode(sample)
        return found

    @property
    def student_step(self) -> str:
        """Returns the name of the student's own step in ``jobs``: with the recipe's loss and guided teacher."""
        if uses_trajectories(self.context.config, "student"):
            return STUDENT_STEP
        return DISTILLATION_STEP if self._guidance_scale == 1 else GUIDED_STEP

    def batch_reader(self, num: int) -> Callable[[], object]:
        """Returns a function that reads the next batch of the recipe's data, ``num`` times at most."""
        stream = self._stream(num)
        return lambda: next(stream)

    def measure_feeding(self, num_steps: int, seconds: Sequence[float]) -> dict[str, Any]:
        """Returns how fast data come, and the fraction of so many diffusion steps that is spent waiting for them."""
        stream = DataWaitMeter(self._stream(num_steps + 1))
        arguments = (self._inputs(batch.to(self.device)) for batch in stream)
        self.step(self._diffusion, arguments)  # workers are started
        stream.take_fraction()
        for _ in range(num_steps):
            begun = time.perf_counter()
            self.step(self._diffusion, arguments)
            stream.add_step(time.perf_counter() - begun)
        return {
            "examples": len(self.context.data),
            "workers": self.context.config["trainer"]["num_workers"],
            "examples_per_second": self.batch_size / median(seconds),
            "wait_fraction": stream.take_fraction(),
        }

    def _optimization(self, stage: str, backbone: nn.Module, loss: Mapping[str, Any], **teacher: Any) -> Optimization:
        config = self.context.config
        module = build(loss, "loss", backbone=backbone, flow=self.context.flow, **teacher)
        task = Task(
            name=stage,
            loss=module,
            model=backbone,
            settings=config[stage],
            inputs=self._inputs,
            finish=lambda state, step, header: None,
            separate_clip=learned_weight(module),
            auxiliary=auxiliary_network(module),
        )
        return Optimization(self._fabric, task, {**config["trainer"], "accumulate": 1}, config["seed"])

    def step(self, optimization: Optimization, arguments: Iterator[tuple[Any, ...]]) -> None:
        """Takes a training step on the loss's next arguments and waits for its end."""
        optimization.task.loss.train()
        optimization.step(arguments, STEP)
        self._finish()

    def _stream(self, num: int) -> Any:
        config, data = self.context.config, self.context.data
        return batches(data, self.batch_size, 0, num, config["seed"], num_workers=config["trainer"]["num_workers"])

    def _autoencoder(self) -> Any:
        """Returns the recipe's autoencoder with fresh weights, fitted to noise."""
        autoencoder = build(self.context.config["autoencoder"]["network"], "autoencoder").to(self.device)
        noise = torch.rand(4, *self.context.data.shape, device=self.device) * 2 - 1
        with torch.no_grad():
            if hasattr(autoencoder, "prepare"):
                autoencoder.prepare([noise])
            autoencoder.fit([noise])
        return autoencoder.eval().requires_grad_(False)

    def _backbone(self, config: Mapping[str, Any]) -> nn.Module:
        return build(config, "backbone").to(self.device)

    def _labels(self) -> dict[str, Tensor]:
        num, device = self.batch_size, self.device
        text = (
            {} if self.context.config["text"] is None else {PROMPT: torch.zeros(num, dtype=torch.int64, device=device)}
        )
        return text | {
            name: torch.randint(classes, (num,), device=device) if classes else torch.rand(num, device=device)
            for name, classes in self.context.num_classes.items()
        }

    def _actions(self) -> Tensor | None:
        """Returns actions ``(B, k, n)`` of zeros if the data has any: their values do not change the speed."""
        names, num_frames = self.context.data.action_names, self.context.data.shape[1]
        return torch.zeros(self.batch_size, len(names), num_frames, device=self.device) if names else None

    @property
    def _guidance_scale(self) -> float | None:
        """Returns the scale that the teacher is distilled at; None for that of each sample."""
        config = self.context.config
        return None if takes_guidance_scale(config) else config["sampler"]["guidance"]

    def _guided_teacher(self) -> Guided | None:
        """Returns the teacher as the recipe distils it, None where it is not guided."""
        config, scale = self.context.config, self._guidance_scale
        if scale == 1:
            return None
        guide = None
        if config["guide"] is not None:
            guide = self._backbone(backbone_config(self.context, **config["guide"]["backbone"]))
        return Guided(self.teacher, scale, config["sampler"]["guidance_interval"], guide)

    def _evaluate(self) -> None:
        t = torch.full((self.batch_size,), 0.8, device=self.device)
        self.student.eval()
        with torch.inference_mode(), self._fabric.autocast():
            self.student(self.latent, t, self.cond)
        self._finish()

    @torch.no_grad()
    def evaluate_teacher(self) -> None:
        """Evaluates the teacher once, with its guidance, on the batch."""
        t = torch.full((self.batch_size,), 0.8, device=self.device)
        (self._guided_teacher() or self.teacher)(self.latent, t, self.cond)

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

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

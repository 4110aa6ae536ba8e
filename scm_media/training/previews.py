"""Sheets and figures of a backbone during training, always from the same noise and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scm_media.conditioning import Conditioning
from scm_media.data import batches
from scm_media.flow_map_sampler import sample_flow_map
from scm_media.guidance import Guided
from scm_media.modality import Modality
from scm_media.pipeline.randomness import sample_noise
from scm_media.samplers import consistency_times, sample_consistency, sample_heun, teacher_times
from scm_media.settings.sampling import first_sigma, flow_map_gamma
from scm_media.tangent import value_and_tangent
from scm_media.training.context import Context

NUM_TEACHER_STEPS = 8
STUDENT_ROWS = {1: "1 step", 2: "2 steps"}
TIMES = (0.4, 0.8, 1.2)


def save_sheet(modality: Modality, samples: Tensor, captions: Sequence[str], columns: int | None, path: Path) -> None:
    """Writes one picture of samples ``(B, C, *S)``; columns: None for a nearly square one.

    Raises OSError, with the file's name, where it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        modality.preview(samples, captions, columns=columns).save(path)
    except OSError as error:
        reason = f"{path} was not written ({error.strerror or error}); the last good checkpoint is intact"
        raise OSError(error.errno, reason) from error


@contextmanager
def moved(network: Any, device: torch.device) -> Iterator[Any]:
    """Moves a network to a device for as long as the context lasts, and back to where it was.

    Of a guided network both parts are moved, each from where it was: one of them may be shared with a student.
    """
    if isinstance(network, Guided):
        with moved(network.backbone, device), moved(network.guide, device):
            yield network
        return
    tensors = network.state_dict().values() if isinstance(network, nn.Module) else ()
    before = next((each.device for each in tensors), device)
    try:
        yield network if before == device else network.to(device)
    finally:
        if before != device:
            network.to(before)


class FlowPreview:
    """Draws sheets of a teacher, or of a student and its teacher, and measures figures that tell how training goes.

    A sheet has a row for each sampler and a column for each sample; samples of one sampler alone make a square. The
    figures of a student are the root mean square distance between its one- and two-step latents and the teacher's Heun
    latents from the same noise, in units of sigma_data, and the standard deviation of its latents, which collapses when
    the student diverges. The figures of a teacher are the root mean square of dF/dt along its trajectories at a few
    times.

    flow_map: samples the student as a flow map, whose steps end at any time.
    """

    def __init__(
        self, context: Context, student: bool = False, teacher: nn.Module | None = None, flow_map: bool = False
    ) -> None:
        self.context, self.student, self.teacher, self.flow_map = context, student, teacher, flow_map
        self.flow, self.sampler = context.flow, context.config["sampler"]
        self.num = context.config["trainer"]["num_preview_samples"]
        batch = next(batches(context.held_out, min(self.num, len(context.held_out)), 0, 1, context.config["seed"]))
        self.num, self.truth = len(batch.sample), batch.sample
        # Students that take the guidance scale as an input read it, and their teachers; other networks ignore it.
        scale = torch.full((self.num,), float(self.sampler["guidance"]))
        cond = batch.conditioning()
        self.labels = cond.labels
        cond = replace(cond if context.text is None else context.text(cond), guidance=scale)
        self.cond = context.conditioning_layout.assemble(cond, context.latent_shape[1:], batch.actions)
        self.autoencoder = context.load_trained("autoencoder")
        self._teacher_latents: Tensor | None = None

    def __call__(self, model: nn.Module, step: int, folder: Path | None) -> dict[str, float]:
        """Writes ``step-N.png`` into the folder, if one is given; returns figures by name."""
        device = next(model.parameters()).device
        cond = self.cond.to(device)
        by_heun = f"teacher, {NUM_TEACHER_STEPS} steps"
        if not self.student:
            rows = {by_heun: self._heun(model, cond, device)}
            figures = {f"dF_dt_rms/t{t}": self._tangent_rms(model, t, cond, device) for t in TIMES}
        else:
            if self._teacher_latents is None and self.teacher is not None:
                with moved(self.teacher, device) as teacher:
                    self._teacher_latents = self._heun(teacher, cond, device)
            rows = {name: self._consistency(model, steps, cond, device) for steps, name in STUDENT_ROWS.items()}
            figures = {}
            for name, latents in rows.items():
                figures[f"deviation/{name}"] = (latents.std() / self.flow.sigma_data).item()
                if self._teacher_latents is not None:
                    figures[f"to_teacher/{name}"] = self._distance(latents, self._teacher_latents)
            if self._teacher_latents is not None:
                rows[by_heun] = self._teacher_latents
        if folder is not None:
            self._write_sheet(rows, folder / f"step-{step}.png")
        return figures

    def _noise(self, device: torch.device, shape: Sequence[int] | None = None):
        seed, shape = self.context.config["seed"], shape or self.context.latent_shape
        return lambda i: (sample_noise(seed, range(self.num), i, shape) * self.flow.sigma_data).to(device)

    def _heun(self, model: nn.Module, cond: Conditioning, device: torch.device) -> Tensor:
        times = teacher_times(NUM_TEACHER_STEPS, self.flow, sigma_max=self.sampler["sigma_max"])
        return sample_heun(model, self.flow, self._noise(device), times, cond)

    def _consistency(self, model: nn.Module, steps: int, cond: Conditioning, device: torch.device) -> Tensor:
        sigma = first_sigma(self.sampler) or self.sampler["sigma_max"]
        times = consistency_times(steps, self.flow, sigma, self.sampler["second_time"])
        if self.flow_map:
            gamma = flow_map_gamma(self.sampler)
            return sample_flow_map(model, self.flow, self._noise(device), times, cond, gamma=gamma)
        return sample_consistency(model, self.flow, self._noise(device), times, cond)

    def _distance(self, latents: Tensor, other: Tensor) -> float:
        return ((latents - other).square().mean().sqrt() / self.flow.sigma_data).item()

    def _tangent_rms(self, model: nn.Module, time: float, cond: Conditioning, device: torch.device) -> float:
        """Returns the root mean square of dF/dt along dx/dt = sigma_data F, at one time, on held-out data."""
        with moved(self.autoencoder, device) as autoencoder:
            x0 = autoencoder.encode(self.truth.to(device))
        t = torch.full((self.num,), time, device=device)
        u = self.flow.interpolate(x0, self._noise(device, x0.shape[1:])(0), t) / self.flow.sigma_data
        velocity = model(u, t, cond)
        ones = torch.ones_like(t)
        tangent = value_and_tangent(model, u, t, cond, velocity, ones, self.context.tangent_method).tangent
        return tangent.float().square().mean().sqrt().item()

    def _write_sheet(self, rows: dict[str, Tensor], path: Path) -> None:
        classes = [self.context.data.label_names[name] for name in self.labels]
        captions, pictures = [], []
        for row, latents in rows.items():
            with moved(self.autoencoder, latents.device) as autoencoder:
                pictures.append(autoencoder.decode(latents).cpu())
            for index in range(self.num):
                labels = [
                    names[int(label[index])] if names else f"{label[index]:g}"
                    for names, label in zip(classes, self.labels.values(), strict=True)
                ]
                captions.append(" ".join(labels) + (f"\n{row}" if index == 0 else ""))
        columns = self.num if len(rows) > 1 else None
        save_sheet(self.context.modality, torch.cat(pictures), captions, columns, path)

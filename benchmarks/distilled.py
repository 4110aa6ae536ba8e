"""A student's guided teacher, and the conditioning of both, as in distillation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from scm_media import load
from scm_media.conditioning import Conditioning
from scm_media.guidance import Guided
from scm_media.interfaces import Backbone
from scm_media.pipeline import Pipeline, SamplingRequest


def load_without_actions(model: str, precision: str | None = None) -> Pipeline:
    """Returns a pipeline on the CPU; ends the program for a model that is conditioned on actions."""
    pipeline = load(model, "cpu", precision)
    if pipeline.folder.description.actions:
        raise SystemExit(f"{model} is conditioned on actions, which this script does not draw")
    return pipeline


def guided_teacher(pipeline: Pipeline) -> Backbone:
    """Returns the teacher with the guidance that the student was distilled from."""
    guidance = pipeline.method(SamplingRequest(teacher=True)).guidance
    teacher = pipeline.network("teacher")
    if guidance.scale == 1:
        return teacher
    guide = pipeline.network("guide") if pipeline.folder.has("guide") else None
    return Guided(teacher, guidance.scale, guidance.interval, guide)


def draw_conditioning(pipeline: Pipeline, indices: Sequence[int]) -> tuple[Conditioning, Conditioning]:
    """Returns the conditioning of teacher and student for samples 0, 1, … of seed 0."""
    cond = pipeline.conditioning([pipeline.labels.resolve(None, 0, index) for index in indices])
    scale = pipeline.method(SamplingRequest()).guidance.as_input
    return cond, cond if scale is None else replace(cond, guidance=torch.full((len(indices),), scale))

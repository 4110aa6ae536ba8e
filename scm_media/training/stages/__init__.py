"""The stages of a training; each module describes what one of them trains and leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from scm_media.training.context import Context
from scm_media.training.optimization import Task
from scm_media.training.stages.autoencoder import autoencoder_task
from scm_media.training.stages.feature_extractor import feature_extractor_task
from scm_media.training.stages.student import student_task, warm_start_task
from scm_media.training.stages.teacher import guide_task, teacher_task

TASKS: Mapping[str, Callable[[Context], Task]] = {
    "feature_extractor": feature_extractor_task,
    "autoencoder": autoencoder_task,
    "teacher": teacher_task,
    "guide": guide_task,
    "warm_start": warm_start_task,
    "student": student_task,
}
"""In order: the loss of an autoencoder may use the feature extractor, which needs none of the others."""
STAGES = ("feature_extractor", "autoencoder", "teacher", "guide", "trajectories", "warm_start", "student")
"""All stages: those that train a network, and ``trajectories``."""
LATENT_STAGES = ("teacher", "guide", "warm_start", "student")

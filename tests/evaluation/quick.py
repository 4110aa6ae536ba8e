"""An evaluation whose batches and timings are small."""

from __future__ import annotations

from typing import Any

from scm_media import evaluation
from scm_media.pipeline import Pipeline


def evaluate(pipeline: Pipeline, work: Any = None, progress: Any = None, **settings: Any) -> dict[str, Any]:
    """Returns what ``scm_media.evaluation.evaluate`` returns for a request of these settings."""
    quick = {"timing_batch_size": 2, "timing_repeats": 1, "batch_size": 32}
    return evaluation.evaluate(pipeline, evaluation.EvaluationRequest(**{**quick, **settings}), work, progress)

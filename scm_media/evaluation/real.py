"""Held-out data measured as samples are, and their reconstructions by the autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor

from scm_media.data import Dataset
from scm_media.evaluation.measured import Instruments, Measured
from scm_media.evaluation.recipe_data import draw_examples
from scm_media.evaluation.rows import Progress
from scm_media.pipeline import Pipeline

LOSSLESS = 1e-4
"""The largest error of samples in [-1, 1] whose autoencoder is taken for lossless: float32 rounds less than this."""


def measure_held_out(
    pipeline: Pipeline,
    instruments: Instruments,
    held_out: Dataset,
    num: int,
    batch_size: int,
    progress: Progress | None = None,
) -> tuple[Measured, Measured | None]:
    """Returns what is measured of at most ``num`` held-out samples, and of their reconstructions.

    The reconstructions are None for an autoencoder that loses nothing, as in pixel space. Raises ValueError where
    nothing is held out.
    """
    if not len(held_out):
        raise ValueError("nothing is held out of the training data to compare with: set data.held_out, such as 0.1")
    real: list[Measured] = []
    rebuilt: list[Measured] = []
    lossless, done, total = False, 0, min(num, len(held_out))
    for batch in draw_examples(held_out, num):
        for start in range(0, len(batch.sample), batch_size):
            part = slice(start, start + batch_size)
            sample = batch.sample[part]
            labels = {name: label[part] for name, label in batch.labels.items()}
            real.append(instruments.measure(pipeline, sample, labels))
            if not lossless:
                again = _reconstruct(pipeline, sample)
                lossless = not rebuilt and float((again - sample).abs().max()) <= LOSSLESS
                rebuilt += [] if lossless else [instruments.measure(pipeline, again, labels)]
            done += len(sample)
            if progress is not None:
                progress("held-out data", done, total)
    return Measured.join(real), Measured.join(rebuilt) if rebuilt else None


@torch.inference_mode()
def _reconstruct(pipeline: Pipeline, sample: Tensor) -> Tensor:
    """Returns samples ``(B, C, *S)`` that were encoded and decoded again, cut to their size."""
    again = pipeline.decode(pipeline.network("autoencoder").encode(sample.to(pipeline.device)))
    return again[tuple(slice(size) for size in sample.shape)]

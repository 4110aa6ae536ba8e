"""Draws many sounds on one sheet: the outline and the mel spectrogram of each, with seconds and Hz on the axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from modalities.audio.mel_scale import mel_filters, to_mels
from scm_media.drawing import PANEL_WIDTH, SPECTROGRAM_HEIGHT, draw_grid, draw_spectrograms

WINDOW = 0.046
"""Seconds of the window of a spectrogram."""
FREQUENCIES = {"100 Hz": 100, "500": 500, "1k": 1000, "2k": 2000, "5k": 5000, "10k": 10000, "20k": 20000}
"""Labels of the frequency axis, and their Hz."""


def mel_picture(samples: Tensor, rate: int, height: int = SPECTROGRAM_HEIGHT, width: int = PANEL_WIDTH) -> Tensor:
    """Returns dB ``(B, height, width)`` of samples ``(B, C, T)``, high frequencies first.

    The powers of channels are averaged. Rows are triangles, evenly spaced in mels up to half the rate, and at least
    as wide as a bin of the transform.
    """
    size = min(1 << round(math.log2(WINDOW * rate)), 1 << max(4, (samples.shape[-1] - 1).bit_length()))
    hop = max(1, min(size // 4, samples.shape[-1] // width))
    # Mirrored at its ends, so that they do not sound like clicks.
    how = "reflect" if samples.shape[-1] > size // 2 else "constant"
    flat = functional.pad(samples.flatten(0, 1)[:, None], (size // 2, size // 2), how)[:, 0]
    spectrum = torch.stft(flat, size, hop, window=torch.hann_window(size), center=False, return_complex=True)
    power = spectrum.abs().square().unflatten(0, samples.shape[:2]).mean(1)
    filters = mel_filters(rate, size, height, unit_sum=True)[::-1].copy()
    with torch.autocast("cpu", enabled=False):  # sheets are drawn in the midst of training too
        rows = torch.from_numpy(filters).float() @ power
    columns = torch.linspace(0, rows.shape[-1] - 1, width).round().long()
    return 10 * rows[..., columns].clamp(min=1e-20).log10()


def draw_sheet(samples: Tensor, rate: int, captions: Sequence[str] = (), columns: int | None = None) -> Image.Image:
    """Returns a grid of panels of samples ``(B, C, T)``, row by row, each with its caption below.

    All panels have one scale of colours and of amplitudes. columns: None for a nearly square grid. Raises ValueError
    as ``draw_grid``.
    """
    if not len(samples):
        return draw_grid([])
    samples = samples.detach().float().cpu()
    outlines = np.stack([_find_outline(sample) for sample in samples])
    ticks = {text: float(to_mels(each) / to_mels(rate / 2)) for text, each in FREQUENCIES.items() if each < rate / 2}
    seconds = samples.shape[-1] / rate
    panels, legend = draw_spectrograms(outlines, mel_picture(samples, rate).numpy(), seconds, ticks)
    return draw_grid(panels, captions, columns, legend)


def _find_outline(sample: Tensor) -> np.ndarray:
    """Returns the lowest and highest value ``(2, PANEL_WIDTH)`` of each column's part of ``(C, T)``."""
    bounds = np.linspace(0, sample.shape[-1], PANEL_WIDTH + 1).astype(int)
    parts = [sample[:, start : max(start + 1, stop)] for start, stop in pairwise(bounds)]
    return np.array([[part.min() for part in parts], [part.max() for part in parts]])

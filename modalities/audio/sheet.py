"""Many sounds on one sheet: outline and mel spectrogram of each, with seconds and Hz on the axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

WIDTH, OUTLINE, HEIGHT = 232, 30, 132
"""Pixels of a panel: across, of its outline, of its spectrogram."""
LEFT, BELOW, LINE, GAP, LEGEND = 44, 18, 17, 12, 30
FONT_SIZE, SMALL = 13, 11
RANGE = 80.0
"""dB from the loudest place of a sheet down to black."""
WINDOW = 0.046
"""Seconds that a column of a spectrogram looks at."""
PAPER, INK, FAINT, WAVE = (255, 255, 255), (20, 20, 20), (150, 150, 150), (66, 88, 132)
COLOURS = (
    (4, 4, 17),
    (34, 7, 72),
    (84, 0, 110),
    (143, 0, 114),
    (198, 33, 96),
    (233, 90, 72),
    (252, 145, 61),
    (255, 200, 103),
    (251, 248, 202),
)
"""Soft to loud: lightness rises evenly from 0.12 to 0.97 in OKLab (Ottosson 2020), through violet, red and yellow."""
FREQUENCIES = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)
STEPS = (1, 2, 5)


def mel(frequency: float | np.ndarray) -> np.ndarray:
    """Mels of Hz: linear to 1 kHz, logarithmic above (Slaney 1998, Auditory Toolbox)."""
    frequency = np.asarray(frequency, dtype=float)
    above = 15 + 27 * np.log(np.maximum(frequency, 1e-3) / 1000) / math.log(6.4)
    return np.where(frequency < 1000, frequency * 3 / 200, above)


def hertz(mels: np.ndarray) -> np.ndarray:
    """Hz of mels: what ``mel`` is of."""
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((np.maximum(mels, 15) - 15) * math.log(6.4) / 27))


def mel_picture(samples: Tensor, rate: int, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """dB ``(B, height, width)`` of samples ``(B, C, T)``, high frequencies on top, the powers of channels averaged.

    Rows are triangles, evenly spaced in mels up to half the rate and no narrower than what the transform resolves.
    """
    size = min(1 << round(math.log2(WINDOW * rate)), 1 << max(4, (samples.shape[-1] - 1).bit_length()))
    hop = max(1, min(size // 4, samples.shape[-1] // width))
    # Mirrored at its ends, so that they do not sound like clicks.
    how = "reflect" if samples.shape[-1] > size // 2 else "constant"
    flat = functional.pad(samples.flatten(0, 1)[:, None], (size // 2, size // 2), how)[:, 0]
    spectrum = torch.stft(flat, size, hop, window=torch.hann_window(size), center=False, return_complex=True)
    power = spectrum.abs().square().unflatten(0, samples.shape[:2]).mean(1)
    edges = hertz(np.linspace(0, mel(rate / 2), height + 2))
    bins = np.linspace(0, rate / 2, size // 2 + 1)
    reach = np.maximum(np.diff(edges), rate / size)
    rising = 1 + (bins - edges[1:-1, None]) / reach[:-1, None]
    falling = 1 - (bins - edges[1:-1, None]) / reach[1:, None]
    weights = np.maximum(0, np.minimum(rising, falling))
    weights /= weights.sum(1, keepdims=True)
    with torch.autocast("cpu", enabled=False):  # sheets are drawn in the midst of training too
        rows = torch.from_numpy(weights[::-1].copy()).float() @ power
    columns = torch.linspace(0, rows.shape[-1] - 1, width).round().long()
    return 10 * rows[..., columns].clamp(min=1e-20).log10()


def coloured(decibels: Tensor, loudest: float) -> np.ndarray:
    """Pixels ``(…, 3)`` of dB below the loudest."""
    place = ((decibels - loudest) / RANGE + 1).clamp(0, 1).numpy() * (len(COLOURS) - 1)
    table = np.array(COLOURS, dtype=float)
    below = np.minimum(place.astype(int), len(COLOURS) - 2)
    fraction = (place - below)[..., None]
    return (table[below] * (1 - fraction) + table[below + 1] * fraction).round().astype(np.uint8)


def sheet(samples: Tensor, rate: int, captions: Sequence[str] = (), columns: int | None = None) -> Image.Image:
    """A grid of panels of samples ``(B, C, T)``, row by row, each with its caption below; near-square without columns.

    One scale of colours and of amplitudes for the whole sheet, so that loud and soft sounds can be told apart.
    """
    num = len(samples)
    if num == 0:
        raise ValueError("a sheet needs at least one sound")
    if captions and len(captions) != num:
        raise ValueError(f"{len(captions)} captions for {num} sounds")
    if columns is not None and columns < 1:
        raise ValueError(f"columns of a sheet must be at least 1, got {columns}")
    samples = samples.detach().float().cpu()
    columns = min(columns or math.ceil(math.sqrt(num)), num)
    font, small = ImageFont.load_default(FONT_SIZE), ImageFont.load_default(SMALL)
    texts = [_wrap(caption, WIDTH, font) for caption in captions]
    spectrograms = mel_picture(samples, rate)
    loudest = spectrograms.max().item()
    row_height = OUTLINE + HEIGHT + BELOW + max(map(len, texts), default=0) * LINE + GAP
    size = (LEFT + columns * (WIDTH + GAP) + GAP, GAP + math.ceil(num / columns) * row_height + LEGEND)
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    for number in range(num):
        row, column = divmod(number, columns)
        left, top = LEFT + column * (WIDTH + GAP), GAP + row * row_height
        _draw_outline(draw, samples[number], left, top)
        page.paste(Image.fromarray(coloured(spectrograms[number], loudest)), (left, top + OUTLINE))
        _draw_times(draw, samples.shape[-1] / rate, left, top + OUTLINE + HEIGHT, small)
        _draw_frequencies(draw, rate, left, top + OUTLINE, small, labelled=column == 0)
        for line_number, line in enumerate(texts[number] if texts else ()):
            place = (left, top + OUTLINE + HEIGHT + BELOW + line_number * LINE)
            draw.text(place, line, fill=INK, font=font)
    _draw_legend(page, draw, size[1] - LEGEND + 6, small)
    return page


def _draw_outline(draw: ImageDraw.ImageDraw, sample: Tensor, left: int, top: int) -> None:
    """The highest and lowest value of each column's share of ``(C, T)``; full scale fills the height."""
    bounds = np.linspace(0, sample.shape[-1], WIDTH + 1).astype(int)
    middle, half = top + OUTLINE // 2, OUTLINE // 2 - 1
    draw.line([(left, middle), (left + WIDTH - 1, middle)], fill=(215, 215, 215))
    for column in range(WIDTH):
        part = sample[:, bounds[column] : max(bounds[column] + 1, bounds[column + 1])]
        high, low = part.max().item(), part.min().item()
        draw.line([(left + column, middle - high * half), (left + column, middle - low * half)], fill=WAVE)


def _draw_times(draw: ImageDraw.ImageDraw, seconds: float, left: int, top: int, font: ImageFont.ImageFont) -> None:
    step = _step(seconds / 5)
    for number in range(int(seconds / step * (1 + 1e-9)) + 1):
        at = left + number * step / seconds * (WIDTH - 1)
        draw.line([(at, top), (at, top + 3)], fill=INK)
        label = f"{number * step:g}" + (" s" if number == 0 else "")
        width = font.getlength(label)
        draw.text((min(max(at - width / 2, left), left + WIDTH - width), top + 3), label, fill=INK, font=font)


def _step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is no less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (*STEPS, 10) if step * power >= least * (1 - 1e-9))


def _draw_frequencies(
    draw: ImageDraw.ImageDraw, rate: int, left: int, top: int, font: ImageFont.ImageFont, labelled: bool
) -> None:
    highest, last = float(mel(rate / 2)), top + HEIGHT + 2 * SMALL
    for frequency in (each for each in FREQUENCIES if each < rate / 2):
        at = top + HEIGHT - 1 - float(mel(frequency)) / highest * (HEIGHT - 1)
        if last - at < SMALL + 2 or at - top < SMALL // 2:
            continue
        last = at
        draw.line([(left - 4, at), (left - 1, at)], fill=INK)
        if labelled:
            text = f"{frequency // 1000}k" if frequency >= 1000 else str(frequency)
            draw.text((left - 7 - font.getlength(text), at - SMALL // 2 - 2), text, fill=INK, font=font)
    if labelled:
        draw.text((left - 7 - font.getlength("Hz"), top - SMALL - 4), "Hz", fill=INK, font=font)


def _draw_legend(page: Image.Image, draw: ImageDraw.ImageDraw, top: int, font: ImageFont.ImageFont) -> None:
    bar = coloured(torch.linspace(-RANGE, 0, 120).expand(10, -1), 0.0)
    page.paste(Image.fromarray(bar), (LEFT, top))
    text = f"-{RANGE:g} to 0 dB, 0 being the loudest place of this sheet"
    draw.text((LEFT + 128, top - 2), text, fill=INK, font=font)


def _wrap(caption: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    """The caption in lines no wider than ``width`` pixels; a single word that is wider is cut short."""
    lines: list[str] = []
    for paragraph in caption.split("\n"):
        line = ""
        for word in paragraph.split():
            while len(word) > 1 and font.getlength(word) > width:
                word = word.removesuffix("…")[:-1] + "…" if len(word) > 2 else word[:1]
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines

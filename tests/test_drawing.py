"""Grids of pictures, spectrograms with axes and the curve of distances: where things lie, and that bytes repeat."""

from __future__ import annotations

import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from scm_media.drawing import (
    BELOW,
    DECIBELS,
    GAP,
    LEFT,
    LINE,
    OUTLINE_HEIGHT,
    PANEL_WIDTH,
    SPECTROGRAM_HEIGHT,
    draw_curve,
    draw_grid,
    draw_spectrograms,
    scale_picture,
)

ROWS = [
    {"sampler": "consistency", "evaluations": 2, "frechet": 14.0},
    {"sampler": "consistency", "evaluations": 1, "frechet": 40.0},
    {"sampler": "heun", "guidance": 2.0, "evaluations": 63, "frechet": 8.0},
]
METRICS = {"num_samples": 1234, "frechet_held_out": 1.25, "rows": ROWS}


def colours(num, size=(20, 12)):
    return [Image.new("RGB", size, (10 * number, 255 - 10 * number, 7)) for number in range(num)]


def test_a_grid_is_nearly_square_and_each_row_is_as_high_as_its_captions():
    captions = ["", "", "one two three four five", "", "last"]  # 20 pixels: a word or less a line
    page = draw_grid(colours(5), captions)
    tall = len(captions[2].split()) * LINE
    assert page.size == (3 * (20 + GAP) + GAP, 2 * (12 + GAP) + tall + LINE + GAP)
    for number in range(5):
        row, column = divmod(number, 3)
        corner = (GAP + column * (20 + GAP), GAP + row * (12 + GAP + tall))
        pixels = np.asarray(page.crop((*corner, corner[0] + 20, corner[1] + 12)))
        assert (pixels == (10 * number, 255 - 10 * number, 7)).all(), number


def test_columns_and_a_footer():
    footer = Image.new("RGB", (30, 5), (1, 2, 3))
    page = draw_grid(colours(3), columns=2, footer=footer)
    assert page.size == (2 * (20 + GAP) + GAP, 2 * (12 + GAP) + GAP + 5 + GAP)
    assert page.getpixel((GAP + 29, page.height - GAP - 1)) == (1, 2, 3)
    assert draw_grid(colours(2), columns=9).width == 2 * (20 + GAP) + GAP, "no more columns than pictures"


def test_sheets_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at least 1 sample, got none"):
        draw_grid([])
    with pytest.raises(ValueError, match="1 captions for 2 samples"):
        draw_grid(colours(2), ["one"])
    with pytest.raises(ValueError, match="at least 1, got 0"):
        draw_grid(colours(2), columns=0)


def test_small_pictures_are_enlarged_pixel_by_pixel_and_large_ones_shrunk():
    picture = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    large = np.asarray(scale_picture(picture, 7, 100))
    assert large.shape == (8, 12)
    assert (large[::4, ::4] == np.asarray(picture)).all()
    assert (large[3::4, 3::4] == np.asarray(picture)).all()
    assert scale_picture(Image.new("L", (300, 200)), 7, 100).size == (150, 100)
    assert scale_picture(Image.new("L", (30, 20)), 7, 100).size == (30, 20)


def sounds():
    decibels = np.full((2, SPECTROGRAM_HEIGHT, PANEL_WIDTH), -200.0)
    decibels[0, 30, 100], decibels[1, 40, 50] = 0, -DECIBELS / 2
    outlines = np.zeros((2, 2, PANEL_WIDTH))
    outlines[0, 0], outlines[0, 1] = -0.5, 0.5
    return outlines, decibels


def test_a_spectrograms_values_are_pixels_in_one_scale_for_all():
    (first, second), legend = draw_spectrograms(*sounds(), 1.5, {"1k": 0.5})
    box = (LEFT, OUTLINE_HEIGHT, LEFT + PANEL_WIDTH, OUTLINE_HEIGHT + SPECTROGRAM_HEIGHT)
    one, two = (np.asarray(page.crop(box), dtype=int).sum(2) for page in (first, second))
    assert np.unravel_index(one.argmax(), one.shape) == (30, 100)
    assert np.unravel_index(two.argmax(), two.shape) == (40, 50)
    assert one.max() > two.max() + 100, "40 dB softer"
    bar = np.asarray(legend, dtype=int)[8, LEFT + 2 : LEFT + PANEL_WIDTH - 2]
    bright = bar @ [2, 7, 1]
    assert (bright[16:] > bright[:-16]).all(), "lightness rises"
    assert abs(int(np.asarray(second, dtype=int)[OUTLINE_HEIGHT + 40, LEFT + 50].sum()) - bar[len(bar) // 2].sum()) < 12
    tick = np.asarray(first.convert("L"))[OUTLINE_HEIGHT + SPECTROGRAM_HEIGHT // 2 + np.arange(-2, 2), LEFT - 3]
    assert tick.min() < 120, "a tick half way up"
    outline = np.asarray(first.convert("L"))[:OUTLINE_HEIGHT, LEFT + PANEL_WIDTH // 2]
    assert (outline < 200).sum() == pytest.approx(OUTLINE_HEIGHT / 2, abs=2), "half of the full scale"
    assert first.height == OUTLINE_HEIGHT + SPECTROGRAM_HEIGHT + BELOW


def texts(drawing):
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawing)


def test_the_curve_has_a_line_for_each_sampler_and_guidance_the_held_out_distance_and_labelled_axes():
    drawing = draw_curve(METRICS)
    assert drawing.startswith("<svg")
    found = texts(drawing)
    for text in ("consistency", "heun, guidance 2", "held-out data 1.25", "evaluations a sample", "1", "2", "63"):
        assert text in found
    assert "Fréchet distance, n = 1234" in found
    assert {"40", "14", "8"} <= set(found), "each point says its distance"
    assert not any("held-out" in text for text in texts(draw_curve({**METRICS, "frechet_held_out": None})))


def test_names_of_samplers_are_text_and_no_formulas():
    drawing = draw_curve({**METRICS, "rows": [{**ROWS[0], "sampler": "$\\frac{1}{0}$ <b>"}]})
    assert "$\\frac{1}{0}$ &lt;b&gt;" in texts(drawing)


def test_the_same_figures_make_the_same_bytes_whatever_the_users_settings_are():
    curve, panels = draw_curve(METRICS), draw_spectrograms(*sounds(), 1.5, {"1k": 0.5})[0]
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": "other"}):
        again, others = draw_curve(METRICS), draw_spectrograms(*sounds(), 1.5, {"1k": 0.5})[0]
        assert matplotlib.rcParams["font.size"] == 30, "they are left alone"
    assert again == curve
    assert [panel.tobytes() for panel in others] == [panel.tobytes() for panel in panels]
    program = f"import sys; from scm_media.drawing import draw_curve; sys.stdout.write(draw_curve({METRICS!r}))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert run.stdout.decode() == curve, "in another process"

"""Brightness, contrast and sharpness of pictures for which they are known."""

from __future__ import annotations

import math

import pytest
import torch

from modalities.image import ImageModality

MODALITY = ImageModality(size=32, channels=3)


def stripes(period: float, amplitude: float = 0.5, mean: float = 0.0, size: int = 32) -> torch.Tensor:
    """A grey picture ``(1, 3, size, size)`` of sine waves across it."""
    wave = mean + amplitude * torch.sin(2 * math.pi * torch.arange(size) / period)
    return wave.expand(1, 3, size, size)


def test_brightness_is_the_mean_level_of_what_is_seen():
    white, black = torch.ones(1, 3, 32, 32), -torch.ones(1, 3, 32, 32)
    half = torch.cat([white[..., :16], black[..., :16]], -1)
    red, green, blue = (black.clone() for _ in range(3))
    for channel, picture in enumerate((red, green, blue)):
        picture[:, channel] = 1
    figures = MODALITY.statistics(torch.cat([white, black, half, red, green, blue]))
    expected = [255, 0, 127.5, 0.299 * 255, 0.587 * 255, 0.114 * 255]
    assert figures["brightness"].tolist() == pytest.approx(expected, abs=1e-3)
    assert figures["contrast"].tolist() == pytest.approx([0, 0, 127.5, 0, 0, 0], abs=1e-3)
    assert figures["sharpness"].tolist() == pytest.approx([0, 0, 255 / 31, 0, 0, 0], abs=1e-3)


def test_contrast_is_the_deviation_of_a_wave_and_sharpness_grows_with_both_slopes():
    wide, narrow = stripes(32), stripes(8)
    faint = stripes(8, amplitude=0.25, mean=0.3)
    figures = MODALITY.statistics(torch.cat([wide, narrow, faint]))
    assert figures["contrast"].tolist() == pytest.approx([0.5 / 2**0.5 * 127.5] * 2 + [0.25 / 2**0.5 * 127.5], rel=1e-3)
    # The mean of |A sin(x + φ) − A sin x| is 4 A sin(φ / 2) / π, up to the grid's rounding.
    slopes = [4 / math.pi * 0.5 * math.sin(math.pi / period) * 127.5 for period in (32, 8)]
    assert figures["sharpness"][:2].tolist() == pytest.approx(slopes, rel=0.06)
    assert figures["sharpness"][2].item() == pytest.approx(figures["sharpness"][1].item() / 2, rel=1e-3)
    turned = MODALITY.statistics(narrow.transpose(2, 3))
    assert turned["sharpness"].item() == pytest.approx(figures["sharpness"][1].item(), rel=1e-5)


def test_a_blurred_picture_is_less_sharp_by_the_filters_factor():
    picture = stripes(8, size=96)
    blurred = torch.nn.functional.avg_pool2d(picture, 3, 1)
    factor = (1 + 2 * math.cos(2 * math.pi / 8)) / 3
    sharp, soft = (MODALITY.statistics(each)["sharpness"].item() for each in (picture, blurred))
    assert soft / sharp == pytest.approx(factor, rel=0.01)
    noise = 0.2 * torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    sharp, soft = (MODALITY.statistics(each) for each in (noise, torch.nn.functional.avg_pool2d(noise, 3, 1)))
    # Differences of two neighbouring means of nine: twice three of 18 pixels are left, so √(6 / 81) for √2.
    assert (soft["sharpness"] / sharp["sharpness"]).tolist() == pytest.approx([(6 / 81 / 2) ** 0.5] * 4, rel=0.06)
    assert (soft["contrast"] / sharp["contrast"]).tolist() == pytest.approx([1 / 3] * 4, rel=0.1)


def test_grey_pictures_have_figures_and_a_row_of_pixels_has_no_sharpness():
    grey = ImageModality(channels=1).statistics(stripes(8)[:, :1])
    colour = MODALITY.statistics(stripes(8))
    assert set(grey) == set(MODALITY.statistic_units)
    for name, each in grey.items():
        assert each.dtype == torch.float32 and each.item() == pytest.approx(colour[name].item(), rel=1e-5)
    row = MODALITY.statistics(stripes(8)[:, :, :1])
    assert row["sharpness"].isnan().all() and row["contrast"].item() == pytest.approx(colour["contrast"].item())

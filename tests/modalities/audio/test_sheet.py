"""Sheets: what is loud is bright, at its time and at its frequency."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from modalities.audio import AudioModality
from modalities.audio.mel_scale import to_hertz, to_mels
from modalities.audio.sheet import mel_picture
from scm_media.drawing import BELOW, GAP, LEFT, OUTLINE_HEIGHT, PANEL_WIDTH, RIGHT, SPECTROGRAM_HEIGHT

RATE = 22050


def tones(*frequencies, seconds=1.0):
    time = torch.arange(round(seconds * RATE)) / RATE
    return torch.stack([0.5 * torch.sin(2 * math.pi * frequency * time) for frequency in frequencies])[:, None]


@pytest.mark.parametrize("frequency", [200, 1000, 4000, 9000])
def test_a_tone_lies_in_the_row_of_its_frequency(frequency):
    picture = mel_picture(tones(frequency), RATE)[0]
    assert picture.shape == (SPECTROGRAM_HEIGHT, PANEL_WIDTH)
    row = int(picture.mean(1).argmax())
    found = to_hertz(to_mels(RATE / 2) * (SPECTROGRAM_HEIGHT - row - 0.5) / (SPECTROGRAM_HEIGHT + 1))
    assert float(found) == pytest.approx(frequency, rel=0.04, abs=25)
    assert picture.max() - picture[(row + SPECTROGRAM_HEIGHT // 2) % SPECTROGRAM_HEIGHT].median() > 60


def test_time_runs_from_left_to_right_and_channels_do_not_cancel():
    sample = torch.zeros(1, 2, RATE)
    sample[:, 0, RATE // 2 :] = torch.randn(RATE - RATE // 2) * 0.2
    sample[:, 1] = -sample[:, 0]
    picture = mel_picture(sample, RATE)[0]
    assert picture[:, : PANEL_WIDTH // 2 - 8].max() < -60
    assert picture[:, PANEL_WIDTH // 2 + 8 :].median() > 0


def panel(page, number, columns):
    """The spectrogram's pixels of a panel of a sheet without captions."""
    row, column = divmod(number, columns)
    left = GAP + column * (LEFT + PANEL_WIDTH + RIGHT + GAP) + LEFT
    top = GAP + row * (OUTLINE_HEIGHT + SPECTROGRAM_HEIGHT + BELOW + GAP) + OUTLINE_HEIGHT
    return np.asarray(page.crop((left, top, left + PANEL_WIDTH, top + SPECTROGRAM_HEIGHT)), dtype=float)


def test_a_sheet_has_one_scale_for_all_and_lays_them_out_row_by_row():
    samples = tones(1000, 1000, 4000)
    samples[1] *= 0.01  # 40 dB softer
    page = AudioModality().preview(samples, columns=2)
    brightness = [panel(page, number, 2).sum(2) for number in range(3)]
    assert brightness[0].max() > brightness[1].max() + 150
    assert brightness[2].mean(1).argmax() < brightness[0].mean(1).argmax()
    near_square = AudioModality().preview(samples)
    assert near_square.size == page.size


@pytest.mark.parametrize("seconds", [0.002, 0.05, 1.0, 10.0])
def test_sounds_of_any_length_are_shown(seconds):
    page = AudioModality(channels=2).preview(tones(440, 880, seconds=seconds).expand(-1, 2, -1), ["one", "two"])
    assert page.width == 2 * (LEFT + PANEL_WIDTH + RIGHT + GAP) + GAP


def test_captions_wrap_and_silence_has_one_colour():
    plain = AudioModality().preview(torch.zeros(1, 1, RATE), ["word"])
    assert len(np.unique(panel(plain, 0, 1)[2:-2, 2:-2].reshape(-1, 3), axis=0)) == 1, "one colour throughout"
    long = AudioModality().preview(torch.zeros(1, 1, RATE), ["many words in a caption that wraps " * 3])
    assert long.height > plain.height


def test_a_sheet_needs_sounds_and_as_many_captions():
    modality = AudioModality()
    with pytest.raises(ValueError, match="at least 1 sample"):
        modality.preview(torch.zeros(0, 1, 100))
    with pytest.raises(ValueError, match="1 captions for 2 samples"):
        modality.preview(torch.zeros(2, 1, 100), ["one"])
    with pytest.raises(ValueError, match="columns of a sheet must be at least 1, got 0"):
        modality.preview(torch.zeros(2, 1, 100), columns=0)

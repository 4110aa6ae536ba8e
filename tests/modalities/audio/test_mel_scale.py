"""Mel scales and filter banks against librosa and torchaudio."""

from __future__ import annotations

import numpy as np
import pytest
from torchaudio.functional import melscale_fbanks

from modalities.audio.mel_scale import mel_filters, to_hertz, to_mels

BANDS = [(22050, 1024, 80, 0.0, 11025.0), (16000, 512, 40, 60.0, 7600.0), (44100, 2048, 128, 0.0, 22050.0)]
ODD = (11025, 1024, 64, 0.0, 5512.5)


def test_mels_are_slaneys_and_htks():
    assert to_mels(np.array([0.0, 500.0, 1000.0, 6400.0])).tolist() == pytest.approx([0, 7.5, 15, 42])
    assert to_mels(np.array([0.0, 1000.0]), "htk").tolist() == pytest.approx([0, 1000], abs=0.02)
    for scale in ("slaney", "htk"):
        assert to_hertz(to_mels(np.array([20.0, 999.0, 4321.0]), scale), scale).tolist() == pytest.approx(
            [20, 999, 4321]
        )


@pytest.mark.parametrize(("rate", "window", "num_mels", "lowest", "highest"), [*BANDS, ODD])
def test_filters_are_librosas(rate, window, num_mels, lowest, highest):
    from librosa.filters import mel

    filters = mel_filters(rate, window, num_mels, lowest, highest) / (rate / window)
    wanted = mel(sr=rate, n_fft=window, n_mels=num_mels, fmin=lowest, fmax=highest, dtype=np.float64)
    assert np.abs(filters - wanted).max() < 1e-12 * wanted.max()
    assert np.abs(filters.sum(1) * (rate / window) - 1).max() < 0.15


@pytest.mark.parametrize(("rate", "window", "num_mels", "lowest", "highest"), BANDS)
def test_filters_are_torchaudios_to_single_precision(rate, window, num_mels, lowest, highest):
    for scale, norm in (("slaney", "slaney"), ("htk", None)):
        wanted = melscale_fbanks(window // 2 + 1, lowest, highest, num_mels, rate, norm, scale).T.double().numpy()
        filters = mel_filters(rate, window, num_mels, lowest, highest, scale, unit_sum=norm is None)
        if norm is None:
            wide = (wanted > 0).sum(1) > 3  # narrower ones are widened to a bin
            wanted, filters = (wanted / wanted.sum(1, keepdims=True).clip(1e-12))[wide], filters[wide]
        else:
            filters = filters / (rate / window)
        assert np.abs(filters - wanted).max() < 2e-5


def test_filters_of_unit_sum_leave_no_bin_out_however_narrow_they_are():
    filters = mel_filters(8000, 256, 128, 30.0, scale="htk", unit_sum=True)
    assert filters.shape == (128, 129)
    assert filters.sum(1) == pytest.approx(np.ones(128))
    assert (filters > 0).any(0)[1:-1].all()
    assert (mel_filters(8000, 256, 128, 30.0, scale="htk").max(1) == 0).any(), "without it some lie between two bins"
    centres = filters @ np.arange(129) * 8000 / 256
    expected = np.linspace(*to_mels(np.array([30.0, 4000.0]), "htk"), 130)[1:-1]
    # A wide triangle's mean lies above its peak, since corners are further apart upwards.
    assert np.abs(to_mels(centres, "htk") - expected).max() < 30

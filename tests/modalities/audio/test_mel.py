"""Log-mel spectrograms as latents: least squares, Griffin–Lim, and how much of a sound survives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from modalities.audio import LogMelSpectrogram
from modalities.audio.fourier import FourierFrames
from modalities.audio.mel import LogMel
from modalities.audio.mel_scale import mel_filters
from scm_media.testing import check_autoencoder
from tests.modalities.audio.signals import RATE, noise, notes, snr, tones


def fitted(samples, **changes) -> LogMelSpectrogram:
    front = LogMelSpectrogram(RATE, channels=samples.shape[1], **changes)
    front.fit(samples.split(3))
    return front


def test_a_sine_stands_in_its_band():
    frequency, amplitude = 23 * RATE / 1024, 0.3
    sine = amplitude * torch.cos(2 * math.pi * frequency / RATE * torch.arange(8192, dtype=torch.float64))[None, None]
    bands = LogMel(1, RATE)(sine)[0, 0, :, 10].exp()
    # Hann's spectrum has the bins 1/2, 1, 1/2; the window has unit energy.
    peak = amplitude / 2 * math.sqrt(1024) * 0.5 / math.sqrt(3 / 8)
    filters = mel_filters(RATE, 1024, 80)
    assert bands.numpy() == pytest.approx(
        np.maximum(peak * filters[:, 22:25] @ [0.5, 1, 0.5], 1e-5), rel=1e-4, abs=1e-5
    )


def test_least_squares_come_near_those_of_an_exact_solver():
    mel = LogMel(1, RATE, window=256, hop=64, num_mels=24).double()
    log_mel = 2 * torch.randn(1, 1, 24, 6, dtype=torch.float64)  # no spectrum has these bands
    filters, bands = mel.filters.numpy(), log_mel[0, 0].exp().numpy()
    exact = np.array([nnls(filters.T, bands[:, frame])[1] for frame in range(6)])
    found = mel.magnitudes(log_mel, 300)[0, 0]
    assert found.min() >= 0
    error = np.linalg.norm(found.numpy() @ filters - bands.T, axis=1)
    assert error == pytest.approx(exact, rel=0.01)
    start = mel.magnitudes(log_mel, 0)[0, 0].numpy() @ filters - bands.T
    assert (np.linalg.norm(start, axis=1) > 1.1 * error).all()


def test_nothing_is_lost_by_what_bounds_the_logarithm():
    samples = notes().double()
    bounded, fine = LogMel(1, RATE, quietest=1e-3).double(), LogMel(1, RATE, quietest=1e-9).double()
    wanted = fine.magnitudes(fine(samples), 0)
    assert torch.allclose(bounded.magnitudes(bounded(samples), 0), wanted, atol=1e-7, rtol=0)
    assert bounded(torch.zeros_like(samples)).amax().item() == pytest.approx(math.log(1e-3))


def test_each_bin_steps_as_far_as_it_may():
    mel = LogMel(1, RATE, window=256, hop=64, num_mels=24).double()
    product = mel.steps[:, None] * (mel.filters @ mel.filters.T)
    largest = torch.linalg.eigvals(product).abs().max().item()
    assert largest == pytest.approx(1, abs=1e-5)
    assert mel.steps.max() > 3 * mel.steps[mel.steps > 0].min(), "one length for all would be the least of them"


def test_peaks_find_phases_in_few_iterations():
    samples = notes()
    wanted = LogMel(1, RATE)(samples)
    loud = wanted > wanted.amax() - math.log(10**3)

    def error(**keys):
        front = fitted(samples, **keys)
        return (front.mel(front.decode(front.encode(samples))) - wanted)[loud].abs().mean().item()

    assert error(phase="peaks", phase_iterations=4) < 0.9 * error(phase="random", phase_iterations=4)


def test_phases_are_found_for_true_magnitudes():
    frames, samples = FourierFrames(1024, 256), notes()
    magnitudes = frames.analyse(samples).abs()

    def convergence(num_iterations):
        made = frames.analyse(frames.griffin_lim(magnitudes, num_iterations)).abs()
        return 20 * math.log10((magnitudes.norm() / (made - magnitudes).norm()).item())

    assert convergence(32) > convergence(0) + 12
    assert convergence(32) > 18


def test_a_loud_sound_is_lowered_as_a_whole_and_never_cut():
    samples = notes()
    front = fitted(samples)
    latent = torch.cat([front.encode(samples)[:1], front.encode(samples)[:1] + 1.0])  # the second is far too loud
    waveform, decoded = front.waveform(latent), front.decode(latent)
    peaks = waveform.abs().amax((1, 2))
    assert peaks[0] < 1 < peaks[1]
    assert torch.equal(decoded[0], waveform[0])
    assert torch.allclose(decoded[1], waveform[1] / peaks[1], atol=1e-6), "the shape of the wave is kept"


@pytest.mark.parametrize("signal", [noise, tones, notes])
def test_what_is_heard_in_each_band_survives_a_round_trip(signal):
    samples = signal(length=8192)
    front = fitted(samples)
    wanted, found = front.mel(samples), front.mel(front.waveform(front.encode(samples)))
    loud = wanted > wanted.amax() - math.log(10**3)  # within 60 dB of the loudest
    error = 20 / math.log(10) * (found - wanted)[loud].abs().mean().item()
    assert error < {"noise": 1.0, "tones": 4.5, "notes": 2.0}[signal.__name__]
    assert snr(samples, front.decode(front.encode(samples))) < 10, "phases are lost: a waveform does not come back"


def test_the_same_latent_gives_the_same_sound_alone_and_in_a_batch():
    samples = notes()
    front = fitted(samples, phase_iterations=4, magnitude_iterations=4)
    latent = front.encode(samples)
    assert torch.equal(front.decode(latent), front.decode(latent))
    assert torch.allclose(front.decode(latent[2:3]), front.decode(latent)[2:3], atol=1e-4)


def test_the_contract_is_kept():
    samples = notes(num=200, length=2048)
    check_autoencoder(fitted(samples, phase_iterations=2), samples, tolerance=0.2)


def test_shapes_masks_and_stereo():
    samples = torch.cat([noise(), notes()], 1)
    front = fitted(samples, window=512, hop=128, num_mels=40)
    assert front.encode(samples).shape == (8, 2, 40, 64)
    assert front.sample_shape(front.latent_shape((2, 8192))) == (2, 8192)
    mask = torch.ones(1, 1, 512)
    mask[..., 300:] = 0
    assert front.latent_mask(mask).shape == (1, 1, 40, 4)
    assert front.latent_mask(mask)[0, 0, 7].tolist() == [1, 1, 0, 0]
    with pytest.raises(ValueError, match=r"modality.multiple=128"):
        front.encode(samples[..., :1000])


def test_silence_comes_back_as_almost_nothing():
    front = fitted(notes())
    assert front.decode(front.encode(torch.zeros(1, 1, 2048))).abs().max() < 1e-4


def test_weights_carry_the_scale_alone():
    samples = notes()
    front, loaded = fitted(samples), LogMelSpectrogram(RATE)
    with pytest.raises(ValueError, match="never fitted"):
        loaded.encode(samples)
    assert sorted(front.state_dict()) == ["scale.mean", "scale.std", "scale.trained"]
    loaded.load_state_dict(front.state_dict())
    assert torch.equal(loaded.encode(samples), front.encode(samples))


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match=r"log-mel spectrogram of waveform channel 0 has standard deviation 0\.0"):
        fitted(torch.zeros(2, 1, 2048))
    with pytest.raises(ValueError, match="deviation nan"):
        fitted(torch.full((2, 1, 2048), torch.nan))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"num_mels": 400}, "mel bands lie between two bins, which are 21.5332 Hz apart"),
        ({"num_mels": 0}, "num_mels must lie in 1 … 512, got 0"),
        ({"highest": 12000.0}, r"\[0, 11025\] Hz.*got 0 and 12000"),
        ({"lowest": 500.0, "highest": 400.0}, "got 500 and 400"),
        ({"phase_iterations": -1}, "phase_iterations must lie in 0 … 1000"),
        ({"phase": "zero"}, "phase must be one of peaks, random, got 'zero'"),
        ({"quietest": 0.0}, r"quietest must be a positive magnitude, got 0\.0"),
    ],
)
def test_keys_that_cannot_be_are_refused(keys, expected):
    with pytest.raises(ValueError, match=expected):
        LogMelSpectrogram(RATE, **keys)


def test_it_is_described_without_storage():
    with torch.device("meta"):
        assert LogMelSpectrogram(RATE).latent_shape((1, 22016)) == (1, 80, 86)

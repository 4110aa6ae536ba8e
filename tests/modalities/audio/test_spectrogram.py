"""Complex spectrograms as latents: exact inverse, scales, masks, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from modalities.audio import ComplexSpectrogram
from scm_media.testing import check_autoencoder
from tests.modalities.audio.signals import noise, notes, snr, tones

SIGNALS = {"noise": noise, "tones": tones, "notes": notes}


def fitted(samples, **changes) -> ComplexSpectrogram:
    front = ComplexSpectrogram(channels=samples.shape[1], **changes)
    front.fit(samples.split(3))
    return front


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"window": 1024, "hop": 256, "equalise": 1.0},
        {"exponent": 1.0, "hop": 128},
        {"phase": "advance"},
        {"phase": "advance", "phase_iterations": 4},
        {"phase": "advance", "window": 1024, "hop": 512},
    ],
)
def test_a_round_trip_is_exact(signal, keys):
    samples = SIGNALS[signal]()
    front = fitted(samples, **keys)
    assert snr(samples, front.decode(front.encode(samples))) > 110


@pytest.mark.parametrize("phase", ["absolute", "advance"])
@pytest.mark.parametrize("exponent", [0.3, 0.5, 1.0])
def test_in_float64_a_round_trip_is_exact_to_the_last_digits(exponent, phase):
    samples = notes().double()
    front = fitted(samples, exponent=exponent, phase=phase)
    assert snr(samples, front.waveform(front.encode(samples))) > 220


def test_scales_of_one_kind_of_sound_invert_another():
    front = fitted(tones(), equalise=1.0)
    samples = noise()
    assert snr(samples, front.decode(front.encode(samples))) > 100


@pytest.mark.parametrize("phase", ["absolute", "advance"])
def test_silence_is_zero_and_comes_back_as_silence(phase):
    front = fitted(notes(), phase=phase)
    silence = torch.zeros(2, 1, 2048)
    latent = front.encode(silence)
    assert torch.equal(latent, torch.zeros_like(latent))
    assert torch.equal(front.decode(latent), silence)


def test_a_sine_stands_in_its_bin_with_its_compressed_amplitude():
    bin_, amplitude, phase = 40, 0.3, 0.7
    time = torch.arange(4096, dtype=torch.float64)
    samples = amplitude * torch.cos(2 * math.pi * bin_ / 512 * time + phase)[None, None]
    front = fitted(noise(), equalise=0.0, exponent=0.5)
    latent = front.encode(samples)[0, :, :, 4]
    magnitude = torch.linalg.vector_norm(latent, dim=0)
    scale = front.sigma_data / front.deviation.double().square().mean().sqrt()
    # Hann's spectrum has the bins 1/2, 1, 1/2; its mean is 1/2, its mean square 3/8.
    peak = amplitude / 2 * math.sqrt(512) * 0.5 / math.sqrt(3 / 8)
    assert magnitude[bin_].item() == pytest.approx(peak**0.5 * scale.item(), rel=1e-5)
    assert magnitude[bin_ + 1].item() == pytest.approx((peak / 2) ** 0.5 * scale.item(), rel=1e-5)
    # Frame 4 begins at sample 4 · 256 − 128, half a turn of 512 samples and an eighth of one before.
    angle = phase + 2 * math.pi * bin_ / 512 * (4 * 256 - 128)
    found = torch.atan2(latent[1, bin_], latent[0, bin_]).item()
    assert math.cos(found - angle) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("equalise", [0.0, 0.5, 1.0])
def test_latents_have_the_flows_deviation(equalise):
    samples = notes(num=64)
    front = fitted(samples, equalise=equalise, sigma_data=0.8)
    latent = front.encode(samples)
    assert latent.square().mean().sqrt().item() == pytest.approx(0.8, rel=1e-3)
    assert torch.allclose(latent.transpose(0, 1).flatten(1).std(1), torch.tensor(0.8), rtol=0.1)


def test_equalising_moves_each_bin_towards_one_deviation():
    samples = noise(num=32, length=4096)
    samples = torch.nn.functional.avg_pool1d(samples, 16, 1)[..., : 15 * 256]
    spread = []
    for equalise in (0.0, 0.5, 1.0):
        bins = fitted(samples, equalise=equalise).encode(samples).square().mean((0, 1, 3)).sqrt()
        spread.append((bins.max() / bins.min()).item())
    assert spread[1] == pytest.approx(spread[0] ** 0.5, rel=1e-3)
    assert spread[2] == pytest.approx(1, abs=1e-3)


def test_bins_that_never_change_are_not_blown_up():
    """A band-limited recording: nothing above a quarter of the sampling rate but rounding."""
    spectrum = torch.fft.rfft(noise(num=16).double())
    spectrum[..., spectrum.shape[-1] // 2 :] = 0
    fade = torch.hann_window(8192, dtype=torch.float64)
    samples = (torch.fft.irfft(spectrum) * fade * 2**19).round().float() / 2**19
    front = fitted(samples, equalise=1.0)
    bins = front.encode(samples).square().mean((0, 1, 3)).sqrt()
    assert bins[4:120].min() > 0.45
    assert bins[200:].max() < 0.1
    assert snr(samples, front.decode(front.encode(samples))) > 100
    constant = torch.full((2, 1, 1024), 0.5)
    still = fitted(constant, equalise=1.0)
    assert still.encode(constant).isfinite().all()


def test_channels_have_scales_of_their_own():
    samples = torch.cat([noise(seed=1), 0.01 * noise(seed=2)], 1)
    front = fitted(samples)
    latent = front.encode(samples)
    assert latent.shape == (8, 4, 256, 32)
    assert torch.allclose(latent.transpose(0, 1).flatten(1).std(1), torch.full((4,), 0.5), rtol=0.02)
    assert torch.equal(front.decode(latent)[:, 1:], fitted(samples[:, 1:]).decode(latent[:, 2:]))


def test_the_contract_is_kept():
    samples = notes(num=200, length=2048)
    check_autoencoder(fitted(samples), samples, tolerance=1e-5)


def test_shapes_invert_each_other_and_refuse_what_does_not_divide():
    front = ComplexSpectrogram(channels=2, window=1024, hop=256)
    assert front.latent_shape((2, 22016)) == (4, 512, 86)
    assert front.sample_shape((4, 512, 86)) == (2, 22016)
    for length in (22050, 100, 0):
        with pytest.raises(ValueError, match=rf"{length} samples .* multiple of its hop, 256.*modality.multiple=256"):
            front.latent_shape((2, length))
    with pytest.raises(ValueError, match=r"multiple of its hop, 256"):
        front.fit([torch.zeros(1, 2, 300)])


def test_a_clip_does_not_depend_on_its_batch():
    samples = noise()
    front = fitted(samples)
    latent = front.encode(samples)
    assert torch.equal(front.encode(samples[3:4]), latent[3:4])
    assert torch.equal(front.decode(latent)[3:4], front.decode(latent[3:4]))


def test_a_phase_that_advances_is_that_of_the_frequency_beside_the_bins_whatever_it_began_with():
    time, beside = torch.arange(8192, dtype=torch.float64), 0.2
    waves = [0.3 * torch.cos(2 * math.pi * (40 + beside) / 512 * time + phase) for phase in (0.0, 1.0, 2.5)]
    front = fitted(noise(), phase="advance")
    latent = front.encode(torch.stack(waves)[:, None])[:, :, 39:43, 2:-2]
    assert torch.allclose(latent, latent[:1, :, :, :1].expand_as(latent), rtol=1e-4)
    # Half a window further, a fifth of a bin is a tenth of a turn; it is half a turn more seen from each bin beside.
    turns = torch.atan2(latent[:, 1], latent[:, 0]) / (2 * math.pi) - torch.tensor([0.6, 0.1, -0.4, 0.1])[:, None]
    assert (turns - turns.round()).abs().max() < 1e-4


def test_a_phase_that_advances_survives_gaps_of_digital_silence():
    samples = notes()
    samples[:, :, 4096:8192] = 0
    front = fitted(notes(), phase="advance")
    latent = front.encode(samples)
    assert (latent[..., 17:31] == 0).all()
    assert snr(samples, front.decode(latent)) > 110
    assert torch.equal(front.decode(latent)[..., 4608:7680], samples[..., 4608:7680])


def test_frames_whose_phases_disagree_are_brought_to_agree():
    samples = notes()
    latent = fitted(samples, phase="advance").encode(samples)
    turned = torch.view_as_complex(latent.unflatten(1, (1, 2)).movedim(2, -1).contiguous())
    errors = torch.randn(turned.shape, generator=torch.Generator().manual_seed(0)) * 0.3
    turned = torch.view_as_real(turned * torch.polar(torch.ones_like(errors), errors)).movedim(-1, 2).flatten(1, 2)
    off = {}
    for iterations in (0, 4):
        front = fitted(samples, phase="advance", phase_iterations=iterations)
        heard = front.frames.analyse(front.waveform(turned)[:, 0]).abs()
        wanted = front.frames.analyse(samples[:, 0]).abs()
        off[iterations] = float((heard - wanted).square().sum() / wanted.square().sum())
    assert off[4] < off[0] / 3


def test_a_shift_by_a_hop_is_a_shift_by_a_frame_and_a_turned_sign_a_turned_latent():
    samples = noise()
    front = fitted(samples)
    latent = front.encode(samples)
    assert torch.allclose(front.encode(samples.roll(256, -1))[..., 2:-1], latent[..., 1:-2], atol=1e-5)
    assert torch.equal(front.encode(-samples), -latent)


def test_masks_count_frames_whose_own_hop_is_whole():
    front = ComplexSpectrogram()
    mask = torch.zeros(2, 1, 1024)
    mask[0, :, :768] = 1
    mask[1, :, :767] = 1
    latent = front.latent_mask(mask)
    assert latent.shape == (2, 1, 256, 4)
    assert latent[0, 0, 0].tolist() == [1, 1, 1, 0]
    assert latent[1, 0, 255].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("phase", ["absolute", "advance"])
def test_gradients_pass_in_both_directions_and_agree_with_differences(phase):
    samples = noise(num=1, length=20).double()
    front = fitted(samples, window=8, hop=4, phase=phase)
    assert torch.autograd.gradcheck(front.encode, samples.clone().requires_grad_(), atol=1e-4, fast_mode=True)
    assert torch.autograd.gradcheck(front.waveform, front.encode(samples).requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("phase", ["absolute", "advance"])
def test_silence_has_finite_gradients(phase):
    front = fitted(notes(), phase=phase)
    silence = torch.zeros(1, 1, 1024, requires_grad=True)
    front.encode(silence).sum().backward()
    assert silence.grad.isfinite().all()
    latent = torch.zeros(1, 2, 256, 4, requires_grad=True)
    front.waveform(latent).sum().backward()
    assert latent.grad.isfinite().all()


def test_what_is_too_loud_is_clipped_only_on_the_way_out():
    front = fitted(noise())
    latent = 9 * front.encode(noise(level=0.5))
    assert front.decode(latent).abs().max() == 1
    assert front.waveform(latent).abs().max() > 5


def test_half_precision_latents_are_decoded_in_single():
    samples = noise()
    front = fitted(samples)
    made = front.decode(front.encode(samples).bfloat16())
    assert made.dtype == torch.float32
    assert 30 < snr(samples, made) < 60


def test_weights_carry_the_scales():
    samples = notes()
    front, loaded = fitted(samples), ComplexSpectrogram()
    for refused in (lambda: loaded.encode(samples), lambda: loaded.decode(torch.zeros(1, 2, 256, 4))):
        with pytest.raises(ValueError, match="never fitted"):
            refused()
    loaded.load_state_dict(front.state_dict())
    assert sorted(front.state_dict()) == ["deviation", "trained"]
    assert torch.equal(loaded.encode(samples), front.encode(samples))


def test_statistics_do_not_depend_on_the_batches():
    samples = notes()
    one, other = ComplexSpectrogram(), ComplexSpectrogram()
    one.fit([samples])
    other.fit(samples.split([1, 5, 2]))
    assert torch.allclose(one.deviation, other.deviation, rtol=1e-6)


def test_what_cannot_be_measured_is_refused_and_leaves_the_old_scales():
    samples = torch.cat([noise(), noise(seed=1)], 1)
    front = fitted(samples)
    before = front.deviation.clone()
    with pytest.raises(ValueError, match="no samples to measure"):
        front.fit([])
    silent = samples.clone()
    silent[:, 1] = 0
    with pytest.raises(ValueError, match=r"waveform channel 1 have deviation 0\.0"):
        front.fit([silent])
    silent[:, 1] = torch.nan
    with pytest.raises(ValueError, match=r"waveform channel 1 have deviation nan"):
        front.fit([silent])
    with pytest.raises(ValueError, match=r"\(batch, 2, samples\).*modality.channels"):
        front.fit([samples[:, :1]])
    with pytest.raises(ValueError, match=r"latents \(batch, 4, 256, frames\)"):
        front.decode(torch.zeros(1, 4, 128, 4))
    assert torch.equal(front.deviation, before)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"window": 511}, "window must be an even number"),
        ({"phase_iterations": -1}, "phase_iterations must lie in 0 … 1000, got -1"),
        ({"hop": 300}, r"at most half of it \(256\), got 300"),
        ({"hop": 255}, "even or odd as the window"),
        ({"hop": 0}, "got 0"),
        ({"exponent": 0.0}, r"exponent must lie in \(0, 1\]"),
        ({"equalise": 1.5}, r"equalise must lie in \[0, 1\]"),
        ({"channels": 0}, "channels must be at least 1"),
        ({"sigma_data": 0.0}, "sigma_data"),
        ({"phase": "random"}, "phase must be one of absolute, advance, got 'random'"),
    ],
)
def test_keys_that_cannot_be_are_refused(keys, expected):
    with pytest.raises(ValueError, match=expected):
        ComplexSpectrogram(**keys)

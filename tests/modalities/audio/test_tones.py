"""Synthetic tones: pure functions of seed and index, of the kind and the pitch that their labels say."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from modalities.audio import AudioModality
from modalities.audio.tones import SOUND_KINDS, TonesDataset

SOUNDS = AudioModality(sample_rate=8000, duration=0.5)


def spectrum(sample: torch.Tensor) -> torch.Tensor:
    """Power by Hz of a mono sample ``(1, T)`` at 8 kHz."""
    window = torch.hann_window(sample.shape[1])
    return torch.fft.rfft(sample[0] * window, n=8000).abs().square()


def hertz(pitch: str) -> float:
    return 440 * 2 ** ((int(pitch) - 69) / 12)


def test_sounds_are_functions_of_seed_and_index():
    dataset = TonesDataset(modality=SOUNDS, num=60, seed=4)
    batch = dataset.batch([7, 51, 7])
    assert torch.equal(batch.sample[0], batch.sample[2])
    assert torch.equal(dataset[51].sample, batch.sample[1])
    assert torch.equal(TonesDataset(modality=SOUNDS, num=90, seed=4)[7].sample, batch.sample[0])
    assert not torch.equal(TonesDataset(modality=SOUNDS, num=60, seed=5)[7].sample, batch.sample[0])


def test_every_kind_meets_every_pitch():
    dataset = TonesDataset(modality=SOUNDS, num=96)
    labels = dataset.batch(range(96)).labels
    pairs = set(zip(labels["kind"].tolist(), labels["pitch"].tolist(), strict=True))
    assert len(pairs) == 48
    assert dataset.label_counts == {"kind": (24,) * 4, "pitch": (8,) * 12}


def test_held_out_sounds_are_others():
    train = TonesDataset(modality=SOUNDS, num=100)
    held_out = TonesDataset(modality=SOUNDS, num=100, split="held_out", held_out=0.1)
    assert len(held_out) == 10
    seen = {tuple(sample.flatten().tolist()) for sample in train.batch(range(100)).sample}
    assert not seen & {tuple(sample.flatten().tolist()) for sample in held_out.batch(range(10)).sample}


def test_sounds_are_heard_at_their_pitch():
    dataset = TonesDataset(modality=SOUNDS, num=48)
    for index in range(48):
        example = dataset[index]
        kind = SOUND_KINDS[example.labels["kind"]]
        expected = hertz(dataset.label_names["pitch"][example.labels["pitch"]])
        power = spectrum(example.sample)
        if kind in ("tone", "pluck"):
            assert abs(int(power[: int(1.5 * expected)].argmax()) - expected) < 0.03 * expected
        elif kind == "noise":
            inside = power[int(expected / 1.4) : int(expected * 1.4)].sum() / power.sum()
            assert inside > 0.9
            assert power.max() / power.sum() < 0.3, "no single line"
        else:
            fundamental = power[int(0.9 * expected) : int(2.2 * expected)]
            assert (fundamental > 0.02 * fundamental.max()).float().mean() > 0.4, "from the pitch to its octave"


def test_a_pluck_dies_away_and_a_tone_does_not():
    dataset = TonesDataset(modality=SOUNDS, num=8)
    ratio = {}
    for index in range(8):
        sample = dataset[index].sample[0]
        kind = SOUND_KINDS[dataset[index].labels["kind"]]
        ratio[kind] = float(sample[2800:3600].abs().max() / sample[200:1000].abs().max())
    assert ratio["pluck"] < 0.3 < 0.8 < ratio["tone"]


@pytest.mark.parametrize("channels", [1, 2])
def test_samples_lie_in_range(channels):
    sample = TonesDataset(modality=AudioModality(8000, 0.25, channels), num=48).batch(range(48)).sample
    assert sample.shape == (48, channels, 2000)
    assert sample.abs().amax((1, 2)).min() > 0.1
    assert sample.abs().max() <= 1
    assert sample[..., 0].abs().max() < 0.01, "they rise from silence"


def test_what_tones_cannot_be_is_refused():
    with pytest.raises(ValueError, match="data=folder"):
        TonesDataset(modality=SOUNDS, root="sounds")
    with pytest.raises(ValueError, match=r"picture asks for \(1, 8, 8\)"):
        TonesDataset(modality=SimpleNamespace(name="picture", shape=lambda: (1, 8, 8)))
    with pytest.raises(ValueError, match=r"data\.num"):
        TonesDataset(modality=SOUNDS, num=0)
    with pytest.raises(IndexError):
        TonesDataset(modality=SOUNDS, num=4)[4]

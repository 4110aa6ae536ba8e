"""Sounds that are continued and go on beyond a clip: real files, the complex spectrogram, an untrained network."""

from __future__ import annotations

import json

import pytest
import soundfile
import torch

import scm_media
from modalities.audio.modality import AudioModality
from scm_media import weights
from scm_media.build import build
from scm_media.cli import main
from scm_media.networks import ROLES

RATE, CLIP = 8000, 2048
MODALITY = {
    "_target_": "modalities.audio.modality.AudioModality",
    "sample_rate": RATE,
    "duration": 0.256,
    "multiple": 256,
}
NETWORKS = {
    "autoencoder": {"_target_": "modalities.audio.spectrogram.ComplexSpectrogram", "window": 128, "hop": 64},
    "student": {
        "_target_": "scm_media.nn.transformer.Transformer",
        "in_channels": 2,
        "rank": 2,
        "patch": [16, 4],
        "width": 16,
        "depth": 1,
        "num_heads": 2,
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder: the front end measured on a sweep, a network of random weights."""
    folder = tmp_path_factory.mktemp("sounds")
    generator = torch.Generator().manual_seed(0)
    for name, config in NETWORKS.items():
        network = build(config, ROLES[name])
        if name == "autoencoder":
            network.fit([torch.sin(torch.arange(CLIP) ** 1.5 / 50)[None, None] * 0.5])
        for parameter in network.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
        weights.save(folder / f"{name}.safetensors", network.state_dict(), config)
    description = {
        "format": 2,
        "name": "test/sounds",
        "modality": MODALITY,
        "flow": {"_target_": "scm_media.trigflow.TrigFlow", "sigma_data": 0.5},
        "sampler": {"steps": 2},
        "labels": {},
        "label_counts": {},
        "sample_shape": [1, CLIP],
        "latent_shape": [2, 64, 32],
    }
    (folder / "model.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def recording(tmp_path):
    """Two thirds of a second of a tone, in stereo and at another rate."""
    wave = 0.4 * torch.sin(torch.arange(10_667) * 0.11)
    soundfile.write(tmp_path / "tone.flac", torch.stack([wave, wave], 1).numpy(), 16_000)
    return tmp_path / "tone.flac"


def test_what_is_kept_comes_back_but_for_the_fade_and_nothing_jumps(model, recording):
    pipeline = scm_media.load(model, "cpu")
    keep, duration, fade = 0.1, 1.024, 80
    clips = pipeline.edit("continue", recording, 2, keep=keep, duration=duration, steps=3)
    assert clips.samples.shape == (2, 1, 8192)
    given = pipeline.modality.read(recording)[:, -800:]
    assert torch.equal(clips.samples[..., : 800 - fade], given[:, :-fade].expand(2, 1, -1))
    steps = clips.samples.diff().abs()
    assert steps[..., 799 - fade : 801].max() <= steps[..., 801:2000].max()
    windows = [place for place in range(CLIP, 8192, 1536)]
    assert max(steps[..., place - 1].max() for place in windows) <= steps[..., 801:].max()


def test_a_gap_in_a_long_recording_is_filled_from_both_sides(model, recording):
    pipeline = scm_media.load(model, "cpu")
    given = pipeline.modality.read(recording)
    samples = pipeline.edit("inpaint", recording, 1, region=[0.3, 0.4], steps=2).samples[0]
    assert samples.shape == given.shape
    changed = torch.nonzero((samples != given)[0]).flatten()
    assert 2400 - 80 <= changed.min() <= 2400
    assert 3199 <= changed.max() < 3200 + 80


def test_the_command_writes_a_sound_as_long_as_asked(model, recording, tmp_path, capsys):
    words = ["edit", str(model), "--task", "continue", "--input", str(recording), "--steps", "2", "--duration", "0.6"]
    assert main([*words, "--out", str(tmp_path / "out"), "--json"]) == 0
    (clip,) = json.loads(capsys.readouterr().out)["samples"]
    written = soundfile.info(clip["path"])
    assert (written.samplerate, written.channels, written.frames) == (RATE, 1, 4864)
    assert main(["generate", str(model), "--duration", "3", "--out", str(tmp_path / "long"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert soundfile.info(report["samples"][0]["path"]).frames == 24064
    assert report["evaluations"] == 2 + 15 * 16


def test_a_clip_is_drawn_at_once_up_to_the_recipes_duration():
    size_option = AudioModality(sample_rate=RATE, duration=0.256, multiple=256).size_options["duration"]
    assert (size_option.longest, size_option.axis, size_option.rate) == (0.256, -1, RATE)

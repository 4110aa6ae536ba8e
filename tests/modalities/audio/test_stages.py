"""Every front end under ``scm-media train``: its own stage, then a backbone in its latents, then clips."""

from __future__ import annotations

import json
import shutil

import pytest
import soundfile
import torch

import scm_media
from scm_media import recipe, weights
from scm_media.build import build, resolve
from scm_media.cli import main
from scm_media.training.stages import autoencoder
from tests.modalities.audio.signals import notes
from tests.named_parts import named_parts
from tests.training.small import metrics, same, state

RECIPE = """
defaults: [/base, {{/modality: audio}}, {{/data: folder}}, {{/autoencoder: {name}}}, {{/backbone: transformer}}, _self_]
run_dir: run
device: cpu
modality: {{sample_rate: 8000, duration: 0.256, multiple: 256, crop: start}}
data: {{root: sounds, held_out: 0.25}}
autoencoder: {{num_samples: 8}}
backbone: {{patch: [{patch}, 2], width: 16, depth: 1, num_heads: 2}}
teacher: {{max_steps: 2, batch_size: 4, warmup_steps: 0, loss: {{label_dropout: 0.0}}}}
student: {{max_steps: 2, batch_size: 4}}
sampler: {{teacher_steps: 2}}
trainer: {{log_every: 1, checkpoint_every: 2, sample_every: 1000, validate_every: 1000, sample_early: [],
  num_preview_samples: 2}}
"""
STEPS = ("autoencoder.max_steps=4", "autoencoder.batch_size=4", "autoencoder.warmup_steps=0")
CRITIC = (
    "autoencoder.loss.distance.windows=[128,256]",
    "autoencoder.loss.adversarial_weight=0.5",
    "autoencoder.loss.adversarial_start=1",
    "autoencoder.loss.critic.windows=[128]",
    "autoencoder.loss.critic.width=4",
)
FRONTS = {
    "complex_spectrogram": (16, ("window=128", "hop=64"), (), (2, 64, 32)),
    "log_mel": (8, ("window=256", "hop=64", "num_mels=24", "phase_iterations=2"), (), (1, 24, 32)),
    "vocoder": (
        8,
        ("window=256", "hop=64", "num_mels=24", "width=8", "depth=1"),
        (*STEPS, *CRITIC, "autoencoder.loss.distance.num_mels=24"),
        (1, 24, 32),
    ),
    "spectral_kl": (
        4,
        ("front.window=128", "front.hop=64", "strides=[[2,1],[2,4]]", "widths=[8,8]", "latent_channels=3"),
        (*STEPS, *CRITIC),
        (3, 16, 8),
    ),
}
"""Group to the patch along frequency, keys of its network, its other keys, and the shape of a latent."""


MADE_HERE = {
    "complex_spectrogram": (2, 256, 88),
    "log_mel": (1, 80, 88),
    "vocoder": (1, 80, 88),
    "spectral_kl": (16, 32, 22),
    "mel_kl": (8, 20, 22),
}
"""Group to the shape of a latent of a second at 22.05 kHz."""


@pytest.mark.parametrize("name", [*MADE_HERE, "vocos", "oobleck"])
def test_each_group_composes_and_describes_what_can_be_built(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(RECIPE.format(name=name, patch=1))
    second = ["modality.sample_rate=22050", "modality.duration=1", "modality.multiple=1024"]
    given = [] if name in MADE_HERE else ["autoencoder.network.weights=mine.safetensors"]
    config = recipe.compose("mine.yaml", [*second, *given])
    for target, role in named_parts(config["autoencoder"], ("autoencoder",)):
        resolve(target, role)
    if name in MADE_HERE:
        with torch.device("meta"):
            network = build(config["autoencoder"]["network"], "autoencoder")
            if "loss" in config["autoencoder"]:
                build(config["autoencoder"]["loss"], "loss", network=network)
        assert network.latent_shape(build(config["modality"], "modality").shape()) == MADE_HERE[name]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twelve short WAV files of two classes, in the working folder."""
    for number, sample in enumerate(notes(num=12, length=2048)):
        path = tmp_path / "sounds" / ("high" if number > 5 else "low") / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sample[0].numpy(), 8000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(folder, name: str, *overrides: str) -> int:
    patch, network, others, _ = FRONTS[name]
    (folder / "mine.yaml").write_text(RECIPE.format(name=name, patch=patch))
    keys = [f"autoencoder.network.{key}" for key in network]
    return main(["train", "mine.yaml", "logger=none", *keys, *others, *overrides])


@pytest.mark.parametrize(
    "name",
    [
        "log_mel",
        "spectral_kl",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("complex_spectrogram", "vocoder")),
    ],
)
def test_a_recipe_with_it_is_trained_and_makes_clips(folder, name):
    assert train(folder, name) == 0
    run_dir = folder / "run"
    assert json.loads((run_dir / "model.json").read_text())["latent_shape"] == list(FRONTS[name][3])
    made = scm_media.load(str(run_dir))(2, steps=2, seed=1)
    assert made.samples.shape == (2, 1, 2048)
    assert made.samples.abs().max() <= 1
    assert made.samples.std() > 0
    # What is left is all that is needed: the scales measured on the way are among the weights.
    config = recipe.compose(str(run_dir / "recipe.yaml"))
    network = build(config["autoencoder"]["network"], "autoencoder")
    weights.load_into(network, state(run_dir, "autoencoder"), run_dir)
    samples = torch.stack(
        [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in sorted(folder.glob("sounds/*/*.wav"))]
    )[:, None]
    latent = network.encode(samples).transpose(0, 1).flatten(1).detach()
    assert torch.allclose(latent.std(1), torch.tensor(0.5), rtol=0.3)
    if FRONTS[name][2]:
        terms = metrics(run_dir / "autoencoder")[1]
        assert {"convergence", "log_magnitude", "psnr", "score_made"} <= terms.keys()


@pytest.mark.slow
def test_scales_measured_before_training_are_not_measured_again_when_it_goes_on(folder, monkeypatch):
    only = "stage=autoencoder"
    assert train(folder, "spectral_kl", only) == 0
    whole = state(folder / "run", "autoencoder")
    checkpoints = folder / "run" / "autoencoder" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-2", "step-4"]
    shutil.rmtree(checkpoints / "step-4")
    (folder / "run" / "autoencoder" / "weights.safetensors").unlink()
    monkeypatch.setattr(autoencoder, "NUM_PREPARED", None)  # measuring would fail
    assert train(folder, "spectral_kl", only) == 0
    assert same(whole, state(folder / "run", "autoencoder"))
    assert whole["front.trained"]


def test_a_length_that_does_not_fit_names_the_key_to_set(folder, capsys):
    assert train(folder, "spectral_kl", "modality.multiple=1", "modality.duration=0.25") == 1
    assert "modality.multiple=256" in capsys.readouterr().err

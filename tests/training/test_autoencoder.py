"""The stage that trains an autoencoder: what it leaves, how it resumes, and a recipe that goes on in its latents."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import scm_media
from scm_media import recipe, training, weights
from scm_media.build import build
from scm_media.data import batches
from scm_media.training import checkpoints
from scm_media.training.context import prepare
from scm_media.training.stages import autoencoder
from tests.training.small import SMALL, metrics, same, state, train

LATENT = (
    "autoencoder=kl",
    "autoencoder.num_samples=null",
    "autoencoder.network.factor=4",
    "autoencoder.network.width=8",
    "autoencoder.network.depth=1",
    "autoencoder.network.latent_channels=2",
    "autoencoder.max_steps=6",
    "autoencoder.batch_size=8",
    "autoencoder.warmup_steps=1",
    "autoencoder.optimizer.lr=3.0e-3",
    "modality.flip=false",
    "data.held_out=0.2",
    "backbone.patch=1",
)
FEATURE_EXTRACTOR = (
    "feature_extractor={network: {_target_: modalities.image.features.ImageClassifier, channels: 1, width: 4}, "
    "max_steps: 2, batch_size: 4, optimizer: {_target_: torch.optim.Adam, lr: 0.01}}"
)
CRITIC = ("autoencoder.loss.adversarial_weight=0.5", "autoencoder.loss.adversarial_start=3")


def small(run_dir: Path, *overrides: str) -> Path:
    return train(run_dir, *LATENT, *overrides)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A recipe with a feature network and a critic, trained from the first stage to the last."""
    return small(tmp_path_factory.mktemp("latent"), FEATURE_EXTRACTOR, *CRITIC)


def test_every_stage_is_trained_in_latent_space_and_samples_come_out(run_dir):
    description = json.loads((run_dir / "model.json").read_text())
    assert description["sample_shape"] == [1, 16, 16]
    assert description["latent_shape"] == [2, 4, 4]
    for stage in ("feature_extractor", "autoencoder", "teacher", "student"):
        assert (run_dir / stage / "weights.safetensors").is_file(), stage
    clips = scm_media.load(str(run_dir))(3, steps=2, seed=1)
    assert clips.samples.shape == (3, 1, 16, 16)
    assert clips.samples.abs().max() <= 1


def test_the_stage_reports_reconstructions_of_held_out_samples(run_dir):
    lines = metrics(run_dir / "autoencoder")
    assert {"loss", "reconstruction", "perceptual", "kl", "psnr", "score_real", "score_made"} <= lines[1].keys()
    watched = [line for line in lines if "held_out_average/psnr" in line]
    assert [line["step"] for line in watched] == [0, 6]
    assert {"held_out_average/feature_distance"} <= watched[-1].keys()
    assert any("held_out/psnr" in line for line in lines)
    told = json.loads((run_dir / "autoencoder" / "metrics.json").read_text())
    config = recipe.compose(str(run_dir / "recipe.yaml"))
    held_out = build(config["data"], "data", modality=build(config["modality"], "modality"), split="held_out")
    assert told["num_samples"] == len(held_out) == 13  # more than a step takes: measured in two batches
    network = build(config["autoencoder"]["network"], "autoencoder")
    network.load_state_dict(state(run_dir, "autoencoder"))
    sample = next(batches(held_out, len(held_out), 0, 1, 0)).sample
    error = (network.decode(network.encode(sample)) - sample).square().flatten(1).mean(1)
    assert told["psnr"] == pytest.approx((10 * (4 / error).log10()).mean().item(), rel=1e-4)
    assert told["feature_distance"] > 0
    sheet = Image.open(run_dir / "autoencoder" / "samples" / "step-6.png")
    assert sheet.width > 2 * 96
    assert sheet.height > 2 * 96


def test_latents_of_the_training_set_have_the_flows_standard_deviation(run_dir):
    config = recipe.compose(str(run_dir / "recipe.yaml"))
    data = build(config["data"], "data", modality=build(config["modality"], "modality"), split="train")
    network = build(config["autoencoder"]["network"], "autoencoder")
    network.load_state_dict(state(run_dir, "autoencoder"))
    latent = network.encode(next(batches(data, len(data), 0, 1, 0)).sample).detach().transpose(0, 1).flatten(1)
    assert torch.allclose(latent.mean(1), torch.zeros(2), atol=1e-4)
    assert torch.allclose(latent.std(1, correction=0), torch.full((2,), 0.5), rtol=1e-4)
    assert weights.read(run_dir / "autoencoder" / "weights.safetensors").info["num_samples"] == len(data)


def test_interrupted_and_resumed_is_the_undisturbed_training(run_dir, tmp_path):
    shutil.copytree(run_dir / "feature_extractor", tmp_path / "feature_extractor")
    shutil.copytree(run_dir / "autoencoder", tmp_path / "autoencoder")
    folder = tmp_path / "autoencoder"
    (folder / "weights.safetensors").unlink()
    last = checkpoints.steps(folder / "checkpoints")[-1]
    shutil.rmtree(folder / "checkpoints" / f"step-{last}")
    assert checkpoints.steps(folder / "checkpoints") == [4]  # the critic begins at step 3
    small(tmp_path, FEATURE_EXTRACTOR, *CRITIC, "stage=autoencoder")
    assert same(state(run_dir, "autoencoder"), state(tmp_path, "autoencoder"))
    assert json.loads((folder / "metrics.json").read_text()) == json.loads(
        (run_dir / "autoencoder" / "metrics.json").read_text()
    )
    steps = [[(line["step"], sorted(line)) for line in metrics(each / "autoencoder")] for each in (run_dir, tmp_path)]
    assert steps[0] == steps[1]


def test_killed_while_it_measured_it_measures_again_and_once_done_never(run_dir, tmp_path, monkeypatch):
    for stage in ("feature_extractor", "autoencoder"):
        shutil.copytree(run_dir / stage, tmp_path / stage)
    monkeypatch.setattr(autoencoder, "_samples", lambda *arguments: pytest.fail("measured twice"))
    small(tmp_path, FEATURE_EXTRACTOR, *CRITIC, "stage=autoencoder")
    monkeypatch.undo()
    (tmp_path / "autoencoder" / "weights.safetensors").unlink()
    small(tmp_path, FEATURE_EXTRACTOR, *CRITIC, "stage=autoencoder")
    assert same(state(run_dir, "autoencoder"), state(tmp_path, "autoencoder"))


def test_training_brings_samples_back_better(tmp_path):
    longer = (
        "autoencoder.max_steps=60",
        "autoencoder.batch_size=16",
        "trainer.log_every=20",
        "autoencoder.ema_std=0.1",
    )
    small(tmp_path, "stage=autoencoder", *longer, "trainer.checkpoint_every=1000")
    watched = [
        line["held_out_average/psnr"] for line in metrics(tmp_path / "autoencoder") if "held_out_average/psnr" in line
    ]
    assert watched[-1] > watched[0] + 4


def test_samples_for_statistics_are_each_training_sample_once(run_dir):
    config = recipe.compose(str(run_dir / "recipe.yaml"))
    data = build(config["data"], "data", modality=build(config["modality"], "modality"), split="train")
    context = prepare(config)
    everything = torch.cat(list(autoencoder._samples(context, data, len(data))))
    wanted = torch.stack([data[index].sample for index in range(len(data))])
    assert everything.shape == wanted.shape
    assert torch.equal(everything.flatten(1).sum(1).sort()[0], wanted.flatten(1).sum(1).sort()[0])
    assert list(map(len, autoencoder._samples(context, data, 20))) == [8, 8, 4]


def test_features_need_the_stage_of_the_feature_extractor(tmp_path):
    with pytest.raises(ValueError, match="train stage=feature_extractor first, or stage=all"):
        small(tmp_path, FEATURE_EXTRACTOR, "stage=autoencoder")


def test_other_settings_and_more_steps_under_a_backbone_are_refused(run_dir):
    with pytest.raises(ValueError, match=r"autoencoder.* was trained otherwise .*seed: 0 → 5"):
        small(run_dir, FEATURE_EXTRACTOR, *CRITIC, "stage=autoencoder", "seed=5")
    with pytest.raises(ValueError, match=r"trained on latents of the autoencoder at step 6.* use another run_dir"):
        small(run_dir, FEATURE_EXTRACTOR, *CRITIC, "stage=autoencoder", "autoencoder.max_steps=8")


def test_fine_tuning_keeps_the_autoencoder_that_the_backbones_know(run_dir, tmp_path):
    tuned = small(tmp_path, FEATURE_EXTRACTOR, f"init_from={run_dir}", "stage=autoencoder", "seed=3")
    assert same(state(tuned, "autoencoder"), state(run_dir, "autoencoder"))
    assert not (tuned / "autoencoder" / "checkpoints").exists()


def test_sections_of_the_other_kind_are_refused(tmp_path):
    measured = recipe.compose("image/tiny", [*SMALL, f"run_dir={tmp_path}"])
    trained = recipe.compose("image/tiny", [*SMALL, *LATENT, f"run_dir={tmp_path}"])
    networks = [config["autoencoder"]["network"] for config in (measured, trained)]
    trained["autoencoder"]["network"], measured["autoencoder"]["network"] = networks
    with pytest.raises(ValueError, match=r"autoencoder\.max_steps is 6, but .*PixelAutoencoder has nothing to train"):
        training.run(trained)
    with pytest.raises(ValueError, match=r"autoencoder\.max_steps is missing: .*ImageAutoencoder has to be trained"):
        training.run(measured)
    assert not (tmp_path / "model.json").exists()


def test_starting_from_a_model_without_an_autoencoder_measures_one(run_dir, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(run_dir / "feature_extractor", bare / "feature_extractor")
    (bare / "autoencoder").mkdir()
    shutil.copy(run_dir / "model.json", bare)
    tuned = train(tmp_path / "tuned", f"init_from={bare}", "stage=autoencoder")
    assert bool(state(tuned, "autoencoder")["trained"])


@pytest.mark.slow
def test_an_autoencoder_that_stopped_early_is_finished_for_the_stages_after_it(tmp_path, capsys):
    still = ("+autoencoder.patience=1", "autoencoder.optimizer.lr=0.0", "trainer.validate_every=2")
    run_dir = small(tmp_path, *still, "student.max_steps=0")
    info = weights.read_info(run_dir / "autoencoder" / "weights.safetensors")
    assert (info["step"], info["last_step"], info["num_worse"]) == (2, 4, 1)
    assert checkpoints.steps(run_dir / "autoencoder" / "checkpoints")[-1] == 4
    before = state(run_dir, "autoencoder")
    small(tmp_path, *still, "student.max_steps=2")
    assert same(before, state(run_dir, "autoencoder"))
    assert "autoencoder: trained to step 4 before" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"was trained on latents of the autoencoder at step 4"):
        small(tmp_path, *still[1:], "student.max_steps=2")

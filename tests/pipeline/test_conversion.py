"""Models of format 1 are refused with the remedy, and converted to models that make the same samples."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

import scm_media
from scm_media import weights
from scm_media.build import resolve
from scm_media.cli import main
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.conversion import convert, rename
from tests.pipeline.moves import write_moves_model
from tests.pipeline.tiny import write_tiny_model

OLD_NAMES = {"mask": "known", "actions": "aligned"}
FEATURES = {"name": "the model's own embedder", "dimension": 8}
ROW = {"sampler": "consistency", "steps": 1, "evaluations": 1, "frechet": 3.5, "seconds_per_clip": 0.01}
ROW |= {"precision": 0.5, "recall": 0.5, "agreement": 0.75}
METRICS = {"features": FEATURES, "num_samples": 20, "rows": [ROW], "frechet_floor": 1.5, "agreement_held_out": 0.9}
NEAREST = {"features": FEATURES, "sampler": "consistency", "steps": 1, "num_samples": 20, "num_train": 40}
NEAREST |= {"median": 4.5, "num_held_out": 9, "median_held_out": 4.0, "share_below": 0.02, "nearer_than_held_out": 0.4}
TARGETS = (
    "modalities.audio.autoencoder.SpectralAutoencoder",
    "modalities.audio.features.AudioClassifier",
    "modalities.audio.foreign.OobleckAutoencoder",
    "modalities.audio.foreign.VocosMel",
    "modalities.audio.loss.SpectralDistance",
    "modalities.audio.loss.SpectrogramCritic",
    "modalities.audio.mel.LogMelSpectrogram",
    "modalities.audio.modality.AudioModality",
    "modalities.audio.spectrogram.ComplexSpectrogram",
    "modalities.audio.tones.TonesDataset",
    "modalities.audio.vocoder.VocodedMel",
    "modalities.image.autoencoder.ImageAutoencoder",
    "modalities.image.autoencoder.PixelAutoencoder",
    "modalities.image.backbone.unet",
    "modalities.image.features.ImageClassifier",
    "modalities.image.modality.ImageModality",
    "modalities.video.autoencoder.VideoAutoencoder",
    "modalities.video.backbone.SpaceTimeTransformer",
    "modalities.video.features.FrameNetwork",
    "modalities.video.features.MotionNetwork",
    "modalities.video.foreign.LTXVideoAutoencoder",
    "modalities.video.foreign.WanAutoencoder",
    "modalities.video.modality.VideoModality",
    "modalities.video.moving.MovingShapesDataset",
    "scm_media.data.folder.FolderDataset",
    "scm_media.data.idx.FashionMNISTDataset",
    "scm_media.data.manifest.ManifestDataset",
    "scm_media.data.shapes.ShapesDataset",
    "scm_media.data.shards.ShardsDataset",
    "scm_media.losses.ConsistencyLoss",
    "scm_media.losses.DiffusionLoss",
    "scm_media.nn.transformer.Transformer",
    "scm_media.nn.unet.UNet",
    "scm_media.proposals.LogNormalProposal",
    "scm_media.reconstruction.ReconstructionLoss",
    "scm_media.trigflow.TrigFlow",
)
"""Classes that recipes and models of format 1 name."""


def age(folder, **changes):
    """Gives a model folder or run folder the names of format 1."""
    description = json.loads((folder / "model.json").read_text())
    description = {OLD_NAMES.get(key, key): value for key, value in description.items()} | {"format": 1} | changes
    (folder / "model.json").write_text(json.dumps(description))
    for new, old in (("feature_extractor", "embedder"), ("action_bank", "recorded")):
        for path in (folder / f"{new}.safetensors", folder / new):
            if path.exists():
                path.rename(path.with_name(path.name.replace(new, old)))
    (folder / "recipe.yaml").write_text("embedder: null\nteacher: {loss: {proposal: {mean: 0.0}}}\n")
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    return folder


def save_reference(file):
    state = {"floors": torch.ones(1), "floor_sizes": torch.ones(1, dtype=torch.int64)}
    weights.save(file, state, {"_target_": "x"}, {"agreement": 0.5})


@pytest.fixture
def old(tmp_path):
    mask = {"probability": 0.5, "kinds": ["start"], "axis": -1, "share": [0.1, 0.9]}
    folder = age(write_tiny_model(tmp_path / "old"), known=mask)
    save_reference(folder / "reference.safetensors")
    return folder


@pytest.fixture
def old_run(tmp_path):
    """A run folder with a guide, and with figures in the features of another network."""
    folder = age(write_tiny_model(tmp_path / "run", run_folder=True))
    teacher = weights.read(folder / "teacher" / "weights.safetensors")
    doubled = {name: 2 * tensor for name, tensor in teacher.state.items()}
    weights.save(folder / "guide" / "weights.safetensors", doubled, teacher.config)
    save_reference(folder / "embedder" / "reference.safetensors")
    save_reference(folder / "evaluation" / "reference-other.safetensors")
    other = {**METRICS, "features": {"name": "other", "dimension": 8}}
    (folder / "metrics-other.json").write_text(json.dumps(other))
    (folder / "nearest.json").write_text(json.dumps(NEAREST))
    (folder / "teacher" / "checkpoints").mkdir()
    return folder


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_folder_of_format_1_is_refused_with_the_command_that_converts_it(old):
    with pytest.raises(ValueError, match=r"format 1, this version reads 2: scm-media convert .*old NEW_FOLDER"):
        scm_media.load(old)


def test_a_converted_folder_makes_the_same_samples_under_todays_names(tmp_path, old):
    expected = scm_media.load(write_tiny_model(tmp_path / "today"), "cpu")(2, steps=1).samples
    before = contents(old)
    assert main(["convert", str(old), str(tmp_path / "new")]) == 0
    assert contents(old) == before
    pipeline = scm_media.load(tmp_path / "new", "cpu")
    assert torch.equal(pipeline(2, steps=1).samples, expected)
    description = json.loads((tmp_path / "new" / "model.json").read_text())
    assert description["mask"] == {"probability": 0.5, "types": ["start"], "axis": -1, "fraction": [0.1, 0.9]}
    assert description["format"] == 2
    recipe = yaml.safe_load((tmp_path / "new" / "recipe.yaml").read_text())
    assert recipe == {"feature_extractor": None, "teacher": {"loss": {"timesteps": {"mean": 0.0}}}}
    component = weights.read(tmp_path / "new" / "reference.safetensors")
    assert set(component.state) == {"held_out_distances", "held_out_sizes"}
    assert component.info == {"accuracy": 0.5}


def test_a_run_is_converted_with_its_guide_and_all_of_its_figures(tmp_path, old_run):
    today = write_tiny_model(tmp_path / "today", run_folder=True)
    convert(old_run, tmp_path / "new")
    pipeline = scm_media.load(tmp_path / "new", "cpu")
    assert torch.equal(pipeline(2).samples, scm_media.load(today, "cpu")(2).samples)
    assert pipeline(1, teacher=True, guidance=2.0).evaluations == 10
    assert {file.name for file in (tmp_path / "new").iterdir()} == {
        *(f"{name}.safetensors" for name in ("autoencoder", "teacher", "guide", "student", "feature_extractor")),
        *("reference.safetensors", "reference-other.safetensors", "metrics.json", "metrics-other.json"),
        *("memorization.json", "recipe.yaml", "README.md", "model.json"),
    }
    for name in ("reference", "reference-other"):
        assert "held_out_distances" in weights.read(tmp_path / "new" / f"{name}.safetensors").state
    folder = ModelFolder.open(tmp_path / "new")
    metrics, memorization = folder.metrics(), folder.memorization()
    assert (metrics["rows"][0]["accuracy"], metrics["frechet_held_out"]) == (0.75, 1.5)
    assert memorization["fraction_below"] == 0.02
    assert list(folder.second_opinions()) == ["metrics-other.json"]


def test_the_card_is_written_again_in_todays_words(tmp_path, old):
    (old / "README.md").write_text("agreement 0.75, the model's own embedder")
    card = (convert(old, tmp_path / "new") / "README.md").read_text()
    assert "| consistency | 1 | 1 | 3.5 | 0.500 | 0.500 | 0.750 | 10.00 |" in card
    assert "features: the model's own feature extractor" in card
    assert "embedder" not in card
    (old / "metrics.json").write_text('{"rows": 3}')
    card = (convert(old, tmp_path / "newer") / "README.md").read_text()
    assert card == "agreement 0.75, the model's own embedder", "figures that no card can show leave it unchanged"


@pytest.mark.usefixtures("allowed")
def test_actions_and_their_bank_are_converted(tmp_path):
    today = write_moves_model(tmp_path / "today")
    old = age(write_moves_model(tmp_path / "old"))
    bank = weights.read(old / "recorded.safetensors")
    state = {"rows" if name == "actions" else name: tensor for name, tensor in bank.state.items()}
    weights.save(old / "recorded.safetensors", state, {"_target_": "scm_media.aligned.Recorded"})
    made, expected = (scm_media.load(folder, "cpu")(3) for folder in (convert(old, tmp_path / "new"), today))
    assert torch.equal(made.actions, expected.actions)
    assert torch.equal(made.samples, expected.samples)


@pytest.mark.parametrize("target", TARGETS)
def test_classes_that_old_recipes_and_models_name_are_found_today(target):
    assert resolve(rename({"_target_": target})["_target_"]) is not None


def test_names_that_users_gave_are_not_renamed():
    labels = {"labels": {"known": ["share", "aligned"]}, "label_counts": {"known": [1, 2]}}
    assert rename(labels) == labels


def test_what_is_no_old_model_and_a_target_that_exists_are_refused(tmp_path, old, capsys):
    assert main(["convert", str(tmp_path), str(tmp_path / "new")]) == 1
    assert "holds no model.json" in capsys.readouterr().err
    assert main(["convert", str(old), str(old)]) == 1
    assert "exists; name a folder that does not" in capsys.readouterr().err
    today = write_tiny_model(tmp_path / "today")
    assert main(["convert", str(today), str(tmp_path / "new")]) == 1
    assert "is not of format 1" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()

"""Stages: what they start from, what they need, what they leave, and what they refuse."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from modalities.image.modality import ImageModality
from scm_media import recipe, training
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.card import format_card
from scm_media.training.post_hoc_ema import keep_average
from scm_media.training.stages import backbones
from tests.training.small import SMALL, metrics, same, state, train


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return train(tmp_path_factory.mktemp("trained"))


def test_a_run_leaves_its_description_recipe_weights_and_figures(run_dir):
    description = json.loads((run_dir / "model.json").read_text())
    assert description["labels"] == {"class": ["circle", "square", "triangle", "cross"]}
    assert description["label_counts"] == {"class": [16, 16, 16, 16]}
    assert description["sample_shape"] == description["latent_shape"] == [1, 16, 16]
    assert (description["format"], description["name"], description["objective"]) == (2, "image/tiny", "scd")
    for stage in ("autoencoder", "teacher", "student"):
        assert (run_dir / stage / "weights.safetensors").is_file()
    composed = recipe.compose(str(run_dir / "recipe.yaml"))
    assert composed["teacher"]["max_steps"] == 6
    lines = metrics(run_dir / "student")
    assert {"loss", "g_rms", "rate", "gradient_norm", "samples_per_second"} <= lines[1].keys()
    assert any(key.startswith("g_rms/t") for line in lines for key in line)
    assert any("held_out/loss" in line for line in lines)


def test_what_a_model_was_trained_on_is_said(tmp_path):
    fashion = recipe.compose("image/fashion")
    assert fashion["about"] == {
        "data": "Fashion-MNIST, 60,000 training pictures (Zalando Research)",
        "licence": "MIT",
    }
    assert recipe.compose("image/fashion", ["data=folder", "data.root=x"])["about"] == {"data": None, "licence": None}
    train(tmp_path, "stage=autoencoder", "about.data=drawn shapes", "about.licence=CC0")
    description = json.loads((tmp_path / "model.json").read_text())
    assert (description["data"], description["licence"]) == ("drawn shapes", "CC0")
    card = format_card(ModelFolder.open(tmp_path))
    assert "- Data: drawn shapes" in card
    assert "- Licence of the data: CC0" in card


def test_student_starts_from_the_teachers_averaged_weights(run_dir, tmp_path):
    overrides = ("student.max_steps=1", "student.optimizer.lr=0.0")
    train(tmp_path, *overrides)
    assert same(state(tmp_path, "teacher"), state(run_dir, "teacher"))
    assert same(state(tmp_path, "student"), state(run_dir, "teacher"))


def test_fine_tuning_starts_from_the_other_models_weights(run_dir, tmp_path):
    tuned = train(
        tmp_path,
        f"init_from={run_dir}",
        "data.seed=7",
        "teacher.max_steps=0",
        "student.max_steps=1",
        "student.optimizer.lr=0.0",
    )
    for stage in ("autoencoder", "teacher", "student"):
        assert same(state(tuned, stage), state(run_dir, stage)), stage


def test_fine_tuning_says_when_a_network_is_not_there_to_start_from(run_dir, tmp_path, capsys):
    other = train(tmp_path / "other", "stage=autoencoder")
    train(tmp_path / "tuned", f"init_from={other}", "student.max_steps=0")
    assert f"teacher: {other} (init_from) holds none, so it starts from nothing" in capsys.readouterr().err


def test_fine_tuning_from_a_model_of_another_size_lists_what_does_not_fit(run_dir, tmp_path):
    with pytest.raises(ValueError, match=r"teacher/weights\.safetensors does not fit Transformer .*missing"):
        train(tmp_path, f"init_from={run_dir}", "backbone.depth=2")


def test_training_from_data_needs_no_teacher(tmp_path):
    train(tmp_path, "stage=autoencoder")
    train(tmp_path, "stage=student", "student.objective=sct")
    assert not (tmp_path / "teacher").exists()
    assert all(torch.isfinite(value).all() for value in state(tmp_path, "student").values())
    assert json.loads((tmp_path / "model.json").read_text())["objective"] == "sct"
    names = {key for line in metrics(tmp_path / "student") for key in line}
    assert {"deviation/1 step", "deviation/2 steps", "g_rms"} <= names
    assert not any(name.startswith("to_teacher") for name in names)


def test_distillation_without_a_teacher_says_which_stage_to_train(tmp_path):
    train(tmp_path, "stage=autoencoder")
    with pytest.raises(ValueError, match=r"teacher/weights\.safetensors does not exist: train stage=teacher first"):
        train(tmp_path, "stage=student")


def test_a_backbone_without_an_autoencoder_says_which_stage_to_train(tmp_path):
    with pytest.raises(ValueError, match=r"autoencoder/weights\.safetensors does not exist: train stage=autoencoder"):
        train(tmp_path, "stage=teacher")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"stage": "decoder"},
            "stage must be one of all, feature_extractor, autoencoder, teacher, guide, trajectories, warm_start, "
            "student, got 'decoder'",
        ),
        ({"precision": "16-true"}, "precision must be one of 32-true, bf16-mixed, got '16-true'"),
        ({"student": {"objective": "flow"}}, "student.objective must be one of scd, sct, got 'flow'"),
    ],
)
def test_unknown_values_are_refused_with_the_known_ones(run_dir, tmp_path, change, expected):
    config = recipe.compose("image/tiny", [*SMALL, f"run_dir={tmp_path}"])
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=expected):
        training.run(config)


@pytest.mark.parametrize(("key", "known"), [("device", "auto, cpu, cuda, mps"), ("strategy", "auto, ddp, fsdp")])
def test_unknown_devices_are_refused_before_anything_is_written(tmp_path, key, known):
    config = recipe.compose("image/tiny", [*SMALL, f"run_dir={tmp_path / 'run'}"])
    with pytest.raises(ValueError, match=f"{key} must be one of {known}, got 'tpu'"):
        training.run({**config, key: "tpu"})
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device=cuda: there is none"):
        train(tmp_path / "run", "device=cuda")


def test_a_stage_of_nothing_says_so(tmp_path, capsys):
    with pytest.raises(
        ValueError, match=r"stage=feature_extractor: this recipe has none \(feature_extractor is null\)"
    ):
        train(tmp_path, "stage=feature_extractor")
    train(tmp_path, "stage=student", "student.max_steps=0")
    assert "student: nothing to train, student.max_steps is 0" in capsys.readouterr().err


def test_only_what_is_trained_is_compiled_and_of_a_frozen_teacher_the_value(run_dir, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(backbones, "compile_backbone", lambda *arguments: compiled.append(arguments[4]))
    shutil.copytree(run_dir, tmp_path / "again")
    train(tmp_path / "again", "trainer.compile=true")
    assert compiled == []
    train(tmp_path / "again", "trainer.compile=true", "student.max_steps=7")
    assert compiled == ["one_pass", None]


def test_a_sheet_has_a_row_for_each_sampler_and_says_so_once(tmp_path, monkeypatch):
    drawn = []

    def preview(self, samples, captions=(), columns=None):
        drawn.append((tuple(samples.shape), list(captions), columns))
        return Image.new("L", (8, 8))

    monkeypatch.setattr(ImageModality, "preview", preview)
    train(tmp_path, "trainer.num_preview_samples=3", "data.held_out=0.1", "teacher.max_steps=1", "student.max_steps=1")
    teacher, _, student, _ = drawn
    assert teacher[0] == (3, 1, 16, 16)
    assert student[0] == (9, 1, 16, 16)
    assert (teacher[2], student[2]) == (None, 3), "columns: a square, and one for each sample"
    labels = [caption.split("\n")[0] for caption in student[1]]
    assert labels == labels[:3] * 3
    rows = [caption.partition("\n")[2] for caption in student[1]]
    assert rows == ["1 step", "", "", "2 steps", "", "", "teacher, 8 steps", "", ""]


def test_bf16_trains_and_keeps_wide_weights(tmp_path):
    train(tmp_path, "precision=bf16-mixed")
    for stage in ("teacher", "student"):
        for name, value in state(tmp_path, stage).items():
            assert value.dtype == torch.float32, name
            assert torch.isfinite(value).all(), name


def test_searched_times_outlive_a_training_that_says_none(tmp_path):
    run_dir = train(tmp_path / "run")
    file = run_dir / "model.json"
    description = json.loads(file.read_text())
    description["sampler"]["times"] = {"2": [1.5, 0.7]}
    file.write_text(json.dumps(description))
    train(run_dir)
    assert json.loads(file.read_text())["sampler"]["times"] == {"2": [1.5, 0.7]}
    train(run_dir, "+sampler.times={2: [1.5, 0.9]}")
    assert json.loads(file.read_text())["sampler"]["times"] == {"2": [1.5, 0.9]}


def test_a_selected_average_is_described_as_long_as_it_is_in_place(tmp_path):
    run_dir = train(tmp_path / "run")
    choice = {"std": 0.1, "num_samples": 2}
    folder = ModelFolder.open(run_dir)
    folder.redescribe(lambda written: replace(written, sampler=replace(written.sampler, times={"1": [1.5]})))
    keep_average(folder, "student", state(run_dir, "student"), choice)
    assert json.loads((run_dir / "model.json").read_text())["sampler"]["times"] == {"1": [1.5]}, "kept meanwhile"
    train(run_dir)
    assert json.loads((run_dir / "model.json").read_text())["ema"] == {"student": choice}
    train(run_dir, "student.max_steps=7")
    assert json.loads((run_dir / "model.json").read_text())["ema"] == {}


def test_weights_without_checkpoints_are_not_written_over(tmp_path, capsys):
    train(tmp_path, "student.max_steps=0")
    before = state(tmp_path, "teacher")
    shutil.rmtree(tmp_path / "teacher" / "checkpoints")
    train(tmp_path, "student.max_steps=0")
    assert "teacher: its weights are trained, its checkpoints gone; nothing to do" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"teacher/weights\.safetensors is trained to step 6 and has no checkpoint"):
        train(tmp_path, "teacher.max_steps=8", "student.max_steps=0")
    assert same(state(tmp_path, "teacher"), before)

"""Teachers that are taken from another model as they are."""

from __future__ import annotations

import shutil

import pytest
import torch

from scm_media import recipe, training, weights
from scm_media.cli import main
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.model_file import export_file
from tests.training.small import DISTIL, SMALL

TAKEN = (
    *DISTIL,
    "data.classes={class:4}",
    "warm_start.max_steps=2",
    "warm_start.batch_size=4",
    "student.max_steps=2",
    "student.batch_size=4",
)
"""Overrides of */distil for four labels without samples."""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run folder with a teacher that was trained for six steps."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    training.run(recipe.compose("image/tiny", [*SMALL, "student.max_steps=0", f"run_dir={folder}"]))
    return folder


def compose(source, folder, *overrides):
    return recipe.compose("image/distil", [*TAKEN, f"teacher_from={source}", f"run_dir={folder}", *overrides])


def test_networks_and_modality_are_the_models(teacher):
    config = compose(teacher, "x")
    own = recipe.compose("image/tiny", [*SMALL])
    filled = {"in_channels": 1, "labels": {"class": 4}, "label_units": {}}
    assert config["backbone"] == {**own["backbone"], **filled} and config["flow"] == own["flow"]
    assert config["autoencoder"] == {"network": own["autoencoder"]["network"], "num_samples": 64}
    assert (config["modality"]["size"], config["modality"]["channels"]) == (16, 1)
    assert config["teacher"]["loss"]["label_dropout"] == own["teacher"]["loss"]["label_dropout"]
    with_features = recipe.compose("image/distil", [f"teacher_from={teacher}", "data=none"])
    assert with_features["feature_extractor"]["network"]["channels"] == 1


def test_a_model_in_one_file_is_taken_like_its_folder(teacher, tmp_path):
    training.run(compose(teacher, tmp_path / "whole"))
    file = export_file(ModelFolder.open(tmp_path / "whole"), tmp_path / "model.safetensors", teacher=True)
    with pytest.raises(ValueError, match=r"holds no teacher; export the model with its teacher"):
        compose(export_file(ModelFolder.open(file), tmp_path / "without.safetensors"), "x")
    run = tmp_path / "run"
    training.run(compose(file, run, f"init_from={file}"))
    own, taken = (weights.read(each / "teacher" / "weights.safetensors") for each in (teacher, run))
    assert all(torch.equal(own.state[name], taken.state[name]) for name in own.state)


def test_a_student_is_distilled_without_data_from_a_teacher_that_stays_as_it_is(teacher, tmp_path, capsys):
    run = tmp_path / "run"
    training.run(compose(teacher, run))
    for stage in ("teacher", "autoencoder"):
        own, taken = (weights.read(each / stage / "weights.safetensors") for each in (teacher, run))
        assert own.state.keys() == taken.state.keys()
        assert all(torch.equal(own.state[name], taken.state[name]) for name in own.state)
        assert not (run / stage / "checkpoints").exists()
    student = weights.read(run / "student" / "weights.safetensors")
    assert any(not torch.equal(student.state[name], own) for name, own in taken_state(run).items())
    assert main(["generate", str(run), "-n", "2", "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    training.run(compose(teacher, run))
    assert "taken from" not in capsys.readouterr().err
    again = weights.read(run / "student" / "weights.safetensors")
    assert all(torch.equal(again.state[name], each) for name, each in student.state.items())


def taken_state(run):
    return weights.read(run / "teacher" / "weights.safetensors").state


def test_a_run_does_not_go_on_with_another_teacher(teacher, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    training.run(compose(teacher, run, "stage=teacher"))
    shutil.copytree(teacher, other)
    file = other / "teacher" / "weights.safetensors"
    found = weights.read(file)
    weights.save(file, {name: each + 1 for name, each in found.state.items()}, found.config, found.info)
    with pytest.raises(ValueError, match=r"is not the teacher of teacher_from=.*other: use another run_dir"):
        training.run(compose(other, run, "stage=teacher"))


def test_what_learns_from_samples_is_refused_without_any(teacher, tmp_path):
    features = "feature_extractor={network:{_target_:modalities.image.features.ImageClassifier,channels:1}"
    features += ",max_steps:2,batch_size:4,optimizer:{_target_:torch.optim.Adam,lr:1e-3}}"
    with pytest.raises(ValueError, match=r"feature_extractor: the data are labels without samples.*=null"):
        training.run(compose(teacher, tmp_path / "run", features))
    cold = [each for each in TAKEN if not each.startswith("warm_start")]
    plain = [*cold, "loss@student.loss=consistency", "warm_start=none", f"teacher_from={teacher}"]
    plain.append(f"run_dir={tmp_path / 'run'}")
    with pytest.raises(ValueError, match=r"student: the data are labels without samples.*student\.generated=1"):
        training.run(recipe.compose("image/distil", plain))
    training.run(recipe.compose("image/distil", [*plain, "student.generated=1"]))
    assert (tmp_path / "run" / "student" / "weights.safetensors").exists()


def test_classes_must_be_the_teachers_in_its_order(teacher, tmp_path):
    with pytest.raises(
        ValueError, match=r"the classes of label 'class' must be those of teacher_from=.* got a, b, c, d"
    ):
        training.run(compose(teacher, tmp_path / "run", "data.classes={class:[a,b,c,d]}"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+backbone={_target_:scm_media.nn.transformer.Transformer}", "backbone: they follow from teacher_from="),
        ("teacher_from=nowhere", "there is no model 'nowhere'"),
    ],
)
def test_recipes_that_contradict_the_model_are_refused(teacher, override, message):
    with pytest.raises(ValueError, match=message):
        compose(teacher, "x", override)


def test_a_lora_needs_a_teacher_of_diffusers_and_changes_nothing_else(teacher, tmp_path):
    with pytest.raises(ValueError, match=r"student\.lora needs a teacher of diffusers, got Transformer"):
        training.run(compose(teacher, tmp_path / "a", "student.lora={rank:2}"))
    with pytest.raises(ValueError, match=r"which student\.backbone, trainer\.compile would change"):
        training.run(
            compose(teacher, tmp_path / "b", "student.lora={}", "+student.backbone={width:8}", "trainer.compile=true")
        )

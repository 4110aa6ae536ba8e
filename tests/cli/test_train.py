"""``train``: overrides and a user's file reach the training; sweeps run one job a combination; nothing is littered."""

from __future__ import annotations

import pytest

from scm_media import training
from scm_media.cli import main
from scm_media.cli.train import folder_name
from tests.training.small import SMALL


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """The configurations that training was started with; nothing is trained."""
    configs = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "run", lambda config, *_: configs.append(config), raising=False)
    return configs


def test_overrides_reach_the_training_and_no_folder_is_made(trained, tmp_path):
    assert main(["train", "image/tiny", "student.objective=sct", "stage=teacher", "hydra.verbose=true"]) == 0
    (config,) = trained
    assert config["student"]["objective"] == "sct"
    assert config["stage"] == "teacher"
    assert config["run_dir"] == "runs/image/tiny/main"
    assert list(tmp_path.iterdir()) == []


def test_own_file_inherits_a_recipe(trained, tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [image/tiny, _self_]\nteacher: {max_steps: 5}\n")
    assert main(["train", "mine.yaml", "seed=2"]) == 0
    assert (trained[0]["teacher"]["max_steps"], trained[0]["seed"], trained[0]["recipe"]) == (5, 2, "mine")


def test_sweep_trains_each_combination_in_a_folder_of_its_own(trained, capsys):
    assert main(["train", "image/tiny", "-m", "seed=1,2", "student.objective=scd,sct"]) == 0
    assert [(config["seed"], config["student"]["objective"]) for config in trained] == [
        (1, "scd"),
        (1, "sct"),
        (2, "scd"),
        (2, "sct"),
    ]
    assert len({config["run_dir"] for config in trained}) == 4
    assert trained[1]["run_dir"] == "runs/image/tiny/seed=1,student.objective=sct"
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_sweep_trains_in_one_process_and_again_in_the_same_folders(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sweep = ["train", "image/tiny", "-m", *SMALL, "seed=1,2", "stage=autoencoder"]
    for _ in range(2):
        assert main(sweep) == 0
    assert len(list((tmp_path / "runs").rglob("weights.safetensors"))) == 2
    assert capsys.readouterr().err.count("autoencoder: statistics of 64 samples") == 2


def test_help_says_how_a_run_stops_and_goes_on(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "SIGTERM save a checkpoint first (exit code 130 and 143)" in capsys.readouterr().out


def test_sweep_of_an_own_file_with_a_run_folder_of_ones_own(trained, tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [image/tiny, _self_]\n")
    assert main(["train", "-m", "mine.yaml", "seed=1,2", "run_dir=out/${seed}"]) == 0
    assert [config["run_dir"] for config in trained] == ["out/1", "out/2"]
    assert {config["recipe"] for config in trained} == {"mine"}


def test_hydra_shows_the_configuration_instead_of_training(trained, capsys):
    assert main(["train", "image/tiny", "--cfg", "job", "--package", "student", "student.max_steps=9"]) == 0
    assert "max_steps: 9" in capsys.readouterr().out
    assert trained == []


@pytest.mark.parametrize("sweep", [[], ["-m"]])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["image/tny"], "unknown recipe 'image/tny' (nearest: image/tiny"),
        (
            ["image/tiny", "studnt.max_steps=1"],
            "no key takes the override 'studnt.max_steps' (nearest: student.max_steps",
        ),
        (["image/tiny", "data=fashon"], "nothing is called 'data/fashon' (nearest: fashion)"),
        (["nowhere.yaml"], "nowhere.yaml: no such file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_1(trained, capsys, words, expected, sweep):
    assert main(["train", *words, *sweep]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert expected in said.err
    assert trained == []


def test_folder_names_are_short_safe_and_independent_of_the_order():
    assert folder_name(["seed=1", "a.b=2"]) == folder_name(["a.b=2", "seed=1"]) == "a.b=2,seed=1"
    assert folder_name([]) == "main"
    odd = folder_name(["data.root=/pictures/of mine"])
    assert "/" not in odd
    assert odd != folder_name(["data.root=/pictures/of_mine"])
    assert len(folder_name([f"key{number}=1" for number in range(99)])) < 120

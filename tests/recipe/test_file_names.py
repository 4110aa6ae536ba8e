"""A user's recipe file may have any name, and lie in any folder, beside any other file."""

from __future__ import annotations

import unicodedata

import pytest

from scm_media import recipe
from scm_media.cli import main

NAMES = [
    "my recipe, v2 (final)",
    "2024",
    "1e3",
    "true",
    "null",
    unicodedata.normalize("NFC", "résumé"),
    unicodedata.normalize("NFD", "résumé"),
    "日本",
    'it\'s "mine"',
    "a=b",
    "a@b",
    "[a]{b}",
    "a#b%20c",
    "~a\\b",
    "-m",
    "${seed}",
    "v1.5.yaml",
    "hydra",
    "base",
    " spaced ",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_composes_and_gives_the_recipe_its_name(tmp_path, name):
    path = tmp_path / f"{name}.yaml"
    path.write_text("defaults: [image/tiny, _self_]\nseed: 3\n", encoding="utf-8")
    config = recipe.compose(str(path), ["teacher.max_steps=7"])
    assert (config["recipe"], config["run_dir"]) == (name, f"runs/{name}/main")
    assert (config["seed"], config["teacher"]["max_steps"]) == (3, 7)


def test_a_folder_of_any_name_holds_recipes_and_groups_of_ones_own(tmp_path):
    folder = tmp_path / "my, (own) #1 ${x} é"
    (folder / "trainer").mkdir(parents=True)
    (folder / "trainer" / "quiet.yaml").write_text("defaults: [default]\nlog_every: 1000\n")
    (folder / "common.yaml").write_text("defaults: [image/folder, override /trainer: quiet, _self_]\nseed: 5\n")
    (folder / "mine.yaml").write_text("defaults: [common, _self_]\ndata: {root: x}\ntrainer: {num_workers: 1}\n")
    config = recipe.compose(str(folder / "mine.yaml"))
    assert (config["seed"], config["trainer"]["num_workers"], config["recipe"]) == (5, 1, "mine")


def test_a_file_called_base_beside_a_recipe_is_not_taken_for_the_shipped_one(tmp_path):
    (tmp_path / "base.yaml").write_text("defaults: [image/tiny, _self_]\nseed: 5\n")
    (tmp_path / "mine.yaml").write_text("defaults: [image/tiny, _self_]\n")
    assert recipe.compose(str(tmp_path / "mine.yaml"))["seed"] == 0
    assert recipe.compose(str(tmp_path / "base.yaml"))["seed"] == 5
    (tmp_path / "mine.yaml").write_text("defaults: [base, _self_]\n")
    with pytest.raises(ValueError, match=r"base\.yaml: rename the file, or write /base for the shipped one"):
        recipe.compose(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"5\n", "a recipe is a mapping of keys, got one value"),
        ("about: {data: é}\n".encode("latin-1"), "is not text in UTF-8 (byte 14): save it as UTF-8"),
        (b"# @author me and you\nseed: 3\n", "a comment that begins with # @ is Hydra's"),
        (b"defaults: [mine, _self_]\n", "in a circle"),
        (b"defaults: [image/tiny, _self_]\nrecipe: ../../etc\n", "recipe must be a name"),
        (b'defaults: [image/tiny, _self_]\nrecipe: "a\\eb"\n', "without control characters"),
    ],
)
def test_a_file_that_is_no_recipe_is_named_in_one_line(tmp_path, content, expected):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ValueError) as error:
        recipe.compose(str(tmp_path / "mine.yaml"))
    assert expected in str(error.value)
    assert "mine.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["2024", "my re\u0301sume\u0301, v2 ${seed} (final)"])
def test_a_sweep_of_a_file_of_any_name_trains_each_job(tmp_path, monkeypatch, name):
    from scm_media import training

    configs: list[dict] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "run", lambda config, *_: configs.append(config))
    (tmp_path / f"{name}.yaml").write_text("defaults: [image/tiny, _self_]\n")
    assert main(["train", f"{name}.yaml", "-m", "seed=1,2"]) == 0
    assert [config["run_dir"] for config in configs] == [f"runs/{name}/seed=1", f"runs/{name}/seed=2"]


def test_check_opens_the_data_of_a_file_of_any_name(tmp_path, capsys):
    path = tmp_path / "2024, résumé (v2).yaml"
    path.write_text("defaults: [image/tiny, _self_]\ndata: {num: 8}\n")
    assert main(["check", str(path), f"run_dir={tmp_path}/out é, 1"]) == 1
    assert f"'run_dir=\"{tmp_path}/out é, 1\"'" in capsys.readouterr().err
    assert main(["check", str(path), f'run_dir="{tmp_path}/out é, 1"']) == 0
    assert (tmp_path / "out é, 1" / "preview.png").is_file()


def test_a_file_of_any_name_is_printed_with_its_cost_and_copied(tmp_path, capsys):
    path, copy = tmp_path / "2024, résumé (v2).yaml", tmp_path / "my copy.yaml"
    path.write_text("# \u202e mine\ndefaults: [image/tiny, _self_]\n", encoding="utf-8")
    assert main(["recipes", str(path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# \\u202e mine\ndefaults: [image/tiny, _self_]\n")
    assert "# counted: " in text
    path.write_text("# \x1b[2J mine\ndefaults: [image/tiny, _self_]\n", encoding="utf-8")
    assert main(["recipes", str(path)]) == 1, "YAML has no control characters"
    assert "is not readable as YAML" in capsys.readouterr().err
    path.write_text("defaults: [image/tiny, _self_]\nrecipe: x\nseed: 4\n")
    assert main(["recipes", str(path), "--copy", str(copy)]) == 0
    assert f"'{copy}'" in capsys.readouterr().out, "quoted for the shell"
    assert (recipe.compose(str(copy))["recipe"], recipe.compose(str(copy))["seed"]) == ("my copy", 4)


def test_a_recipe_of_the_repository_is_shown_beside_others_with_the_suffix_in_capitals(tmp_path):
    (tmp_path / "mine.YAML").write_text("defaults: [image/tiny, _self_]\n")
    with pytest.raises(ValueError, match=r"mine\.YAML: a recipe's file ends in \.yaml; rename it"):
        recipe.compose(str(tmp_path / "mine.YAML"))

"""A recipe's file may have files written below the working directory alone; the command line may say otherwise."""

from __future__ import annotations

import pytest

from scm_media import recipe
from scm_media.cli import main
from scm_media.recipe.written_folders import check_written_folders

HEAD = "defaults: [image/tiny, _self_]\n"


@pytest.mark.parametrize(
    "place",
    ["/etc/cron.d", "~/bin", "../elsewhere", "runs/../../x", "C:\\Windows", "\\\\server\\share", "D:x", "a\\..\\..\\b"],
)
@pytest.mark.parametrize("key", ["run_dir", "logger.root_dir"])
def test_a_folder_outside_is_refused_unless_the_command_line_names_it(tmp_path, key, place):
    section, _, name = key.rpartition(".")
    file = tmp_path / "mine.yaml"
    file.write_text(f"{HEAD}{section}: {{{name}: '{place}'}}\n" if section else f"{HEAD}{name}: '{place}'\n")
    with pytest.raises(ValueError, match=rf"mine\.yaml: {key} is .* outside the working directory; .* pass {key}=…"):
        recipe.compose(str(file))
    assert recipe.compose(str(file), [f"run_dir={tmp_path}/run", f"++logger.root_dir={tmp_path}"])


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", ".."])
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    file = tmp_path / "mine.yaml"
    file.write_text(f"{HEAD}recipe: '{name}'\n")
    with pytest.raises(ValueError, match=r"recipe must be a name, or names between slashes"):
        recipe.compose(str(file))


def test_nothing_is_written_where_a_stranger_says(tmp_path, monkeypatch, capsys):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work" / "mine.yaml").write_text(f"{HEAD}run_dir: ../outside\n")
    assert main(["train", "mine.yaml"]) == 1
    assert main(["train", "mine.yaml", "-m", "seed=1,2"]) == 1
    assert "outside the working directory" in capsys.readouterr().err
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("place", ["runs/mine/main", "out", "a/b..c/d", "runs/..x"])
def test_folders_below_are_taken(place):
    check_written_folders({"run_dir": place, "logger": {"root_dir": place}, "data": {"index": place}}, [], "mine")


def test_an_index_of_shards_is_held_to_the_same():
    with pytest.raises(ValueError, match=r"data\.index is '/var/x'"):
        check_written_folders({"run_dir": "runs", "logger": None, "data": {"index": "/var/x"}}, [], "mine")
    check_written_folders(
        {"run_dir": "runs", "logger": None, "data": {"index": "/var/x"}}, ["data.index=/var/x"], "mine"
    )


def test_a_run_may_go_on_from_the_recipe_in_its_own_folder(tmp_path):
    run = tmp_path / "somewhere" / "run"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(f"{HEAD}run_dir: {run}\n")
    assert recipe.compose(str(run / "recipe.yaml"))["run_dir"] == str(run)
    (run / "recipe.yaml").write_text(f"{HEAD}run_dir: {run.parent}\n")
    with pytest.raises(ValueError, match="outside the working directory"):
        recipe.compose(str(run / "recipe.yaml"))

"""``bench``: one JSON object or a table, of a recipe or of a model's; what it cannot measure in one line."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from scm_media import recipe
from scm_media.cli import main
from tests.training.small import SMALL

QUICK = ("--batch-size", "2", "--repeats", "1", "--device", "cpu")


def test_json_is_one_object_with_the_promised_rows(capsys):
    assert main(["bench", "image/tiny", *SMALL, *QUICK, "--precision", "bf16", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert {"device", "rows"} <= set(table)
    assert set(table["rows"][0]) == {"what", "seconds_median", "seconds_min", "seconds_max", "ratio"}
    assert {"diffusion step", "sCD step", "sCT step"} <= {row["what"] for row in table["rows"]}
    assert (table["precision"], table["compile"], table["batch_size"]) == ("bf16-mixed", False, 2)


@pytest.mark.parametrize("guidance", [(), ("student.loss.guidance_max=3", "teacher.loss.label_dropout=0.1")])
def test_losses_on_trajectories_are_timed_beside_the_others(guidance, capsys):
    small = [word for word in SMALL if "tangent_warmup" not in word]
    words = ["loss@student.loss=distribution_matching", "~student.loss.tangent_warmup", "+trajectories.num=8"]
    assert main(["bench", "image/tiny", *small, *words, *guidance, "+warm_start.max_steps=1", *QUICK, "--json"]) == 0
    rows = {row["what"]: row["seconds_median"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert {"sCD step", "warm start step", "student step"} <= set(rows)
    assert rows["student step"] > rows["warm start step"] > 0


def test_a_models_recipe_is_measured_without_its_data(model, tmp_path, capsys):
    folder = shutil.copytree(model, tmp_path / "model")
    config = recipe.compose("image/tiny", [*SMALL])
    config["data"] = {"_target_": "scm_media.data.folder.FolderDataset", "root": str(tmp_path / "gone")}
    del config["conditioning"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(config))
    assert main(["bench", str(folder), *QUICK]) == 0
    said = capsys.readouterr().out
    assert "image/tiny on cpu (1 threads), 32-true, batches of 2; seconds a batch" in said
    assert "sCD step" in said
    assert "loading: not measured, the data are not here" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["image/tny"], "there is no model 'image/tny'"),
        (["image/tiny", "--repeats", "0"], "--repeats must be at least 1, got 0"),
        (["image/tiny", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["image/tiny", "--device", "abacus"], "device 'abacus' cannot be used"),
        (["image/tiny", "no.such=1"], "no key takes the override 'no.such'"),
        (["MODEL"], "holds no recipe.yaml, so its training is not known"),
        (["MODEL", "seed=1"], "seed=1: settings go with a recipe"),
    ],
)
def test_a_mistake_is_one_line_and_exit_1(model, capsys, words, expected):
    assert main(["bench", *[model if word == "MODEL" else word for word in words]]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert expected in said.err

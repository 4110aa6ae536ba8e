"""``compare``: a page, a table, JSON, and refusals in words."""

from __future__ import annotations

import html
import json

import pytest

from scm_media.cli import main
from tests.evaluation.curve_metrics import make_metrics
from tests.pipeline.tiny import BACKBONE, write_networks, write_tiny_model


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Runs of three sizes with figures; the present folder is an empty one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = []
    for width, distance in ((16, 0.75), (32, 0.65), (64, 0.56)):
        run = write_tiny_model(tmp_path / f"width-{width}", run_folder=True)
        networks = {name: {**BACKBONE, "width": width} for name in ("teacher", "student")}
        write_networks(run, networks, "{}/weights.safetensors")
        (run / "metrics.json").write_text(json.dumps(make_metrics(f"width {width}", student=distance)))
        found.append(str(run))
    return found


@pytest.mark.slow
def test_the_page_lies_in_the_present_folder_and_the_table_is_printed(models, tmp_path, capsys):
    assert main(["compare", *models]) == 0
    said = capsys.readouterr()
    assert "| width 32 | student, 2 steps | 2 | 2 G | 0.65 [0.6175, 0.6825] |" in said.out
    assert "compare.html" in said.err
    page = (tmp_path / "here" / "compare.html").read_text()
    assert "scm-media compare width-16 width-32 width-64" in page, "without paths of this machine"
    assert str(tmp_path) not in page
    assert (tmp_path / "here" / "compare.png").is_file()


def test_sizes_are_told_in_words_and_in_json(models, tmp_path, capsys):
    assert main(["compare", *models, "--size", "--json", "--out", str(tmp_path / "sizes.html")]) == 0
    found = json.loads(capsys.readouterr().out)
    parameters = [model["parameters"]["student"] for model in found["models"]]
    assert parameters == sorted(parameters)
    assert parameters[0] < parameters[1]
    assert [trend["steps"] for trend in found["trends"]] == [1, 2]
    assert found["trends"][1]["slope"] < 0
    assert found["trends"][1]["text"] in html.unescape((tmp_path / "sizes.html").read_text())


def test_models_that_cannot_be_compared_are_refused_in_words(models, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["compare", models[0]])
    assert exit.value.code == 2
    assert "give two models at least" in capsys.readouterr().err
    assert main(["compare", models[0], str(write_tiny_model(tmp_path / "new"))]) == 1
    assert "new has no figures: measure it by scm-media evaluate" in capsys.readouterr().err
    assert main(["compare", *models, "--out", "page.png"]) == 1
    assert "expected a page (.html)" in capsys.readouterr().err
    assert not list((tmp_path / "here").iterdir())

"""Choosing an averaging length: the best is found, takes the place of the stage's weights, and stays there."""

from __future__ import annotations

import json

import pytest
import torch

import scm_media
from scm_media import weights
from scm_media.cli import main
from scm_media.data import Batch
from scm_media.evaluation import FeatureNetwork, ema_search, make_reference
from scm_media.training.post_hoc_ema import is_selected, selected_averages
from tests.evaluation.test_features import Flat
from tests.pipeline.tiny import write_tiny_model

GRID = ema_search.GRID
BEST = GRID[3]


def _state(folder, std):
    """Returns 'rebuilt' weights: the trained ones, the output scaled by the length."""
    trained = weights.read(folder.file("student")).state
    return {name: value * (1 + std) if "patch_out" in name else value for name, value in trained.items()}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose data are what the student draws with the average BEST."""
    path = write_tiny_model(tmp_path / "run", run_folder=True)
    file = path / "student" / "weights.safetensors"
    component = weights.read(file)
    weights.save(file, component.state, component.config, {"step": 40, "objective": "scd"})
    pipeline = scm_media.load(path, "cpu")
    states = {std: _state(pipeline.folder, std) for std in GRID}
    weights.load_into(pipeline.network("student"), states[BEST])
    network = FeatureNetwork("flat", Flat())
    samples = pipeline(40, seed=1).samples
    reference = make_reference(network, [Batch(samples)], [])
    monkeypatch.setattr(ema_search, "load_reference", lambda *_: (network, reference))
    asked = []
    monkeypatch.setattr(ema_search, "rebuild", lambda folder, std, step: asked.append((folder, step)) or states[std])
    yield path
    assert set(asked) <= {(path / "student" / "snapshots", 40)}


def test_the_best_length_is_chosen_and_the_pipeline_left_as_it_was(run):
    pipeline = scm_media.load(run, "cpu")
    before = pipeline(2).samples
    found, state = ema_search.search_ema(pipeline, "student", num_samples=40)
    assert found["chosen"] == BEST
    assert [entry["std"] for entry in found["curve"]] == [None, *GRID]
    best = next(entry for entry in found["curve"] if entry["std"] == BEST)
    assert best["frechet"] == pytest.approx(0, abs=1e-6)
    assert state.keys() == pipeline.network("student").state_dict().keys()
    assert torch.equal(pipeline(2).samples, before)


def test_the_command_puts_the_best_in_place_and_keeps_the_trained(run, capsys):
    file = run / "student" / "weights.safetensors"
    trained = file.read_bytes()
    assert main(["evaluate", str(run), "--search-ema", "student", "-n", "40", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["chosen"] == BEST
    assert "evaluate again" in said.err
    assert (run / "student" / "weights-trained.safetensors").read_bytes() == trained
    component = weights.read(file)
    assert component.info["ema"]["std"] == BEST
    assert component.info["objective"] == "scd"
    assert component.info["ema"]["frechet"] < component.info["ema"]["frechet_before"]
    noted = json.loads((run / "model.json").read_text())["ema"]
    assert noted == selected_averages(run) == {"student": component.info["ema"]}
    assert is_selected(file, 40), "training that is done leaves it alone"
    assert not is_selected(file, 50), "training that goes on does not"
    card = (scm_media.load(run, "cpu").save_pretrained(run.parent / "exported") / "README.md").read_text()
    assert f"relative standard deviation {BEST:g}, chosen after training" in card

    capsys.readouterr()
    assert main(["evaluate", str(run), "--search-ema", "student", "-n", "40"]) == 0
    assert "stays unchanged: no other length was better" in capsys.readouterr().err
    assert (run / "student" / "weights-trained.safetensors").read_bytes() == trained


def test_what_cannot_be_searched_is_refused(run, evaluated_model):
    with pytest.raises(ValueError, match="is no run folder"):
        ema_search.search_ema(scm_media.load(evaluated_model, "cpu"), "student")
    pipeline = scm_media.load(run, "cpu")
    with pytest.raises(ValueError, match="stage must be one of teacher, student"):
        ema_search.search_ema(pipeline, "feature_extractor")
    with pytest.raises(ValueError, match="does not draw from the student"):
        ema_search.search_ema(pipeline, "student", row="teacher:4")

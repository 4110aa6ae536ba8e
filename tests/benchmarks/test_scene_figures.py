"""Tests the rows beside figures of videos: recordings, their autoencoder, and a distance that must see time."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from modalities.video.features import ORDERS
from scm_media import recipe, training

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """video/tiny, but for a backbone that is trained for two steps."""
    run_dir = tmp_path_factory.mktemp("scenes") / "run"
    short = ["teacher.max_steps=2", "student.max_steps=2", "trainer.sample_early=[]", "trainer.sample_every=1000"]
    training.run(recipe.compose("video/tiny", [f"run_dir={run_dir}", "device=cpu", "logger=none", *short]))
    return run_dir


@pytest.mark.slow
def test_a_model_stands_beside_recordings_and_the_same_through_its_autoencoder(run, benchmark, capsys, tmp_path):
    out = tmp_path / "figures.json"
    benchmark("scene_figures").main([str(run), "-n", "64", "--rows", "2", "--json", "--out", str(out)])
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(out.read_text())
    real, back, made = found["rows"]
    assert [row["samples"] for row in found["rows"]] == [
        "recordings",
        "recordings, through the autoencoder",
        "consistency, 2 steps",
    ]
    assert [row["evaluations"] for row in found["rows"]] == [None, None, 2]
    assert real["num"] == made["num"] == 64
    assert 0 < real["frechet"] < back["frechet"] < made["frechet"], "two steps of training make nothing"
    assert real["accuracy"] > made["accuracy"]
    measured = json.loads((run / "autoencoder" / "metrics.json").read_text())
    assert back["psnr"] == pytest.approx(measured["psnr"], abs=1.5), "of other clips than training measured"
    assert real["psnr"] is None


@pytest.mark.slow
def test_the_proof_fails_a_network_that_sees_too_little_and_tells_the_floor(run, benchmark, capsys, monkeypatch):
    proof = benchmark("motion_proof")
    monkeypatch.setattr(proof, "MIN_RATIO", 1e9)
    with pytest.raises(SystemExit, match="sees too little: reversed, shuffled, frozen samples lie within"):
        proof.main([str(run), "-n", "64", "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["order"] for row in rows] == list(ORDERS)
    assert rows[0]["ratio"] == 1
    for row in rows:
        assert row["ratio"] == pytest.approx(row["frechet"] / rows[0]["frechet"])
    assert {row["order"]: row["ratio"] for row in rows}["frozen"] > 3, "nothing moves in them"
    monkeypatch.setattr(proof, "MIN_RATIO", 0.0)
    proof.main([str(run), "-n", "64"])
    assert "| as filmed (two real halves) |" in capsys.readouterr().out

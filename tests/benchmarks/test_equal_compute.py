"""Ways to train a student get the same time, share what they begin with, and stand in one table."""

from __future__ import annotations

import json

import pytest

from benchmarks import equal_compute
from benchmarks.equal_compute import WAYS, Table, as_markdown
from scm_media import load
from scm_media.recipe import compose
from scm_media.training import run
from tests.training.small import SMALL

OVERRIDES = (
    "data=shapes",
    "modality.size=16",
    "guide=null",
    "sampler.guidance=1",
    "trainer.compile=false",
    "trajectories.num=64",
    "trajectories.batch_size=32",
    "warm_start.batch_size=8",
    *(each for each in SMALL if "tangent_warmup" not in each),
)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table of a small image/fashion whose evaluation counts what it is asked and returns the same figures."""
    for stage in ("autoencoder", "teacher"):
        run(compose("image/fashion", [*OVERRIDES, f"run_dir={tmp_path / 'base'}", f"stage={stage}"]))
    rows = [{"steps": steps, "frechet": 1.5 / steps, "seconds": 1.0} for steps in (1, 2)]
    monkeypatch.setattr(equal_compute, "evaluate", lambda *_, **__: {"rows": rows})
    searched = {"times": {"1": [1.55], "2": [1.55, 0.7]}}
    monkeypatch.setattr(equal_compute, "search_times", lambda *_, **__: searched)
    return Table("image/fashion", tmp_path / "base", tmp_path / "out", OVERRIDES)


@pytest.mark.slow
def test_each_way_gets_the_time_that_is_left_to_it(table):
    for name in ("sCD", "regression + matching", "regression + sCD, r over half"):
        table.add(name, 4.0, 32)
    results, speeds = table.results, table.speeds()
    shared = results["shared"]
    assert results["ways"]["sCD"]["steps"] == int(4.0 / speeds["sCD step, guided teacher"])
    for name in ("regression + matching", "regression + sCD, r over half"):
        way = results["ways"][name]
        assert way["steps"] == max(1, int((4.0 - sum(shared.values())) / speeds[WAYS[name].step]))
        assert way["minutes"]["warm_start"] * 60 == pytest.approx(shared["warm_start"])
        assert way["rows"]["2"] == {"frechet": 0.75} and way["second_time"] == 0.7
        assert load(table.out / equal_compute.folder_name(name)).settings.times["2"] == [1.55, 0.7]
    recipe = (table.out / "regression-and-sCD-r-over-half" / "recipe.yaml").read_text()
    assert f"tangent_warmup: {results['ways']['regression + sCD, r over half']['steps'] // 2}" in recipe
    assert "trajectories: null" in (table.out / "sCD" / "recipe.yaml").read_text()


@pytest.mark.slow
def test_what_is_done_is_not_done_again(table, monkeypatch):
    table.add("sCD", 1.0, 32)
    monkeypatch.setattr(equal_compute, "run", lambda config: pytest.fail("trained again"))
    before = table.file.read_text()
    table.add("sCD", 1.0, 32)
    assert table.file.read_text() == before and json.loads(before)["ways"].keys() == {"sCD"}
    written = json.loads(before)
    table.file.write_text(json.dumps(written | {"ways": {}}))
    table.add("sCD", 1.0, 32)
    assert table.results == written, "a student that is trained is measured again, and not trained again"


def test_the_table_has_a_row_a_way():
    minutes = {"trajectories": 12.4, "warm_start": 28.0, "student": 11.2}
    rows = {"1": {"frechet": 1.0234}, "2": {"frechet": 0.651}}
    way = {"steps": 1400, "minutes": minutes, "rows": rows, "second_time": 0.5}
    lines = as_markdown({"regression + matching": way}).splitlines()
    assert lines[2] == "| regression + matching | 12 + 28 + 11 | 1,400 | 1.023 | 0.651 | 0.5 |"

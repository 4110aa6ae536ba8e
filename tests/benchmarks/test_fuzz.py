"""The fuzzer counts what escapes, and notes what is done outside of an input's folder."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fuzz import Tally, _count
from benchmarks.fuzzing import corruption
from benchmarks.fuzzing.watch import Watch

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_few_inputs_of_two_targets_are_used_or_refused():
    words = ["--num", "40", "--seconds", "60", "--targets", "manifests", "figures"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| manifests | 30 |" in done.stdout and "| figures | 10 |" in done.stdout
    assert "sentinel unchanged: True; connections to the listener: 0" in done.stdout


def test_what_does_not_behave_is_counted_with_its_seed():
    tally = Tally()
    _count(tally, "x 1", "used", (0.1, 0, {}))
    _count(tally, "x 2", "KeyError: 'a'", (0.1, 0, {}))
    _count(tally, "x 3", "refused", (6.0, 2 << 30, {"wrote /etc/x": 1}))
    assert (tally.used, tally.refused, tally.slow, tally.large) == (1, 1, 1, 1)
    assert sum(tally.escaped.values()) == 1 and tally.acted == {"wrote /etc/x": 1}
    assert [seed.split(":")[0] for seed in tally.seeds] == ["x 2", "x 3"] and not tally.clean


def test_writes_outside_are_noted_and_those_inside_are_not(tmp_path):
    watch = Watch()
    watch.folder, watch.active = str(tmp_path / "inside"), True
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "x").write_text("1")
    assert not watch.noted
    (tmp_path / "outside").write_text("1")
    (tmp_path / "outside").read_text()
    watch.active = False
    assert dict(watch.noted) == {f"wrote {tmp_path / 'outside'}": 1}


def test_the_same_seed_makes_the_same_input():
    places = {"sentinel": "/s", "address": "http://a"}
    tree = {"a": [1, {"b": "c"}], "d": None}
    made = [corruption.corrupt_tree(tree, random.Random("0 x 7"), places) for _ in range(2)]
    assert repr(made[0]) == repr(made[1]) != repr(tree)
    changed = [corruption.corrupt_bytes(bytes(64), random.Random(3)) for _ in range(2)]
    assert changed[0] == changed[1] != bytes(64)

"""The script for a GPU: stages end at their limits, are not run twice, and failures of one leave the others alone."""

from __future__ import annotations

import json
import sys
import time

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import Stage, main, measure_tangents, run_stage


@pytest.mark.slow
def test_tangents_are_compared_for_each_backbone_in_both_types():
    rows = [line.split("|")[1:-1] for line in measure_tangents(torch.device("cpu"), True).splitlines()[2:]]
    assert len(rows) == 2 * len(gpu.BACKBONES)
    for _, dtype, value, tangent, _ in rows:
        limit = 1e-5 if dtype.strip() == "float32" else 5e-2
        assert 0 < float(value) < limit and 0 < float(tangent) < limit


def test_a_stage_ends_at_its_first_failure_and_at_its_limit(tmp_path):
    fails = [sys.executable, "-c", "print('before'); raise SystemExit(3)"]
    found = run_stage("a", Stage(60, [fails, [sys.executable, "-c", "print('after')"]]), tmp_path)
    assert (found["codes"], found["well"]) == ([3], False)
    assert "before" in (tmp_path / "a.txt").read_text() and "after" not in (tmp_path / "a.txt").read_text()
    began = time.monotonic()
    found = run_stage("b", Stage(1, [[sys.executable, "-c", "import time; time.sleep(60)"]]), tmp_path)
    assert found["codes"] == [None] and time.monotonic() - began < 20


def test_results_are_kept_as_they_come_and_stages_not_run_twice(tmp_path, monkeypatch, capsys):
    called = []

    def breaks():
        raise RuntimeError("no such kernel")

    stages = {"good": Stage(60, call=lambda: called.append(1) or "fine"), "bad": Stage(60, call=breaks)}
    monkeypatch.setattr(gpu, "make_stages", lambda *_: stages)
    for _ in range(2):
        assert main([str(tmp_path), "--device", "cpu"]) == 1
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept["good"]["well"] and kept["bad"]["error"] == "RuntimeError: no such kernel"
    assert kept["machine"]["torch"] == torch.__version__
    assert called == [1] and "good: ended well before" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--device", "cpu", "--only", "unknown"])

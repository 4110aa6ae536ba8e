from __future__ import annotations

import pytest

from scm_media.evaluation.gate import teacher_gate
from scm_media.pipeline.card import metrics_table


@pytest.mark.parametrize(
    ("frechet", "agreement", "num", "passed"),
    [
        (0.5, 0.86, 10_000, True),
        (0.51, 0.86, 10_000, False),
        (0.5, 0.84, 10_000, False),
        (0.5, None, 10_000, True),
        (0.5, 0.86, 9_999, None),
    ],
)
def test_the_gate_asks_for_agreement_and_distance_at_ten_thousand(frechet, agreement, num, passed):
    gate = teacher_gate({"frechet": frechet, "agreement": agreement}, 0.05, num)
    assert gate["passed"] is passed
    assert gate["frechet_over_floor"] == pytest.approx(frechet / 0.05)


def test_nothing_is_judged_without_teacher_or_floor():
    assert teacher_gate(None, 0.05, 10_000)["passed"] is None
    assert teacher_gate({"frechet": 1.0, "agreement": 0.9}, None, 10_000)["passed"] is None


@pytest.mark.parametrize("passed", [True, False, None])
def test_a_card_shows_no_ratio_over_a_teacher_that_is_not_past_its_gate(passed):
    metrics = {
        "features": {"name": "own", "dimension": 8},
        "num_samples": 10_000,
        "rows": [],
        "frechet_ratio_2_step": 1.05,
        "speedup_2_step": 29.0,
        "teacher_gate": {"passed": passed, "agreement": 0.8, "frechet_over_floor": 12.0},
    }
    table = metrics_table(metrics)
    assert ("1.050" in table) is (passed is True)
    assert ("12.0 × the floor" in table) is (passed is not True)
    assert "29.0" in table

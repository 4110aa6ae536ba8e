from __future__ import annotations

import pytest

from scm_media.evaluation.threshold import teacher_threshold
from scm_media.pipeline.card import metrics_table
from tests.evaluation.curve_metrics import make_metrics


@pytest.mark.parametrize(
    ("frechet", "accuracy", "num", "passed"),
    [
        (0.5, 0.86, 10_000, True),
        (0.51, 0.86, 10_000, False),
        (0.5, 0.84, 10_000, False),
        (0.5, None, 10_000, True),
        (0.5, 0.86, 9_999, None),
    ],
)
def test_the_gate_asks_for_agreement_and_distance_at_ten_thousand(frechet, accuracy, num, passed):
    gate = teacher_threshold({"frechet": frechet, "accuracy": accuracy}, 0.05, num)
    assert gate["passed"] is passed
    assert gate["frechet_over_held_out"] == pytest.approx(frechet / 0.05)


def test_nothing_is_judged_without_teacher_or_floor():
    assert teacher_threshold(None, 0.05, 10_000)["passed"] is None
    assert teacher_threshold({"frechet": 1.0, "accuracy": 0.9}, None, 10_000)["passed"] is None


@pytest.mark.parametrize("passed", [True, False, None])
def test_a_card_shows_no_ratio_over_a_teacher_that_is_not_past_its_gate(passed):
    metrics = {
        "features": {"name": "own", "dimension": 8},
        "num_samples": 10_000,
        "rows": [],
        "frechet_ratio_2_step": 1.05,
        "speedup_2_step": 29.0,
        "teacher_threshold": {"passed": passed, "accuracy": 0.8, "frechet_over_held_out": 12.0},
    }
    table = metrics_table(metrics)
    assert ("1.050" in table) is (passed is True)
    assert ("12.0 × the held-out distance" in table) is (passed is not True)
    assert "29.0" in table


def test_figures_of_a_curve_have_operations_and_intervals_on_the_card():
    table = metrics_table(make_metrics())
    assert "| sampler | steps | evaluations | operations | Fréchet | precision |" in table
    assert "| consistency | 4 | 4 | 4 G | 0.62 [0.589, 0.651] | 0.810 |" in table
    assert table.splitlines()[1].count("|") == table.splitlines()[0].count("|") == table.splitlines()[2].count("|")
    plain = metrics_table({**make_metrics(), "curve": False})
    assert "| consistency | 2 | 2 | 0.65 | 0.810 |" in plain
    lacking = make_metrics()
    lacking["rows"][0] |= {"operations_per_sample": None, "intervals": {"frechet": None}}
    assert "| heun | 8 | 30 | – | 0.6 | 0.810 |" in metrics_table(lacking)

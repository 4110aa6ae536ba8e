"""Figures as ``evaluate --curve`` writes them, made up."""

from __future__ import annotations

from typing import Any

GIGA = 10**9
OWN = "the model's own feature extractor"


def make_row(sampler: str, steps: int, evaluations: int, frechet: float, seconds: float) -> dict[str, Any]:
    """Returns a row whose intervals reach 5 % to both sides, and whose second distance is 20 times the first."""
    return {
        "sampler": sampler,
        "steps": steps,
        "guidance": None,
        "evaluations": evaluations,
        "frechet": frechet,
        "kernel": frechet / 100,
        "precision": 0.81,
        "recall": 0.72,
        "density": 0.93,
        "coverage": 0.88,
        "accuracy": 0.91,
        "seconds_per_sample": seconds,
        "operations_per_sample": evaluations * GIGA,
        "intervals": {"frechet": [0.95 * frechet, 1.05 * frechet], "kernel": None, "precision": [0.79, 0.83]},
        "second": {"frechet": 20 * frechet, "interval": [19 * frechet, 21 * frechet]},
        "statistics": {"motion": {"mean": 3 * frechet, "distance": 0.125}},
    }


def make_metrics(model: str = "test/tiny", student: float = 0.65, **others: Any) -> dict[str, Any]:
    """Returns figures of a teacher at 8 and 32 steps and of a student at 1, 2 and 4; student: its distance in two."""
    return {
        "curve": True,
        "model": model,
        "features": {"name": OWN, "dimension": 8, "projected_from": None},
        "num_samples": 10_000,
        "num_reference": 60_000,
        "too_few": False,
        "dtype": "float32",
        "rows": [
            make_row("heun", 8, 30, 0.6, 0.045),
            make_row("heun", 32, 126, 0.5, 0.2),
            make_row("consistency", 1, 1, 1.02, 0.002),
            make_row("consistency", 2, 2, student, 0.004),
            make_row("consistency", 4, 4, 0.62, 0.008),
        ],
        "frechet_held_out": 0.0511,
        "floor": {
            "num": 9_000,
            "frechet": 0.0522,
            "precision": 0.95,
            "intervals": {"frechet": [0.04, 0.06]},
            "second": {"frechet": 0.77, "interval": None},
            "statistics": {"motion": {"mean": 1.875, "distance": 0.0625}},
        },
        "ceiling": {"num": 9_000, "frechet": 0.123, "precision": 0.94},
        "second_features": {"name": "efficientnet-lite0", "dimension": 128, "too_few": False},
        "ranking_agreement": 0.87,
        "statistics": {"motion": {"unit": "pixels", "mean": 1.875}},
        "operations": {"student": GIGA, "teacher": GIGA, "guide": GIGA // 4, "decode": None},
        "teacher_threshold": {"passed": True, "accuracy": 0.9, "frechet_over_held_out": 9.8},
        **others,
    }


def make_old_metrics(model: str = "test/tiny") -> dict[str, Any]:
    """Returns the same as an evaluation without ``--curve`` wrote them before."""
    new = make_metrics(model)
    names = ("model", "features", "num_samples", "num_reference", "too_few", "dtype", "frechet_held_out")
    keys = ("sampler", "steps", "evaluations", "frechet", "precision", "recall", "accuracy", "seconds_per_sample")
    return {**{name: new[name] for name in names}, "rows": [{key: row[key] for key in keys} for row in new["rows"]]}

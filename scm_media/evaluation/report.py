"""What ``evaluate`` prints and writes: a table, and a page to open."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.evaluation.curve import curve_svg
from scm_media.pipeline.card import metrics_table


def report(metrics: Mapping[str, Any]) -> str:
    """The figures of ``evaluate`` or ``evaluate_folders`` as text (Markdown)."""
    if "rows" in metrics:
        return f"{metrics['model']}\n\n{metrics_table(metrics)}"
    features = metrics["features"]
    lines = [
        f"{metrics['num_samples']} samples against {metrics['num_reference']}, "
        f"{features['dimension']}-dimensional features: {features['name']}.",
        *(f"- {name}: {metrics[name]:.4g}" for name in ("frechet", "kernel", "precision", "recall")),
    ]
    for side, reasons in metrics["rejects"].items():
        lines += [f"- left out of {side}: {count} × {reason}" for reason, count in reasons.items()]
    if metrics["num_samples"] <= features["dimension"]:
        lines.append("- fewer samples than feature dimensions: the Fréchet distance says little")
    return "\n".join(lines)


def write_report_page(metrics: Mapping[str, Any], path: str | Path) -> None:
    """Writes a self-contained page: the table, and the curve of distance over evaluations."""
    curve = curve_svg(metrics) if "rows" in metrics else ""
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Evaluation</title>'
        f"<body>{curve}<pre>{html.escape(report(metrics))}</pre></body></html>\n"
    )
    weights.write_whole(path, page.encode())

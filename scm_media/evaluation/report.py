"""The text that ``evaluate`` prints, and the page that it writes."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.display import printable
from scm_media.drawing import draw_curve
from scm_media.evaluation.summary import few_samples
from scm_media.pipeline.card import memorization_report, metrics_table, projection

FIGURES = ("frechet", "kernel", "precision", "recall")
MEMORIZATION_SHEET = "memorization.png"


def report(metrics: Mapping[str, Any]) -> str:
    """Returns the figures of ``evaluate``, ``evaluate_folders`` or ``evaluate_folder`` as Markdown."""
    features, remarks = metrics["features"], [f"- {text}" for text in few_samples(metrics)]
    if "rows" in metrics:
        found = metrics.get("memorization")
        copying = [] if found is None else ["", "Memorization", "", memorization_report(found)]
        remarks += [f"- {printable(remark)}" for remark in metrics.get("remarks") or ()]
        return "\n".join([f"{printable(metrics['model'])}\n\n{metrics_table(metrics)}", *remarks, *copying])
    lines = [
        f"{metrics['num_samples']} samples against {metrics['num_reference']}"
        f"{' of the training data' if 'frechet_held_out' in metrics else ''}, "
        f"{features['dimension']}-dimensional features: {features['name']}{projection(features)}.",
        *(f"- {name}: {metrics[name]:.4g}" for name in FIGURES if metrics.get(name) is not None),
    ]
    if metrics.get("frechet_held_out") is not None:
        lines.append(f"- frechet of {metrics['num_held_out']} held-out samples: {metrics['frechet_held_out']:.4g}")
    for side, reasons in metrics["rejects"].items():
        lines += [f"- left out of {side}: {count} × {printable(reason)}" for reason, count in reasons.items()]
    return "\n".join([*lines, *remarks])


def write_report_page(metrics: Mapping[str, Any], path: str | Path) -> None:
    """Writes a page: the table, the curve of distance over evaluations, and a sheet of nearest samples beside it."""
    curve = draw_curve(metrics) if "rows" in metrics else ""
    if Path(path).with_name(MEMORIZATION_SHEET).is_file():
        curve += f'<p><img src="{MEMORIZATION_SHEET}" alt="samples beside the training samples nearest to them"></p>'
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Evaluation</title>'
        f"<body>{curve}<pre>{html.escape(report(metrics))}</pre></body></html>\n"
    )
    weights.write_whole(path, page.encode())

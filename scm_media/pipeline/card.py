"""The model card: what a model is, how it is used, how good it was measured to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(description: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> str:
    """The card of a model folder, as Markdown."""
    name = description["name"]
    objective = {"scd": "distilled from a diffusion teacher (sCD)", "sct": "trained from data (sCT)"}
    how = objective.get(description.get("objective", ""), "trained")
    lines = [
        f"# {name}",
        "",
        f"A continuous-time consistency model, {how}, for samples of shape {_shape(description['sample_shape'])} "
        f"(latents {_shape(description['latent_shape'])}).",
        "",
        "```python",
        "import scm_media",
        "",
        'clips = scm_media.load("path/to/this/folder")(4, steps=2, seed=0)',
        "```",
        "",
        f"- Data: {description.get('data') or 'not said'}",
        f"- Licence of the data: {description.get('licence') or 'not said'}",
    ]
    for label, classes in description["labels"].items():
        lines.append(f"- Label `{label}`: {', '.join(classes) if classes else 'a number'}")
    if metrics is None:
        return "\n".join([*lines, "", "Not evaluated.", ""])
    return "\n".join([*lines, "", "## Figures", "", metrics_table(metrics), ""])


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """The figures of an evaluation as a Markdown table, followed by what they are to be read against."""
    features, gate = metrics["features"], metrics.get("teacher_gate") or {}
    lines = [
        "| sampler | steps | evaluations | Fréchet | precision | recall | agreement | ms a clip |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in metrics["rows"]:
        cells = [row["sampler"], str(row["steps"]), str(row["evaluations"]), f"{row['frechet']:.4g}"]
        cells += [_number(row[key], 3) for key in ("precision", "recall", "agreement")]
        milliseconds = None if row["seconds_per_clip"] is None else 1000 * row["seconds_per_clip"]
        lines.append(f"| {' | '.join([*cells, _number(milliseconds, 2)])} |")
    lines += [
        "",
        f"{metrics['num_samples']} samples, {features['dimension']}-dimensional features: {features['name']}.",
    ]
    for key, text, digits in (
        ("frechet_floor", "Fréchet distance of held-out data to the training data at the same number", 4),
        ("agreement_held_out", "agreement of held-out data with its labels", 3),
        ("frechet_ratio_1_step", "Fréchet distance of one step over the teacher's", 3),
        ("frechet_ratio_2_step", "Fréchet distance of two steps over the teacher's", 3),
        ("speedup_2_step", "speed-up of two steps over the teacher, end to end", 1),
        ("speedup_bound", "the most that speed-up can be, from the seconds below", 1),
        ("network_seconds_per_clip", "seconds of one evaluation, a clip", 6),
        ("guide_seconds_per_clip", "seconds of one evaluation of the teacher's guide, a clip", 6),
        ("decode_seconds_per_clip", "seconds of decoding, a clip", 6),
    ):
        hidden = key.startswith("frechet_ratio") and gate.get("passed") is not True
        if metrics.get(key) is not None and not hidden:
            lines.append(f"- {text}: {_number(metrics[key], digits)}")
    if gate.get("frechet_over_floor") is not None and gate["passed"] is not True:
        state = "was not judged (fewer than 10,000 samples)" if gate["passed"] is None else "missed its gate"
        lines.append(
            f"- the teacher {state}: agreement {_number(gate['agreement'], 3)} (0.85 or more is asked), Fréchet "
            f"{gate['frechet_over_floor']:.1f} × the floor (10 × or less); no ratio over it is shown"
        )
    return "\n".join(lines)


def _shape(shape: list[int]) -> str:
    return " × ".join(map(str, shape))


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"

"""The model card: describes a model, shows how to use it, and lists its figures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scm_media.build import build
from scm_media.display import printable
from scm_media.pipeline.carried_texts import measured_with_all_texts
from scm_media.pipeline.description import ModelDescription
from scm_media.pipeline.labels import LabelSet
from scm_media.pipeline.model_folder import CURVE_SUFFIX, METRICS_FILE, ModelFolder
from scm_media.prompts import LABEL as PROMPT
from scm_media.prompts import LONGEST

SHEET_FILE = "samples.png"
MAX_TEXTS = 24
"""Texts that a card lists."""

HUB_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-sa-3.0", "gpl-3.0")
"""Licences that the Hugging Face hub knows by these names; any other is listed by its own name under "other"."""

_MARKUP = str.maketrans({"<": "&lt;", "`": "\\`", "|": "\\|", "[": "\\["})
"""Escapes for the characters that begin tags, code, cells, links and pictures."""


def markdown_text(text: object) -> str:
    """Returns text of unknown origin as Markdown shows it: in one line, without control characters, tags or links."""
    return printable(text).translate(_MARKUP)


def markdown_code(text: object) -> str:
    """Returns text of unknown origin as it may stand between back quotes."""
    return printable(text).replace("`", "'")


def format_card(folder: ModelFolder, sheet: bool | None = None, description: ModelDescription | None = None) -> str:
    """Returns the card of a model as Markdown, with the front matter that the Hugging Face hub reads.

    sheet: shows the picture ``samples.png``; None: when the folder has one. description: that of an export of the
    model, where it has other texts; None: the model's own. Raises ValueError for figures that no
    evaluation wrote.
    """
    modality = build(folder.description.modality, "modality")
    sheet = (folder.path / SHEET_FILE).is_file() if sheet is None else sheet
    metrics = folder.metrics()
    tables = {} if metrics is None else {METRICS_FILE: metrics}
    tables |= folder.second_opinions()
    try:
        figures = _figures(tables, folder.memorization(), LabelSet.from_description(description or folder.description))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise ValueError(
            f"{folder.path}: its figures (metrics.json, metrics-*.json, memorization.json) are not as an evaluation "
            f"writes them ({type(error).__name__}: {error}); evaluate the model again"
        ) from error
    description = description or folder.description
    tag = modality.pipeline_tag if description.text is None else f"text-to-{modality.name}"
    front = _front_matter(description.licence, modality.name, tag)
    limits = _use_and_limits(description, modality.name, metrics, folder.memorization() is not None)
    return "\n".join([*front, *_introduction(description, sheet), *limits, *figures, ""])


def _use_and_limits(
    description: ModelDescription, modality: str, metrics: Mapping[str, Any] | None, measured_copying: bool
) -> list[str]:
    """Returns the sections on what a model is for and what it cannot do, as far as its description and figures tell."""
    known = "texts" if description.text is not None else "classes" if any(description.labels.values()) else "kinds"
    shape, threshold = _shape(description.sample_shape), (metrics or {}).get("teacher_threshold") or {}
    lines = [
        "",
        "## Intended use",
        "",
        f"Trying out generation in few steps, teaching, measuring methods, and starting a training on one's own "
        f"{modality} data (`init_from`). It is not meant for samples that are passed off as real ones, nor for any use "
        "in which a wrong sample does harm.",
        "",
        "## Limits",
        "",
        f"- It makes samples of shape {shape}, of the {known} that its data have. What is rare there is rare or "
        "poor in samples, and nothing was done to balance it.",
        "- Samples were compared with the data as a whole, by the figures below; single ones may be broken."
        if metrics is not None
        else "- Samples were not compared with the data by any figure.",
    ]
    if isinstance(threshold, Mapping) and threshold.get("passed", True) is not True:
        lines.append(
            "- The teacher was not shown to be good enough for a comparison (below): being near to it says little."
        )
    if not measured_copying:
        lines.append(
            "- Whether it repeats samples of its training was not measured: `scm-media evaluate MODEL --memorization "
            "16` does."
        )
    if description.text is not None:
        lines.append(
            "- It was trained with the texts of its data alone; `generate` warns of texts that are unlike all of these."
        )
    return lines


def _introduction(description: ModelDescription, sheet: bool) -> list[str]:
    objective = {"scd": "distilled from a diffusion teacher", "sct": "trained from data (sCT)"}
    how = objective.get(description.objective or "", "trained")
    lines = [
        f"# {markdown_text(description.name)}",
        "",
        f"A continuous-time consistency model, {how}, for samples of shape {_shape(description.sample_shape)} "
        f"(latents {_shape(description.latent_shape)}).",
        "",
        *([f"![samples of fixed noise]({SHEET_FILE})", ""] if sheet else []),
        "```python",
        "import scm_media",
        "",
        f'samples = scm_media.load("path/to/this/folder")(4, {_example_prompt(description)}steps=2, seed=0)',
        "```",
        "",
        f"- Data: {markdown_text(description.data or 'unknown')}",
        f"- Licence of the data: {markdown_text(description.licence or 'unknown')}",
    ]
    if description.text is not None:
        name = str(description.text.get("encoder"))
        encoder = markdown_code(Path(name).name if Path(name).is_absolute() else name)
        texts = _texts(description)
        shown = ", ".join(f'"{markdown_text(text)}"' for text in texts[:: -(-len(texts) // MAX_TEXTS) or 1])
        lines.append(
            f"- Takes texts (`--prompt`, `prompt=`), embedded by `{encoder}`. Of these {len(texts)} the embeddings go "
            f"along, any other text needs the encoder: {shown}{' …' if len(texts) > MAX_TEXTS else ''}"
        )
    for label, classes in description.labels.items():
        if description.text is None or label != PROMPT:
            listed = ", ".join(map(markdown_text, classes)) if classes else "a number"
            lines.append(f"- Label `{markdown_code(label)}`: {listed}")
    if description.actions:
        lines.append(
            f"- Actions, numbers for each frame (`--actions`): {', '.join(map(markdown_text, description.actions))}"
        )
    scale, highest = description.sampler.guidance, description.guidance_max
    if highest is not None:
        lines.append(f"- Guidance: an input of the student, from 1 to {highest:g}; {scale:g} by default")
    elif scale != 1:
        distilled = ", and the student was distilled from it so" if description.objective == "scd" else ""
        lines.append(f"- Guidance: the teacher is guided at scale {scale:g}{distilled}")
    for stage, choice in (description.ema or {}).items():
        lines.append(
            f"- The {markdown_text(stage)}'s weights are an average of relative standard deviation {choice['std']:g}, "
            f"chosen after training by the Fréchet distance of {markdown_text(choice['num_samples'])} samples"
        )
    return lines


def _texts(description: ModelDescription) -> Sequence[str]:
    """Returns the texts that a model of texts lists."""
    return () if description.text is None else description.labels.get(PROMPT, ())


def _example_prompt(description: ModelDescription) -> str:
    """Returns the argument of a call that asks for the first text; nothing for a model without texts.

    A long text is listed by its beginning, which is no text of the model.
    """
    text = next((each for each in _texts(description) if len(each) <= LONGEST), None)
    return "" if text is None else f"prompt={json.dumps(printable(text), ensure_ascii=False)}, "


def _figures(
    tables: Mapping[str, Mapping[str, Any]], memorization: Mapping[str, Any] | None, labels: LabelSet
) -> list[str]:
    lines = [] if tables else ["", "Not evaluated."]
    for number, (name, metrics) in enumerate(tables.items()):
        beside = "## Quality against compute" if Path(name).stem.endswith(CURVE_SUFFIX) else "## In other features"
        lines += ["", beside if number else "## Figures", "", metrics_table(metrics)]
        remarks = [*(metrics.get("remarks") or ()), *measured_with_all_texts(labels, metrics)]
        lines += [f"- {markdown_text(remark)}" for remark in remarks]
    if memorization is not None:
        lines += ["", "## Memorization", "", memorization_report(memorization)]
    return lines


def memorization_report(figures: Mapping[str, Any]) -> str:
    """Returns the figures of ``evaluate --memorization`` as Markdown."""
    features = figures["features"]
    lines = [
        f"{markdown_text(figures['num_samples'])} samples ({markdown_text(figures['sampler'])}, "
        f"{markdown_text(figures['steps'])} steps) against {markdown_text(figures['num_train'])} training samples, "
        f"{markdown_text(features['dimension'])}-dimensional features: "
        f"{markdown_text(features['name'])}.",
        f"- median distance to the nearest training sample: {figures['median']:.4g}",
    ]
    if figures["fraction_below"] is None:
        return "\n".join([*lines, "- nothing is held out to compare with"])
    return "\n".join(
        [
            *lines,
            f"- the same of {markdown_text(figures['num_held_out'])} held-out samples: "
            f"{figures['median_held_out']:.4g}",
            f"- nearer than all but 1 % of held-out samples: {100 * figures['fraction_below']:.2f} % (1 % if nothing "
            "is copied)",
            f"- probability of being nearer than a held-out sample: {figures['nearer_than_held_out']:.3f} (0.5 if "
            "nothing is copied)",
            *_describe_copying(figures),
        ]
    )


def _describe_copying(figures: Mapping[str, Any]) -> list[str]:
    """Returns in a line whether either figure is above its value without copying by three standard deviations.

    There is none for numbers of samples that are none, in a file of unknown origin.
    """
    num, num_held_out = figures["num_samples"], figures["num_held_out"]
    if not (isinstance(num, int) and isinstance(num_held_out, int) and num > 0 and num_held_out > 0):
        return []
    chance = math.sqrt((num + num_held_out + 1) / (12 * num * num_held_out))  # of the Mann–Whitney statistic
    below = math.sqrt(0.01 * 0.99 * (1 / num + 1 / num_held_out))
    nearer = figures["nearer_than_held_out"] > 0.5 + 3 * chance
    if nearer or figures["fraction_below"] > 0.01 + 3 * below:
        whole = "samples are" if nearer else "some samples are"
        return [f"- **{whole} nearer to the training data than held-out data are: the model copies**"]
    return ["- samples are no nearer to the training data than held-out data are: no copying was found"]


def _front_matter(licence: str | None, modality: str, task: str | None) -> list[str]:
    """Returns the lines that the hub reads, between dashes. Source: the hub's model card metadata specification."""
    fields: dict[str, Any] = {"library_name": "scm-media"}
    if licence is not None:
        licence = printable(licence)
        listed = licence.lower() in HUB_LICENCES
        fields |= {"license": licence.lower()} if listed else {"license": "other", "license_name": licence}
    fields |= {} if task is None else {"pipeline_tag": task}
    fields["tags"] = ["consistency-model", "few-step-generation", modality]
    return ["---", yaml.safe_dump(fields, sort_keys=False, allow_unicode=True).rstrip(), "---", ""]


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """Returns the figures of an evaluation as a Markdown table, followed by the figures to compare them with.

    Figures of a curve have operations too, and the interval of the Fréchet distance behind it.
    """
    features, threshold = metrics["features"], metrics.get("teacher_threshold") or {}
    guided = any(row.get("guidance") is not None for row in metrics["rows"])
    curve = bool(metrics.get("curve"))
    names = ["sampler", "steps", *(["guidance"] if guided else []), "evaluations"]
    names += [*(["operations"] if curve else []), "Fréchet"]
    names += ["precision", "recall", "accuracy", "ms a sample"]
    lines = [f"| {' | '.join(names)} |", f"|---|{'---:|' * (len(names) - 1)}"]
    for row in metrics["rows"]:
        cells = [
            markdown_text(row["sampler"]),
            markdown_text(row["steps"]),
            *([f"{row['guidance']:g}"] if guided else []),
        ]
        operations = row.get("operations_per_sample")
        cells += [markdown_text(row["evaluations"])]
        cells += ["–" if operations is None else format_operations(operations)] if curve else []
        cells += [f"{row['frechet']:.4g}{_interval(row) if curve else ''}"]
        cells += [_number(row[key], 3) for key in ("precision", "recall", "accuracy")]
        milliseconds = None if row["seconds_per_sample"] is None else 1000 * row["seconds_per_sample"]
        lines.append(f"| {' | '.join([*cells, _number(milliseconds, 2)])} |")
    lines += [
        "",
        f"{markdown_text(metrics['num_samples'])} samples, {markdown_text(features['dimension'])}-dimensional "
        "features: "
        f"{markdown_text(features['name'])}{projection(features)}.",
    ]
    for key, text, digits in (
        ("frechet_held_out", f"Fréchet distance of {_held_out(metrics)}", 4),
        ("accuracy_held_out", "classifier accuracy on held-out data", 3),
        ("frechet_ratio_1_step", "Fréchet distance of one step over the teacher's", 3),
        ("frechet_ratio_2_step", "Fréchet distance of two steps over the teacher's", 3),
        ("speedup_2_step", "speed-up of two steps over the teacher, end to end", 1),
        ("speedup_bound", "the most that speed-up can be, from the seconds below", 1),
        ("network_seconds_per_sample", "seconds of one evaluation, a sample", 6),
        ("guide_seconds_per_sample", "seconds of one evaluation of the teacher's guide, a sample", 6),
        ("decode_seconds_per_sample", "seconds of decoding, a sample", 6),
    ):
        hidden = key.startswith("frechet_ratio") and threshold.get("passed") is not True
        if metrics.get(key) is not None and not hidden:
            lines.append(f"- {text}: {_number(metrics[key], digits)}")
    if threshold.get("frechet_over_held_out") is not None and threshold["passed"] is not True:
        unknown = threshold["passed"] is None
        state = "was not compared (fewer than 10,000 samples)" if unknown else "missed its threshold"
        lines.append(
            f"- the teacher {state}: accuracy {_number(threshold['accuracy'], 3)} (at least 0.85), Fréchet distance "
            f"{threshold['frechet_over_held_out']:.1f} × the held-out distance (at most 10 ×); no ratio to it is shown"
        )
    return "\n".join(lines)


def _held_out(metrics: Mapping[str, Any]) -> str:
    """Returns how many held-out samples the held-out distance is of, and what it is a distance from."""
    num = metrics.get("num_held_out")
    if num is None or num == metrics["num_samples"]:
        return "held-out data to the training data at the same number"
    return f"{markdown_text(num)} held-out samples to the training data"


def _interval(row: Mapping[str, Any]) -> str:
    """Returns the interval of a row's Fréchet distance as text behind it; empty without one."""
    bounds = (row.get("intervals") or {}).get("frechet")
    return "" if bounds is None else " [{:.3g}, {:.3g}]".format(*bounds)


def format_operations(number: float) -> str:
    """Returns a number of floating-point operations in three digits with the prefix of its size: ``1.25 G``."""
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{float(f'{number / size:.3g}'):g} {prefix}"
    return f"{number:.3g}"


def projection(features: Mapping[str, Any]) -> str:
    """Returns text that says how features were projected; empty for features that were not."""
    before = features.get("projected_from")
    return "" if before is None else f" (projected from {markdown_text(before)} dimensions by a fixed random matrix)"


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"

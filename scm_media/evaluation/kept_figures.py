"""Figures that were measured before, of a model or of a file, and whether several of them compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.display import printable
from scm_media.evaluation.features import OWN_NETWORK
from scm_media.evaluation.row_text import COLUMNS, Metrics, is_number
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.description import MODEL_FILE
from scm_media.pipeline.export import base_name
from scm_media.pipeline.hub import PLAIN_NAME
from scm_media.pipeline.model_folder import CURVE_SUFFIX, METRICS_FILE
from scm_media.reading import read_json


@dataclass(frozen=True)
class Measurement:
    """The figures of one model. name: the one that is shown; source: as the user gave it; folder: None for a file."""

    name: str
    source: str
    metrics: Metrics
    folder: ModelFolder | None = None


def read_measurements(sources: Sequence[str], features: str | None = None) -> list[Measurement]:
    """Returns the figures of models: run and model folders, bundled names, hf://…, and paths of ``metrics.json``.

    features: the figures in the features of this network (``metrics-NAME.json``) instead of the model's own. Of models
    that have a curve beside other figures the curves are taken if all have one, since others have more samples. Models
    of the same name are told apart by the places that the user gave. Raises ValueError, with the command that measures
    the model, where it has no figures, and for figures that no evaluation of a model wrote.
    """
    curves = [_read(source, features, CURVE_SUFFIX) for source in sources]
    chosen = [_read(source, features) for source in sources] if None in curves else curves
    found = [each for each in chosen if each is not None]
    names = [each.name for each in found]
    told = [each.name if names.count(each.name) == 1 else f"{each.name} ({base_name(each.source)})" for each in found]
    unique = [name if told.count(name) == 1 else f"{name} {number + 1}" for number, name in enumerate(told)]
    return [Measurement(name, e.source, e.metrics, e.folder) for name, e in zip(unique, found, strict=True)]


def _read(source: str, features: str | None, suffix: str = "") -> Measurement | None:
    """Returns the figures of a source; suffix: those of its curve, or None where it has none."""
    if features is not None and PLAIN_NAME.fullmatch(features) is None:
        raise ValueError(f"--features {features}: expected the name of a feature network, as evaluate takes it")
    ordinary = METRICS_FILE if features is None else f"metrics-{features}.json"
    names = [ordinary.replace(".json", f"{suffix}.json"), ordinary] if suffix else [ordinary]
    path, folder = Path(source).expanduser(), None
    if path.suffix == ".json" and path.is_file():
        found = [read_json(path)]
    elif any((path / name).is_file() for name in names) and not (path / MODEL_FILE).exists():
        found = [read_json(path / name) for name in names if (path / name).is_file()]  # what evaluate --out wrote
    else:
        folder = ModelFolder.open(source)
        figures = folder.all_figures()
        found = [figures[name] for name in names if name in figures]
    if suffix:
        found = [each for each in found if isinstance(each, Mapping) and each.get("curve")]
        if not found:
            return None
    if not found:
        asked = "" if features is None else f" in the features of {features}"
        flag = "" if features is None else f" --features {features}"
        raise ValueError(f"{source} has no figures{asked}: measure it by scm-media evaluate {source} --curve{flag}")
    metrics = found[0]
    if problem := _problem(metrics):
        raise ValueError(
            f"{source}: its figures are not as an evaluation of a model writes them ({problem}); measure it again by "
            "scm-media evaluate MODEL --curve"
        )
    return Measurement(printable(metrics["model"]), source, metrics, folder)


def _problem(metrics: Any) -> str | None:
    """Returns what is wrong with figures from a file, in words; None for nothing."""
    if not isinstance(metrics, Mapping):
        return "no mapping"
    if not isinstance(metrics.get("rows"), list) or not metrics["rows"]:
        return "it has no rows of samplers"
    if not isinstance(metrics.get("model"), str) or not is_number(metrics.get("num_samples")):
        return "model or num_samples is missing"
    features = metrics.get("features")
    if not isinstance(features, Mapping) or not {"name", "dimension"} <= set(features):
        return "features are missing"
    second = metrics.get("second_features")
    if second is not None and not (isinstance(second, Mapping) and is_number(second.get("dimension"))):
        return "second_features is no mapping with a dimension"
    return next(filter(None, map(_row_problem, metrics["rows"])), None)


def _row_problem(row: Any) -> str | None:
    if not isinstance(row, Mapping) or not isinstance(row.get("sampler"), str):
        return "a row has no sampler"
    for key in ("steps", "evaluations"):
        if not is_number(row.get(key)) or not isinstance(row[key], int) or row[key] < 1:
            return f"{key} of a row is {row.get(key)!r}"
    if not is_number(row.get("frechet")):
        return f"frechet of a row is {row.get('frechet')!r}"
    for key in ("guidance", *COLUMNS):
        if row.get(key) is not None and not is_number(row[key]):
            return f"{key} of a row is {row[key]!r}"
    for key in ("operations_per_sample", "seconds_per_sample"):
        if (row.get(key) or 0) < 0:
            return f"{key} of a row is {row[key]!r}"
    intervals, second = row.get("intervals") or {}, row.get("second")
    if not isinstance(intervals, Mapping) or not all(map(_is_interval, intervals.values())):
        return "an interval of a row is no pair of numbers"
    if second is not None and not (
        isinstance(second, Mapping) and is_number(second.get("frechet")) and _is_interval(second.get("interval"))
    ):
        return "second of a row has no distance"
    return None


def _is_interval(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 2 and all(map(is_number, value)))


def find_differences(measurements: Sequence[Measurement]) -> list[str]:
    """Returns in words why figures of these models do not compare: other features, numbers of samples, or data.

    Of a model's own features the weights are compared, which ``metrics.json`` alone does not tell.
    """
    distances = "distances, precision, recall, density and coverage do not compare between them"
    found = [*_differing_features(measurements, distances)]
    for what, key, consequence in (
        ("numbers of samples", "num_samples", "distances of fewer samples are larger, so they do not compare"),
        ("numbers of reference samples", "num_reference", "they were measured against other data: " + distances),
        ("precisions", "dtype", "their seconds do not compare"),
    ):
        found += _differ(what, [(each.name, each.metrics.get(key)) for each in measurements], consequence)
    second = [(each.name, (each.metrics.get("second_features") or {}).get("name")) for each in measurements]
    found += _differ("second networks", second, "distances in them do not compare")
    data = [(each.name, each.folder.description.data) for each in measurements if each.folder is not None]
    return found + _differ("data", data, distances)


def _differing_features(measurements: Sequence[Measurement], consequence: str) -> list[str]:
    names = [(each.name, _describe_features(each.metrics)) for each in measurements]
    if differ := _differ("features", names, consequence):
        return differ
    if measurements[0].metrics["features"]["name"] != OWN_NETWORK:
        return []
    digests = [(each.name, _digest(each.folder)) for each in measurements]
    known = [(name, digest) for name, digest in digests if digest is not None]
    unknown = [name for name, digest in digests if digest is None]
    found = _differ("feature extractors (each model's own)", known, consequence)
    if unknown:
        found.append(
            f"whether all were measured in the same feature extractor is not known without the folders of "
            f"{', '.join(unknown)}: distances may not compare"
        )
    return found


def _describe_features(metrics: Metrics) -> str:
    features = metrics["features"]
    projected = features.get("projected_from")
    before = "" if projected is None else f", projected from {printable(projected)}"
    return f"{printable(features['name'])}, {printable(features['dimension'])} dimensions{before}"


def _digest(folder: ModelFolder | None) -> str | None:
    """Returns digits that identify a model's own feature extractor; None without one."""
    if folder is None or not folder.has("feature_extractor"):
        return None
    return weights.digest(folder.read("feature_extractor"))[:8]


def _differ(what: str, values: Sequence[tuple[str, Any]], consequence: str) -> list[str]:
    """Returns a sentence that lists who has which value; none where all have the same, or it is not known."""
    groups: dict[str, list[str]] = {}
    for name, value in values:
        if value is not None:
            groups.setdefault(printable(value), []).append(name)
    if len(groups) < 2:
        return []
    listed = "; ".join(f"{value}: {', '.join(names)}" for value, names in groups.items())
    return [f"other {what} ({listed}): {consequence}"]

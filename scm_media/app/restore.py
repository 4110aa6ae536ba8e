"""Takes the settings of a file that scm-media made, so that the same sample can be made again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scm_media.app.asking import TEACHER, Asked, plain, whole
from scm_media.app.models import Models
from scm_media.display import printable
from scm_media.modality import Modality
from scm_media.pipeline import Pipeline, SamplingRequest

UNTAKEN = {
    "task": "it was an edit, and the file that it was given is not in it",
    "negative": "its negative prompt",
    "actions": "its actions",
    "guidance_interval": "its interval of guidance",
    "overlap": "the overlap of its windows",
}
"""The page has no control for these keys of a record; their values say so in words."""


def restore_settings(models: Models, file: Path) -> tuple[Asked, str]:
    """Returns what a file was made with, and a sentence that says so and what of it could not be taken.

    Raises ValueError for a file that no model of the app could have made, that holds no settings, or whose model the
    app does not have.
    """
    record = read_record(models, file)
    name = _find_model(models, record)
    pipeline = models.pipeline(name)
    try:
        asked = _asked(name, pipeline, record)
        request = asked.request(pipeline, most=1)
        network = TEACHER if request.teacher else "student"
        if not pipeline.folder.has(network):
            raise ValueError(f"its {network} made the file, which {name} is without here")
        untaken = [words for key, words in UNTAKEN.items() if key in record]
        untaken += _find_other_teacher(pipeline, request, record) if request.teacher else []
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(f"{printable(file.name)} holds settings that cannot be used: {error}") from error
    remark = f"Settings of {printable(file.name)} taken: model {name}, seed {asked.seed}"
    return asked, f"{remark}; not taken: {', '.join(untaken)}" if untaken else remark


def _find_other_teacher(pipeline: Pipeline, request: SamplingRequest, record: Mapping[str, Any]) -> list[str]:
    """Returns in words what a teacher was asked for and the page has no control for: its steps and its sampler."""
    found = []
    if "steps" in record and (steps := whole("steps", record["steps"])) != pipeline.method(request).num_steps:
        found.append(f"its {steps} steps of the teacher")
    sampler = str(record.get("sampler", "")).removeprefix(TEACHER).removeprefix(", ")
    if sampler not in ("", pipeline.settings.teacher):
        found.append(f"its sampler {printable(sampler)[:40]}")
    return found


def read_record(models: Models, file: Path) -> dict[str, Any]:
    """Returns the record inside a file; raises ValueError as ``restore_settings``."""
    suffixes: list[str] = []
    for modality in _modalities(models):
        if file.suffix.lower() not in modality.written_suffixes:
            suffixes += [each for each in modality.written_suffixes if each not in suffixes]
            continue
        try:
            record = modality.read_metadata(file)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{file.parent}/", "")) from error  # the server's folders
        if record:
            return record
        raise ValueError(
            f"{printable(file.name)} holds no settings of scm-media; programs that save a file anew leave them out"
        )
    raise ValueError(
        f"{printable(file.name)} is of a kind that the models here do not make; drop one of {', '.join(suffixes)}"
    )


def _modalities(models: Models) -> list[Modality]:
    found: dict[str, Modality] = {}
    for name in models.names:
        modality = models.pipeline(name).modality
        found.setdefault(modality.name, modality)
    return list(found.values())


def _find_model(models: Models, record: Mapping[str, Any]) -> str:
    named = [str(record[key]) for key in ("model", "recipe") if record.get(key)]
    for name in named:
        if name in models.names:
            return name
    for name in models.names:  # a run folder is called main, whatever its recipe
        if models.pipeline(name).name in named:
            return name
    wanted = printable(named[0])[:100] if named else "an unknown model"
    raise ValueError(
        f"the file was made by {wanted}, which is not open here (open: {', '.join(models.names)}); name it when the "
        "app is started: scm-media app MODEL"
    )


def _asked(name: str, pipeline: Pipeline, record: Mapping[str, Any]) -> Asked:
    steps = str(whole("steps", record["steps"])) if "steps" in record else None
    if str(record.get("sampler", "")).startswith(TEACHER):
        steps = TEACHER
    label = record.get("label")
    given = {} if label is None else pipeline.labels.parse(str(label))
    sizes = {key: float(record[key]) for key in pipeline.modality.size_options if key in record}
    walk, guidance, prompt = record.get("walk"), record.get("guidance"), record.get("prompt")
    return Asked(
        model=name,
        labels={key: value if isinstance(value, str) else plain(value) for key, value in given.items()},
        prompt=None if prompt is None else str(prompt),
        steps=steps,
        guidance=None if guidance is None else float(guidance),
        seed=whole("seed", record.get("seed", 0)),
        first=whole("index", record.get("index", 0)),
        sizes=" ".join(f"{key}={plain(value)}" for key, value in sizes.items()) or None,
        walk=None if walk is None else (whole("the second seed", walk[0]), float(walk[1])),
    )

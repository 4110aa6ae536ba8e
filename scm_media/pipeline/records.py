"""The record of how samples were made, which is written into their files, without paths of this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from scm_media.pipeline.actions import format_actions
from scm_media.pipeline.batch_sampler import Samples
from scm_media.pipeline.export import base_name
from scm_media.pipeline.pipeline import Pipeline
from scm_media.pipeline.requests import EditRequest, SamplingRequest
from scm_media.prompts import LABEL as PROMPT

LONGEST_LABEL = 120
"""Bytes of a label in a file's name, of which most file systems take 255."""


def describe_sampling(pipeline: Pipeline, source: str, request: SamplingRequest) -> dict[str, Any]:
    """Returns model, recipe, steps, sampler, sizes and guidance of a request; source: the model's name or path."""
    sampler = f"teacher, {request.sampler or pipeline.settings.teacher}" if request.teacher else "consistency"
    how = {"steps": pipeline.method(request).num_steps, "sampler": sampler, **request.sizes}
    return _complete(pipeline, source, request, how)


def describe_edit(pipeline: Pipeline, source: str, request: EditRequest) -> dict[str, Any]:
    """Returns the same of an edit, with its task, what it keeps, and the names of the files that it was given."""
    sampling = request.sampling
    steps = len(sampling.times) if sampling.times else sampling.steps or pipeline.edit_steps
    given = {"input": request.source, "keep": request.keep, "region": request.region, "mask": request.mask}
    kept = {
        name: str(each) if isinstance(each, Path) else each
        for name, each in given.items()
        if each is not None and not isinstance(each, Tensor)
    }
    how = {"steps": steps, "sampler": "consistency", "task": request.task, **kept, **sampling.sizes}
    return _complete(pipeline, source, sampling, how)


def sample_records(pipeline: Pipeline, record: Mapping[str, Any], made: Samples) -> list[dict[str, Any]]:
    """Returns the record of each sample: that of the request with its own seed, index, label and actions."""
    records = []
    for number, (labels, seed, index) in enumerate(zip(made.labels, made.seeds, made.indices, strict=True)):
        sizes = {name: value for name, value in labels.items() if name in pipeline.modality.size_options}
        prompt = labels.get(PROMPT) if pipeline.text is not None else None
        others = labels if prompt is None else {name: each for name, each in labels.items() if name != PROMPT}
        own = {**record, **sizes, "seed": seed, "index": index, "label": format_labels(others)}
        if prompt is not None:
            own["prompt"] = prompt
        if made.actions is not None and (text := format_actions(made.actions[number], pipeline.actions.names)):
            own["actions"] = text
        records.append(own)
    return records


def format_labels(labels: Mapping[str, Any]) -> str | None:
    """Returns the labels as requests take them: the class of a single label, ``name=value`` for several."""
    if len(labels) <= 1:
        return next((str(value) for value in labels.values()), None)
    return " ".join(f"{name}={value}" for name, value in labels.items())


def sample_file_name(record: Mapping[str, Any], suffix: str) -> str:
    """Returns a name that the same seed, index, walk, label and prompt always give; record: of one sample."""
    name = " ".join(filter(None, (record["label"], record.get("prompt"))))
    words = re.sub(r"[^\w=+-]+", "_", name).strip("_")[:60]
    while len(os.fsencode(words)) > LONGEST_LABEL:
        words = words[:-1]
    walk = "" if record.get("walk") is None else "-walk-{}-{:g}".format(*record["walk"])
    return f"{record['seed']}-{record['index']:05d}{walk}{f'-{words}' if words else ''}{suffix}"


def _complete(pipeline: Pipeline, source: str, request: SamplingRequest, how: Mapping[str, Any]) -> dict[str, Any]:
    flags = {name: getattr(request, name) for name in ("guidance", "guidance_interval", "overlap", "walk")}
    given = {name: value for name, value in flags.items() if value is not None}
    whole = {"model": source, "recipe": pipeline.name, **how, **given}
    named = {name: base_name(value) if isinstance(value, str) else value for name, value in whole.items()}
    return named if request.negative is None else {**named, "negative": request.negative}

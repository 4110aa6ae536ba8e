"""This module says how the components of the edit tab look for a model and a way to edit."""

from __future__ import annotations

from typing import Any

from scm_media.app.asking import guides, student_steps
from scm_media.app.controls import Controls
from scm_media.app.edit_source import in_paragraph
from scm_media.app.edits import (
    KEEPING,
    STRETCH,
    WORDS,
    accepted_suffixes,
    describe_missing,
    find_ways,
    time_option,
)
from scm_media.pipeline import Pipeline

STEPS = (1, 2, 4, 8, 16, 32)
"""These numbers of steps are offered: networks that were not trained with masks need more of them."""


class EditControls(Controls):
    """These are the controls of a model with the steps of edits."""

    def _settings(self, pipeline: Pipeline) -> dict[str, Any]:
        found = super()._settings(pipeline)
        numbers = student_steps(pipeline, STEPS, pipeline.edit_steps)
        return found | {
            "steps": found["steps"]
            | {
                "choices": numbers,
                "value": str(pipeline.edit_steps) if numbers else None,
                "info": "fewer are faster; networks that were not trained with masks need more",
            },
            "guidance": found["guidance"] | {"visible": guides(pipeline) == "both"},
        }


def way_settings(pipeline: Pipeline) -> dict[str, Any]:
    """Returns the settings of the choice of a way."""
    ways = find_ways(pipeline)
    return {"choices": [(WORDS[way], way) for way in ways], "value": ways[0] if ways else None}


def missing_settings(pipeline: Pipeline) -> dict[str, Any]:
    """Returns the settings of what says which ways a model does not have."""
    words = describe_missing(pipeline)
    return {"value": in_paragraph(f"{pipeline.name} {words}."), "visible": bool(words)}


def upload_settings(pipeline: Pipeline) -> dict[str, Any]:
    """Returns the settings of the place where a file is dropped."""
    modality = pipeline.modality
    kind = {"image": "A picture", "audio": "A sound", "video": "A clip, or a picture"}.get(modality.name, "A file")
    return {"label": f"{kind} to edit", "file_types": accepted_suffixes(modality)}


def number_settings(pipeline: Pipeline, way: str | None) -> list[dict[str, Any]]:
    """Returns the settings of start, end, keep and length for a way."""
    option = time_option(pipeline.modality)
    unit = "" if option is None else f", {option.unit}"
    step = 0.01 if option is None or option.rate != 1 else 1
    stretched, kept = way == STRETCH, way in KEEPING
    sides = " at each end" if way == "interpolate" else ""
    return [
        {"label": f"From{unit}", "visible": stretched, "step": step},
        {"label": f"To{unit}", "visible": stretched, "step": step},
        {"label": f"Kept{sides}{unit} (0: the task's)", "visible": kept, "step": step},
        {"label": f"Length{unit} (0: the model's)", "visible": kept, "step": step},
    ]

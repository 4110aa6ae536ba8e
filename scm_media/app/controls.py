"""This module has the controls of a model, which three tabs show: model, labels, prompt, seed, steps, guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from scm_media.app.asking import TEACHER, Asked, default_steps, guides, offered_steps
from scm_media.app.context import App
from scm_media.app.errors import guarded
from scm_media.display import printable
from scm_media.pipeline import Pipeline
from scm_media.prompts import LABEL as PROMPT

SLOTS = 4
"""This many labels have a control of their own; a model with more has the others drawn."""
ANY = "any"
"""This is the choice by which a label is drawn for each sample."""
HIGHEST = 6.0
"""The scale of guidance ends here for models that do not say where."""


class Controls:
    """This holds the components, in the order in which handlers get their values, and makes their updates."""

    def __init__(self, app: App, live: bool) -> None:
        self.app, self.live = app, live
        first = app.models.pipeline(app.models.names[0])
        found = self._settings(first)
        self.model = gr.Dropdown(app.models.names, value=app.models.names[0], label="Model", filterable=False)
        self.prompt = gr.Textbox(label="Prompt", max_length=2000, **found["prompt"])
        with gr.Row():
            self.labels = [gr.Dropdown(allow_custom_value=True, min_width=130, **each) for each in found["labels"]]
        if live:
            self.seed: gr.Slider | gr.Number = gr.Slider(0, 999, value=0, step=1, label="Seed")
        else:
            self.seed = gr.Number(0, label="Seed", precision=0, minimum=0)
        self.steps = gr.Radio(label="Steps", **found["steps"])
        self.guidance = gr.Slider(step=0.05, **found["guidance"])

    @property
    def components(self) -> list[Any]:
        """Returns the components, whose values ``asked`` takes."""
        return [self.model, self.prompt, *self.labels, self.seed, self.steps, self.guidance]

    def asked(self, values: Sequence[Any], teacher: bool = False, **more: Any) -> Asked:
        """Returns what the values of the components ask for; teacher: of the teacher, whatever the steps say."""
        model, prompt, *labels, seed, steps, guidance = values
        steps = TEACHER if teacher else steps
        pipeline = self.app.models.pipeline(model)
        names = label_names(pipeline)
        given = {name: value for name, value in zip(names, labels, strict=False) if is_chosen(pipeline, name, value)}
        usable = guides(pipeline) == "both" or (guides(pipeline) == TEACHER and steps == TEACHER)
        if _one_is_own(pipeline) and guidance == 1:
            usable = False
        return Asked(
            model=model,
            prompt=prompt,
            labels=given,
            seed=seed,
            steps=steps,
            guidance=float(guidance) if usable and guidance is not None else None,
            **more,
        )

    def follow(self) -> Any:
        """Lets the other components change with the model that is chosen, and returns that event."""
        return self.model.input(
            guarded(self.update),
            self.model,
            self.components[1:],
            show_progress="hidden",
            show_progress_on=self.model,
            api_visibility="private",
        )

    def update(self, model: str) -> list[Any]:
        """Returns the updates of all components but the model; the seed stays."""
        found = self._settings(self.app.models.pipeline(model))
        return [
            gr.update(**found["prompt"]),
            *(gr.update(**each) for each in found["labels"]),
            gr.skip(),
            gr.update(**found["steps"]),
            gr.update(**found["guidance"]),
        ]

    def restore(self, asked: Asked) -> list[Any]:
        """Returns the updates of all components for what a file was made with."""
        pipeline = self.app.models.pipeline(asked.model)
        found = self._settings(pipeline)
        steps = asked.steps or default_steps(pipeline)
        choices = found["steps"]["choices"]
        labels = []
        for name, each in zip([*label_names(pipeline), *[None] * SLOTS], found["labels"], strict=False):
            value = asked.labels.get(name) if name else None
            labels.append(gr.update(**each | ({} if value is None else {"value": str(value)})))
        guidance = found["guidance"]
        if asked.guidance is not None:  # the command line takes scales beyond the slider, which would be refused
            guidance |= {
                "value": asked.guidance,
                "minimum": min(guidance["minimum"], asked.guidance),
                "maximum": max(guidance["maximum"], asked.guidance),
            }
        return [
            gr.update(value=asked.model),
            gr.update(**found["prompt"] | {"value": asked.prompt or ""}),
            *labels,
            gr.update(value=asked.seed),
            gr.update(value=steps, choices=choices if steps in choices else [*choices, steps]),
            gr.update(**guidance),
        ]

    def _settings(self, pipeline: Pipeline) -> dict[str, Any]:
        names = label_names(pipeline)
        labels: list[Mapping[str, Any]] = [_label_settings(pipeline, name) for name in names]
        labels += [{"visible": False, "value": None, "choices": []}] * (SLOTS - len(labels))
        highest = pipeline.folder.description.guidance_max
        who = guides(pipeline)
        return {
            "prompt": _prompt_settings(pipeline),
            "labels": labels,
            "steps": _steps_settings(offered_steps(pipeline, live=self.live), default_steps(pipeline)),
            "guidance": {
                "visible": bool(who),
                "label": _guidance_label(pipeline),
                "info": "how strongly samples follow their label or prompt",
                "minimum": 0 if highest is None else 1,
                "maximum": max(HIGHEST, pipeline.settings.guidance) if highest is None else highest,
                "value": 1.0 if _one_is_own(pipeline) else pipeline.settings.guidance,
            },
        }


def label_names(pipeline: Pipeline) -> list[str]:
    """Returns the labels that have controls; a text has one of its own, and those of sizes follow from them."""
    sizes = pipeline.modality.size_options
    return [name for name in pipeline.labels.names if name != PROMPT and name not in sizes][:SLOTS]


def label_choices(pipeline: Pipeline, name: str) -> list[str]:
    """Returns the choices of a label: first that it is drawn, in a word that is no class of it, then its classes."""
    classes = [str(each) for each in pipeline.labels.names[name]]
    drawn = ANY
    while drawn in classes:
        drawn = f"({drawn})"
    return [drawn, *classes]


def is_chosen(pipeline: Pipeline, name: str, value: Any) -> bool:
    """Returns whether the value of a label's control is a class or a number; otherwise the label is drawn."""
    return value not in (None, "", label_choices(pipeline, name)[0])


def _steps_settings(choices: list[str], value: str | None) -> dict[str, Any]:
    teacher = "; teacher: the slow model that the fast one learned from" if choices[1:] and TEACHER in choices else ""
    return {"choices": choices, "value": value, "info": f"fewer are faster{teacher}"}


def _one_is_own(pipeline: Pipeline) -> bool:
    """Returns true where a student and its teacher both take scales, but have different ones of their own."""
    return guides(pipeline) == "both" and pipeline.folder.description.guidance_max is None


def _guidance_label(pipeline: Pipeline) -> str:
    if guides(pipeline) == TEACHER:
        return "Guidance of the teacher"
    return "Guidance; 1 is the model's own" if _one_is_own(pipeline) else "Guidance"


def _prompt_settings(pipeline: Pipeline) -> dict[str, Any]:
    if pipeline.text is None:
        return {"visible": False, "value": "", "placeholder": ""}
    known = [printable(each) for each in pipeline.labels.names.get(PROMPT, ())]
    some = ", ".join(known[len(known) // 4 :: max(1, len(known) // 4)][:3])
    return {
        "visible": True,
        "value": "",
        "placeholder": f"empty: drawn; for example {some}" if some else "empty: drawn",
    }


def _label_settings(pipeline: Pipeline, name: str) -> dict[str, Any]:
    choices = label_choices(pipeline, name)
    label = printable(name)
    if len(choices) == 1 and (bounds := pipeline.labels.quantiles.get(name)):
        label = f"{label}, {bounds[0]:g}–{bounds[-1]:g}"
    return {"visible": True, "label": label, "choices": choices, "value": choices[0]}

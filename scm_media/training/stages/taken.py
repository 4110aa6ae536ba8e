"""Networks that a run takes from another model as they are: its teacher, guide and autoencoder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from scm_media import weights
from scm_media.adapters import ADAPTERS
from scm_media.adapters.autoencoders import DiffusersAutoencoder
from scm_media.display import printable
from scm_media.networks import restore
from scm_media.training.context import Context
from scm_media.training.fingerprint import model_fingerprint, uses_trajectories
from scm_media.training.stages.autoencoder import fitting_samples
from scm_media.training.stages.backbones import backbone_config


def take(context: Context, stage: str) -> None:
    """Writes a stage's weights as ``teacher_from`` has them, unless they are there already.

    Raises ValueError where they do not fit the network that the recipe and its data describe.
    """
    file = context.weights_file(stage)
    if file.exists():
        return
    found = taken_component(context, stage)
    weights.save(file, found.state, found.config, found.info)
    assert context.source is not None
    print(f"{stage}: taken from {context.source.file(stage)}", file=sys.stderr)
    if stage == "autoencoder" and context.data.has_samples:
        network: Any = restore(found, stage, file)
        if isinstance(network, DiffusersAutoencoder):  # whose fit changes nothing, and warns of unusual latents
            network.fit(fitting_samples(context))


def check_taken(context: Context) -> None:
    """Raises ValueError where the run folder holds networks of another model, or the data have other classes."""
    expected = getattr(getattr(context.source, "description", None), "labels", {})
    for label, names in context.data.label_names.items():
        known = list(expected.get(label, names))
        if list(names) not in (known, [str(number) for number in range(len(known))]):
            raise ValueError(
                f"the classes of label {label!r} must be those of teacher_from={context.config['teacher_from']} in its "
                f"order, {', '.join(map(printable, known[:8]))} …; got {', '.join(map(printable, names[:8]))} …"
            )
    for stage in ("autoencoder", "teacher", "guide"):
        file = context.weights_file(stage)
        if context.takes(stage) and file.exists():
            found = taken_component(context, stage)
            if weights.digest(weights.read(file)) != weights.digest(found):
                raise ValueError(
                    f"{file} is not the {stage} of teacher_from={context.config['teacher_from']}: use another run_dir"
                )


def taken_component(context: Context, stage: str) -> weights.Component:
    """Returns the weights of a stage as ``teacher_from`` has them, with the configuration that the recipe gives them.

    Raises ValueError where they do not fit the network that the recipe and its data describe.
    """
    source = context.source
    assert source is not None
    component, config = source.read(stage), _config(context, stage)
    info = {**component.info, "recipe": context.config["recipe"], **model_fingerprint(context.config, stage), "step": 0}
    found = weights.Component(component.state, config, info)
    restore(found, stage, source.file(stage))  # which refuses networks that do not fit
    return found


def check_samples(context: Context, stages: Sequence[str]) -> None:
    """Raises ValueError for stages that learn from samples, and for a teacher of labels or text, without any."""
    _check_inputs(context)
    if context.data.has_samples:
        return
    config = context.config
    without = {"trajectories", *(stage for stage in stages if context.takes(stage) or uses_trajectories(config, stage))}
    if config["student"]["generated"] == 1:
        without.add("student")
    if wanting := [stage for stage in stages if stage not in without]:
        remedy = "set feature_extractor=null" if wanting == ["feature_extractor"] else "choose data with samples"
        raise ValueError(
            f"{', '.join(wanting)}: the data are labels without samples, which this cannot be trained on; {remedy}"
            + (", or student.generated=1" if "student" in wanting else "")
        )


def _check_inputs(context: Context) -> None:
    """Raises ValueError where a network of diffusers needs labels or prompts that the data do not have."""
    backbone, data = context.config["backbone"], context.data
    if backbone.get("network") not in ADAPTERS:
        return
    needed = ADAPTERS[backbone["network"]].inputs(backbone["config"])
    if "label" in needed and not data.label_names:
        raise ValueError(
            f"{backbone['network']} takes a label of {needed['label']} classes, and the data have none: give data with "
            "labels, or data=none data.classes={class: N}"
        )
    if "tokens" in needed and data.prompt_bank is None:
        raise ValueError(
            f"{backbone['network']} takes text, and the data have no prompts: give data=none data.prompts=FILE "
            "(docs/teachers.md)"
        )


def _config(context: Context, stage: str) -> dict[str, Any]:
    if stage == "autoencoder":
        return dict(context.config["autoencoder"]["network"])
    differing = {} if stage == "teacher" else context.config["guide"]["backbone"]
    return backbone_config(context, **differing)

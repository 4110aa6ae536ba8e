"""Networks that a run takes from another model as they are: its teacher, guide and autoencoder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from scm_media import weights
from scm_media.build import build
from scm_media.networks import ROLES
from scm_media.training.context import Context
from scm_media.training.fingerprint import model_fingerprint, uses_trajectories
from scm_media.training.stages.backbones import backbone_config


def take(context: Context, stage: str) -> None:
    """Writes a stage's weights as ``teacher_from`` has them, unless they are there already.

    Raises ValueError where they do not fit the network that the recipe and its data describe, and where the run folder
    holds those of another model.
    """
    file, found = context.weights_file(stage), taken_component(context, stage)
    if file.exists():
        if weights.digest(weights.read(file)) != weights.digest(found):
            raise ValueError(
                f"{file} is not the {stage} of teacher_from={context.config['teacher_from']}: use another run_dir"
            )
        return
    weights.save(file, found.state, found.config, found.info)
    assert context.source is not None
    print(f"{stage}: taken from {context.source.file(stage)}", file=sys.stderr)


def taken_component(context: Context, stage: str) -> weights.Component:
    """Returns the weights of a stage as ``teacher_from`` has them, with the configuration that the recipe gives them.

    Raises ValueError where they do not fit the network that the recipe and its data describe.
    """
    source = context.source
    assert source is not None
    component, config = source.read(stage), _config(context, stage)
    weights.check_fits(build(config, ROLES[stage]), component.state, source.file(stage))
    info = {**component.info, "recipe": context.config["recipe"], **model_fingerprint(context.config, stage), "step": 0}
    return weights.Component(component.state, config, info)


def check_samples(context: Context, stages: Sequence[str]) -> None:
    """Raises ValueError for stages that learn from samples where the data have none."""
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


def _config(context: Context, stage: str) -> dict[str, Any]:
    if stage == "autoencoder":
        return dict(context.config["autoencoder"]["network"])
    differing = {} if stage == "teacher" else context.config["guide"]["backbone"]
    return backbone_config(context, **differing)

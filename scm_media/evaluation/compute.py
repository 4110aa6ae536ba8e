"""The operations that samples cost: of one evaluation of each network, of decoding, and of whole rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from scm_media.evaluation.rows import Row
from scm_media.nn.operations import count_operations
from scm_media.pipeline import Pipeline
from scm_media.samplers import SAMPLERS


@dataclass(frozen=True)
class Operations:
    """Operations of one sample: of one evaluation of the student, the teacher and its guide, and of decoding.

    A multiply-add is two operations; only matrix products, convolutions and attention are counted. None: there is no
    such network.
    """

    student: int | None
    teacher: int | None
    guide: int | None
    decode: int

    def of_row(self, row: Row, evaluations: int) -> int:
        """Returns the operations of one of a row's samples: its evaluations, each times its network's, and decoding.

        The evaluations of a guided teacher beyond its solver's own are those of its guide, or of itself without labels.
        """
        network = self.teacher if row.teacher else self.student
        assert network is not None
        own = evaluations
        if row.teacher and self.guide is not None:
            own = min(evaluations, SAMPLERS.find(row.sampler, "sampler").evaluations(row.steps))
        return own * network + (evaluations - own) * (self.guide or 0) + self.decode

    def as_json(self) -> dict[str, int | None]:
        """Returns the operations by network."""
        return asdict(self)


def count_network_operations(pipeline: Pipeline) -> Operations:
    """Counts the operations of a model's networks on the inputs that sampling gives them, one sample at a time."""
    found: dict[str, int | None] = dict.fromkeys(("student", "teacher", "guide"))
    for name in ("student", "teacher"):
        if pipeline.folder.has(name):
            inputs = _inputs(pipeline, name)
            found[name] = _count(pipeline, name, inputs)
            if name == "teacher" and pipeline.folder.has("guide"):
                found["guide"] = _count(pipeline, "guide", inputs)
    latent = torch.zeros(1, *pipeline.latent_shape(), device=pipeline.device)
    return Operations(**found, decode=count_operations(lambda: pipeline.decode(latent)))


def _inputs(pipeline: Pipeline, name: str) -> Any:
    """Returns the arguments of a network's first call when a sample is drawn by one step."""
    calls: list[Any] = []
    handle = pipeline.network(name).register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    try:
        with torch.compiler.set_stance("force_eager"):
            pipeline(1, steps=1, teacher=name == "teacher", batch_size=1)
    finally:
        handle.remove()
    return calls[0]


def _count(pipeline: Pipeline, name: str, inputs: Any) -> int:
    args, kwargs = inputs

    def call() -> None:
        with torch.inference_mode(), pipeline.autocast():
            pipeline.network(name)(*args, **kwargs)

    return count_operations(call)

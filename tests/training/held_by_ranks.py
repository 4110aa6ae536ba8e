"""Trains image/tiny made smaller and writes what each rank holds: ``tests.training.held_by_ranks FOLDER KEY=VALUE …``.

The further words are overrides of the recipe. FOLDER/held-RANK.json has, for teacher and student, the fraction of all
entries of weights, averages and moments, and of the frozen teacher, that is on the rank, the tokens that reach the
first block, the types that weights of its attention and of its modulation have there, and whether the networks had no
memory before they were sharded.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from scm_media.training.optimization import Optimization, Task
from tests.training.divided_runs import train

HELD: dict[str, dict[str, Any]] = {}


def fraction(tensors: Iterable[Tensor]) -> float:
    """Returns the entries on this rank over all entries, of tensors that may be sharded."""
    listed = [each for each in tensors if each.ndim > 0]
    own = sum((each.to_local() if hasattr(each, "to_local") else each).numel() for each in listed)
    return own / sum(each.numel() for each in listed)


def measure(optimization: Optimization) -> dict[str, float]:
    """Returns the fractions that are on this rank."""
    task, states = optimization.task, optimization.optimizer.state_dict()["state"].values()
    found = {
        "weights": fraction(task.model.parameters()),
        "averages": fraction(optimization.ema.averaged.values()),
        "moments": fraction(value for state in states for value in state.values()),
    }
    teacher = getattr(task.loss, "teacher", None)
    return found if teacher is None else {**found, "teacher": fraction(teacher.parameters())}


def main(folder: Path, *words: str) -> None:
    """Trains with a look at each stage's first step."""
    real, begin = Optimization.step, Optimization.__init__

    def __init__(self: Optimization, fabric: Any, task: Task, *arguments: Any) -> None:
        teacher = getattr(task.loss, "teacher", None)
        networks = [each for each in (task.model, teacher) if each is not None]
        awaited = [all(entry.is_meta for entry in each.parameters()) for each in networks]
        HELD[task.name] = {"awaited": awaited}
        begin(self, fabric, task, *arguments)

    def step(self: Optimization, *arguments):
        tokens: list[int] = []
        types: dict[str, str] = {}
        block = self.task.model.blocks[0]
        hook = block.register_forward_pre_hook(
            lambda _, given: tokens.append(getattr(given[0], "value", given[0]).shape[1])
        )

        def keep_types(*_) -> None:
            types.update(attention=str(block.attention.qkv.weight.dtype))
            types.update(modulation=str(block.attention_norm.modulation.weight.dtype))

        inner = block.attention.register_forward_pre_hook(keep_types)
        figures = real(self, *arguments)
        hook.remove()
        inner.remove()
        if "tokens" not in HELD[self.task.name]:
            HELD[self.task.name] |= {**measure(self), "tokens": tokens[0], "types": types}
        return figures

    Optimization.__init__, Optimization.step = __init__, step
    train(folder, *words)
    (folder / f"held-{os.environ['RANK']}.json").write_text(json.dumps(HELD))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

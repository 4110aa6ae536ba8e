"""Measures the conversion of each network class of diffusers on a small random network; prints a table.

    PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/teachers.py [CLASS …]

Sample error: the largest difference, over the root mean square, of eight steps of the network's own scheduler and of
ours, in float64. Tangent error: of one pass against two, in float32. Cost: seconds of value and tangent with the
gradient of the value, in one pass over two, the median of several turns. Memory: the bytes that a step of sCD holds,
two latents at once, for a whole student and for a LoRA of rank 4, counted by ``scm_media.evaluation.memory``.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch

from scm_media.adapters import LoRA, LoRAStudent, change_of_variables
from scm_media.adapters.checking import check_conversion
from scm_media.evaluation.memory import count_training_memory
from scm_media.evaluation.timing import in_turns
from scm_media.losses import ConsistencyLoss
from scm_media.tangent import value_and_tangent
from tests.adapters.small import KINDS, conditioning, needs, network

REPEATS = 7


def measure(name: str) -> list[str]:
    """Returns a row: class, change of variables, errors, cost."""
    _, scheduler, shape = KINDS[name]
    teacher, cond = change_of_variables(network(name), scheduler), conditioning(needs(name))
    check = check_conversion(teacher, scheduler, shape, cond)
    generator = torch.Generator().manual_seed(3)
    u, du = torch.randn(2, 2, *shape, generator=generator)
    t, dt = torch.tensor([0.5, 1.1]), torch.ones(2)
    given = (teacher, u, t, cond, du, dt)
    one, two = (value_and_tangent(*given, method).tangent for method in ("one_pass", "forward"))
    error = ((one - two).norm() / two.norm()).item()

    def step(method: str) -> None:
        value_and_tangent(*given, method).value.square().sum().backward()  # type: ignore[arg-type]

    jobs: dict[str, Callable[[], object]] = {method: partial(step, method) for method in ("one_pass", "forward")}
    seconds = {method: median(each) for method, each in in_turns(jobs, REPEATS).items()}
    ratio = seconds["one_pass"] / seconds["forward"]
    kind, whole, lora = type(teacher).__name__, *(count(name, lora) / 2**20 for lora in (False, True))
    errors = (f"{each:.0e}" for each in (check.max_error, error, check.tangent_error))
    return [name, kind, *errors, f"{ratio:.2f}", f"{whole:.2f}", f"{lora:.2f}"]


def count(name: str, lora: bool) -> int:
    """Returns the bytes that a step of sCD holds."""
    teacher = change_of_variables(network(name), KINDS[name][1])
    student: Any = LoRAStudent(teacher, LoRA(rank=4)) if lora else copy.deepcopy(teacher)
    loss = ConsistencyLoss(student, teacher=student.teacher if lora else teacher)
    arguments = (torch.randn(2, *KINDS[name][2]), conditioning(needs(name)), torch.tensor(1e6))
    return count_training_memory(loss, arguments, [student.base if lora else teacher])


def main() -> None:
    """Prints the table of the classes that are named, or of all."""
    torch.set_num_threads(1)
    print(
        "| class | change of variables | samples | dF/dt against two passes | against differences | cost over two | "
        "whole, MiB | LoRA, MiB |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name in sys.argv[1:] or KINDS:
        print(f"| {' | '.join(measure(name))} |", flush=True)


if __name__ == "__main__":
    main()

"""Times the tangent of attention: as the matrix of all pairs, in blocks, and on a GPU by the kernel; prints a table.

    PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/attention.py [--lengths 1024 4096] [--dtype float32]

Six heads of 64 channels, self-attention, as many samples as give 4,096 queries or more. Ratios are to the time of the
output alone by PyTorch's attention, the median of several turns; the memory is what the GPU held at most beside the
arguments (on a CPU it is not measured). Errors are those of the tangent to the matrix in float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import torch
import torch.nn.functional as nnf
from torch import Tensor

from scm_media import attention_kernel
from scm_media.attention_tangent import NUM_SCORES, attention_tangent
from scm_media.evaluation.timing import in_turns

HEADS, WIDTH, REPEATS = 6, 64, 7
ALONE, MATRIX, BLOCKS, KERNEL = "output alone", "matrix of all pairs", "blocks", "kernel"


def in_one_block(*arguments: object) -> Tensor:
    """Returns the tangent with all pairs at once."""
    before = dict(NUM_SCORES)
    NUM_SCORES.update(dict.fromkeys(NUM_SCORES, 1 << 60))
    try:
        return without_kernel(*arguments)
    finally:
        NUM_SCORES.update(before)


def without_kernel(*arguments: object) -> Tensor:
    """Returns the tangent in blocks."""
    before, attention_kernel.ENABLED = attention_kernel.ENABLED, False
    try:
        return attention_tangent(*arguments)  # type: ignore[arg-type]
    finally:
        attention_kernel.ENABLED = before


def measure(length: int, dtype: torch.dtype, device: torch.device, repeats: int = REPEATS) -> list[list[str]]:
    """Returns the rows of a length: what, milliseconds, ratio to the output alone, MiB, error."""
    shape = (max(1, 4096 // length), HEADS, length, WIDTH)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        tuple(torch.randn(shape, generator=generator).to(device, dtype) for _ in range(2)) for _ in "qkv"
    )
    scale = WIDTH**-0.5
    with torch.no_grad():
        attend = partial(nnf.scaled_dot_product_attention, query[0], key[0], value[0])
        arguments = (query, key, value, attend(), scale)
        wide = [tuple(x[:1].double() for x in pair) for pair in (query, key, value)]
        exact = in_one_block(*wide, nnf.scaled_dot_product_attention(*(x for x, _ in wide)), scale)
        jobs: dict[str, Callable[[], Tensor]] = {
            ALONE: attend,
            MATRIX: partial(in_one_block, *arguments),
            BLOCKS: partial(without_kernel, *arguments),
        }
        if attention_kernel.serves(query, key, value, None):
            jobs[KERNEL] = partial(attention_tangent, *arguments)
        errors, held = {}, {}
        for what, job in jobs.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
                before = torch.cuda.memory_allocated(device)
            found = job()[:1].double()
            errors[what] = "" if what == ALONE else f"{((found - exact).norm() / exact.norm()).item():.1e}"
            held[what] = (
                f"{(torch.cuda.max_memory_allocated(device) - before) / 2**20:.0f}" if device.type == "cuda" else ""
            )
        seconds = in_turns({what: partial(_finished, job, device) for what, job in jobs.items()}, repeats)
    first = median(seconds[ALONE])
    return [
        [str(length), what, f"{1000 * median(each):.2f}", f"{median(each) / first:.2f}", held[what], errors[what]]
        for what, each in seconds.items()
    ]


def _finished(job: Callable[[], Tensor], device: torch.device) -> None:
    job()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(words: Sequence[str] | None = None) -> None:
    """Prints a table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096])
    arguments.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--repeats", type=int, default=REPEATS)
    given = arguments.parse_args(words)
    print("| tokens | tangent | ms | over the output | MiB | error |")
    print("|---:|---|---:|---:|---:|---:|")
    for length in given.lengths:
        for row in measure(length, getattr(torch, given.dtype), torch.device(given.device), given.repeats):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()

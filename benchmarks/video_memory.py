"""Measures the peak memory of decoding videos of several lengths, whole and in chunks, in a process for each.

python benchmarks/video_memory.py [--size 64] [--frames 16 64 256] [--space 8] [--time 3] [--width 32] [--chunk 4]

Prints one line for each length: the size of the decoded frames, and the growth of the process's peak memory (on a GPU:
the device's) during decoding. "in chunks" discards each chunk, like a writer of files; "joined" keeps them all, like a
pipeline; "whole" runs the decoder over all frames at once.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

MIB = 2**20
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # freed memory goes back to the system, so that peaks are of needs
WAYS = ("in chunks", "joined", "whole")


def forget_peak() -> None:
    """Resets the process's peak to its current memory, without that of imports (Linux: proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def process_memory(name: str) -> float:
    """Returns MiB of a line of the process's status: VmRSS is the current memory, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) * 1024 / MIB


def measure(way: str, frames: int, options: argparse.Namespace) -> dict[str, float]:
    """Returns MiB that the peak grows by and seconds, for decoding one sample in this process."""
    import torch

    from modalities.video import VideoAutoencoder
    from scm_media.pipeline.loaded_model import decode_to_cpu

    torch.set_num_threads(1)
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    network = VideoAutoencoder(3, options.space, options.time, width=options.width, chunk=options.chunk)
    network.scale.trained.fill_(True)
    network.to(device).eval().requires_grad_(False)
    sides = (options.size // options.space,) * 2
    latent = torch.randn(1, 8, 1 + -(-(frames - 1) // options.time), *sides, device=device)
    network.decode(latent[:, :, :1])  # makes the libraries allocate their own memory

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / MIB
    else:
        gc.collect()
        forget_peak()
        before = process_memory("VmRSS")
    begun = time.perf_counter()
    with torch.inference_mode():
        if way == "in chunks":
            for chunk in network.decode_in_chunks(latent):
                chunk.mean().item()
        elif way == "joined":
            decode_to_cpu(network, latent)
        else:
            network.synthesize(network.scale.denormalize(latent)).mean().item()
    seconds = time.perf_counter() - begun
    peak = torch.cuda.max_memory_allocated() / MIB if on_gpu else process_memory("VmHWM")
    return {"mib": peak - before, "seconds": seconds}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, or the figures of one cell (``--cell``)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, default in (("size", 64), ("space", 8), ("time", 3), ("width", 32), ("chunk", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--cell", nargs=2, metavar=("WAY", "FRAMES"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.cell:
        print(json.dumps(measure(options.cell[0], int(options.cell[1]), options)))
        return
    print(f"| frames of {options.size}×{options.size} | themselves |" + "".join(f" {way} |" for way in WAYS))
    print("|---:|---:|" + "---:|" * len(WAYS))
    given = list(sys.argv[1:] if arguments is None else arguments)
    for frames in options.frames:
        themselves = 3 * frames * options.size**2 * 4 / MIB
        cells = []
        for way in WAYS:
            command = [sys.executable, __file__, *given, "--cell", way, str(frames)]
            found = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | RETURNED)
            cell = json.loads(found.stdout)
            cells.append(f"{cell['mib']:.0f} MiB, {cell['seconds']:.2f} s")
        print(f"| {frames} | {themselves:.1f} MiB | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""Compares the memory that ``recipes NAME`` counts with the peak of trainings; prints a table.

    PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/plan_memory.py

Students of image/tiny with larger networks take three steps on the CPU, in one process and in two that shard the
weights. Measured: how much higher the peak of a process's resident memory is in the last step than with a network of
width 16, with what is counted of that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from scm_media import recipe, training
from scm_media.recipe.cost import count_cost
from scm_media.training.optimization import Optimization

COMMON = (
    "device=cpu",
    "logger=none",
    "precision=32-true",
    "feature_extractor=null",
    "data.num=64",
    "modality.size=32",
    "backbone.patch=2",
    "teacher.batch_size=2",
    "teacher.max_steps=1",
    "student.max_steps=3",
    "student.warmup_steps=0",
    "autoencoder.num_samples=64",
    "trainer.num_workers=0",
    "trainer.sample_every=1000",
    "trainer.validate_every=1000",
)
SMALLEST = ("backbone.width=16", "backbone.depth=1", "backbone.num_heads=2", "student.batch_size=2")
SIZES = {
    "width 256, depth 8, 16 samples": ("backbone.width=256", "backbone.depth=8", "student.batch_size=16"),
    "width 640, depth 8, 8 samples": ("backbone.width=640", "backbone.depth=8", "student.batch_size=8"),
}
STRATEGIES = {
    "one process": (),
    "one process, checkpointing": ("trainer.gradient_checkpointing=true",),
    "fsdp, two processes": ("num_devices=2", "strategy=fsdp"),
    "fsdp, two processes, checkpointing": ("num_devices=2", "strategy=fsdp", "trainer.gradient_checkpointing=true"),
}


def measure(words: tuple[str, ...]) -> float:
    """Returns the highest peak of resident memory among the processes of a training, in MiB."""
    lean = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    launcher = ["torch.distributed.run", "--nproc_per_node=2", "--standalone"] if "num_devices=2" in words else []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *(["-m", *launcher] if launcher else []), __file__, folder, *words]
        done = subprocess.run(command, env={**os.environ, **lean}, capture_output=True, text=True, check=False)
        peaks = [json.loads(each.read_text()) for each in Path(folder).glob("peak-*.json")]
    if done.returncode or len(peaks) != (2 if launcher else 1):
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return max(peaks)


def measure_here(folder: Path, words: tuple[str, ...]) -> None:
    """Trains, and writes the peak of this process's resident memory in the student's last step."""
    real = Optimization.step

    def step(self: Optimization, *arguments: Any) -> Any:
        if self.task.name != "student":
            return real(self, *arguments)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
        figures = real(self, *arguments)
        if arguments[-1] == 2:
            status = Path("/proc/self/status").read_text().splitlines()
            peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
            (folder / f"peak-{os.environ.get('RANK', 0)}.json").write_text(json.dumps(peak))
        return figures

    Optimization.step = step  # type: ignore[method-assign]
    training.run(recipe.compose("image/tiny", [*words, f"run_dir={folder / 'run'}"]))


def counted(words: tuple[str, ...]) -> float:
    """Returns the MiB that are counted for a device."""
    return count_cost(recipe.compose("image/tiny", list(words))).training_bytes / 2**20


def main() -> None:
    """Prints the table."""
    print("| student | strategy | counted, MiB | measured, MiB | error |")
    print("|---|---|---:|---:|---:|")
    for way, strategy in STRATEGIES.items():
        least = (*COMMON, *SMALLEST, *strategy)
        rest = measure(least) - counted(least)
        for name, size in SIZES.items():
            words = (*COMMON, *size, "backbone.num_heads=8", *strategy)
            expected, found = counted(words), measure(words) - rest
            error = f"{100 * (expected / found - 1):+.0f} %"
            print(f"| {name} | {way} | {expected:.0f} | {found:.0f} | {error} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure_here(Path(sys.argv[1]), tuple(sys.argv[2:]))
    else:
        main()

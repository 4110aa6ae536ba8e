"""Exports students in a test, and runs what was exported in processes that lack this package, or PyTorch as well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scm_media.pipeline import ModelFolder
from scm_media.pipeline.graph_export import export_graphs

EXAMPLE = Path(__file__).parents[2] / "examples" / "sample_onnx.py"
BLOCKED = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is not to be imported here")
sys.meta_path.insert(0, Blocked())
"""
WITHOUT_PACKAGE = BLOCKED.format(blocked=("scm_media", "modalities"))
WITHOUT_TORCH = BLOCKED.format(blocked=("torch", "scm_media", "modalities", "onnx", "onnxscript"))


def run_alone(program: str, *arguments: object, cwd: Path | None = None) -> str:
    """Runs a program in a process of its own and returns what it prints."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sample_by_the_example(folder: Path, *arguments: object) -> list[Path]:
    program = WITHOUT_TORCH + f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    return [Path(line) for line in run_alone(program, folder, *arguments).split("\n") if line]


def export(model: Path, target: Path, format: str = "onnx") -> dict:
    return export_graphs(ModelFolder.open(model), target, format)[1]

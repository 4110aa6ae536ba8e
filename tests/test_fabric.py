"""Fabric is imported without torchmetrics, which takes seconds and is left for others to import."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from scm_media.build import resolve
from scm_media.fabric import _without

REPOSITORY = Path(__file__).parents[1]
PROGRAM = """
import sys
{before}
import scm_media.fabric
from lightning_fabric import has_it
print(has_it, "torchmetrics" in sys.modules)
import torchmetrics
"""


@pytest.mark.parametrize(("before", "said"), [("", "False False"), ("import torchmetrics", "True True")])
def test_torchmetrics_is_imported_with_it_only_where_it_was_there_before(tmp_path, before, said):
    fabric = """
        try:
            import torchmetrics
            has_it = True
        except ModuleNotFoundError:
            has_it = False
        class Fabric: pass
    """
    files = {
        "lightning_fabric/__init__.py": textwrap.dedent(fabric),
        "lightning_fabric/strategies.py": "class ModelParallelStrategy: pass",
        "torchmetrics.py": "",
    }
    (tmp_path / "lightning_fabric").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    places = os.pathsep.join(filter(None, [str(tmp_path), os.getcwd(), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)],
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == said


def test_a_package_seems_not_to_be_installed_and_is_there_again_afterwards():
    with pytest.raises(ModuleNotFoundError), _without("this"):
        importlib.import_module("this")
    assert "this" not in sys.modules


@pytest.mark.parametrize("name", ["TensorBoardLogger", "CSVLogger"])
def test_loggers_of_recipes_of_before_are_those_of_today(name):
    former, found = (
        resolve(f"{package}.loggers.{name}", "logger") for package in ("lightning.fabric", "lightning_fabric")
    )
    assert former is found
    assert found.__module__.startswith("lightning_fabric.")


def test_nothing_else_imports_it():
    found = [
        f"{file.relative_to(REPOSITORY)}: {line}"
        for folder in ("scm_media", "modalities", "benchmarks", "examples", "tests")
        for file in sorted((REPOSITORY / folder).rglob("*.py"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if re.match(r"\s*(from|import) (lightning|pytorch_lightning)", line)
    ]
    assert found == [
        "scm_media/fabric.py:     from lightning_fabric import Fabric",
        "scm_media/fabric.py:     from lightning_fabric.strategies import ModelParallelStrategy",
        "tests/test_fabric.py: from lightning_fabric import has_it",
    ]

"""Prints the lowest versions that pyproject.toml allows of some packages, as pip takes them: ``name==version``."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def lowest(names: list[str]) -> list[str]:
    """Returns ``name==version`` for each name; KeyError where the package has no lower bound."""
    requirements = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    bounds = dict(re.match(r"([\w-]+)>=([\w.]+)", requirement).groups() for requirement in requirements)
    return [f"{name}=={bounds[name]}" for name in names]


if __name__ == "__main__":
    print(" ".join(lowest(sys.argv[1:])))

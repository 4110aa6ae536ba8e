"""The types of the package are right. This takes mypy most of a minute in a fresh clone, and seconds afterwards.

It is a test so that other cores are busy meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_mypy_finds_nothing():
    words = [sys.executable, "-m", "mypy"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 0, done.stdout + done.stderr

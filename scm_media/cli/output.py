"""Prints JSON for programs."""

from __future__ import annotations

import json
from typing import Any


def print_json(value: Any) -> None:
    """Prints one JSON object in ASCII: the same whatever the terminal's encoding, and without control characters."""
    print(json.dumps(value))

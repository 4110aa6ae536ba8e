"""Writes the files that the scripts which make data share: whole or not at all, and with one set of settings."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> None:
    """Writes aside and renames, so that the file is complete or not there."""
    aside = path.with_name(f".{path.name}.aside")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of a new folder; ends the program for a folder that was begun with other settings."""
    file = folder / "render.json"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(settings, indent=2) + "\n")
        return
    before = json.loads(file.read_text("utf-8"))
    if differing := [key for key in settings if before.get(key) != settings[key]]:
        changes = ", ".join(f"{key} {before.get(key)}, now {settings[key]}" for key in differing)
        sys.exit(f"{folder} was begun with another {changes}; choose another folder or delete this one")

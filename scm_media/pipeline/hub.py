"""Finds the folder of a model: a bundled name, a folder, or a model of the Hugging Face hub."""

from __future__ import annotations

import difflib
import importlib.util
import re
from pathlib import Path

from scm_media.pipeline.description import MODEL_FILE

HUB_PREFIX = "hf://"
PLAIN_NAME = re.compile(r"(?!\.)[\w.-]+", re.ASCII)
"""Matches a name that is one file or folder on every system, and not hidden."""


def find_folder(source: str | Path) -> Path:
    """Returns the folder of a model: a folder, a bundled name, or ``hf://org/name[@revision]``, which is downloaded.

    Raises ValueError, with the nearest bundled names, when there is no such model.
    """
    text = str(source)
    if text.startswith(HUB_PREFIX):
        return _download(text)
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    bundled = _bundled_root() / text
    if text in bundled_names():
        return bundled
    names = bundled_names()
    near = difflib.get_close_matches(text, names, n=3, cutoff=0.4) or names
    raise ValueError(
        f"there is no model {text!r}: neither a folder nor a bundled model ({', '.join(near) or 'none is installed'}); "
        f"give a run folder, an exported folder or file, a bundled name or {HUB_PREFIX}org/name"
    )


def folder_name(name: str) -> str:
    """Returns a model's name as a relative folder that lies below any other: ``../../x`` becomes ``_/_/x``."""
    parts = (re.sub(r"[^\w.-]+", "_", part).strip(".") or "_" for part in name.split("/"))
    return "/".join(part[:100] for part in parts)


def bundled_names() -> list[str]:
    """Returns the names of the models that are part of the installed package."""
    root = _bundled_root()
    return sorted(file.parent.relative_to(root).as_posix() for file in root.glob(f"**/{MODEL_FILE}"))


def _bundled_root() -> Path:
    spec = importlib.util.find_spec("scm_media.models")
    locations = list(spec.submodule_search_locations or []) if spec else []
    return Path(locations[0]) if locations else Path(__file__).parent.parent / "models"


def _download(source: str) -> Path:
    name, _, revision = source.removeprefix(HUB_PREFIX).partition("@")
    if name.count("/") != 1 or not all(PLAIN_NAME.fullmatch(each) for each in name.split("/")):
        raise ValueError(f"{source} is no model of the hub; expected {HUB_PREFIX}org/name or {HUB_PREFIX}org/name@tag")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(
            f"{source} needs the package huggingface_hub, which is not installed: pip install huggingface_hub"
        ) from error
    patterns = ["*.json", "*.yaml", "*.safetensors", "*.md"]
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except (OSError, ValueError) as error:  # what the hub raises for a wrong name, no network and no access
        raise ValueError(f"{source} could not be downloaded: {error}") from error

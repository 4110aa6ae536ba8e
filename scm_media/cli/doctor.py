"""``scm-media doctor``: versions, devices, memory, what is missing and how to get it."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib import metadata

from scm_media.cli import DISTRIBUTION, foreign_modalities
from scm_media.cli.arguments import parser

LIBRARIES = (
    *("torch", "torchvision", "torchaudio", "einops", "numpy", "safetensors", "hydra-core", "lightning"),
    *("soundfile", "soxr", "av", "librosa"),
)
DEVELOPMENT = ("dev", "all")


def run(arguments: Sequence[str]) -> int:
    """0 when the core can work; 1 when something that it needs is missing or out of place."""
    parser("doctor", "Says what is installed, what it runs on, what is missing and how to get it.").parse_args(
        arguments
    )
    print(f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}, Python {platform.python_version()} at {sys.executable}")
    print(f"{platform.platform()}, {os.cpu_count()} cores, {_memory()}")
    for name in LIBRARIES:
        print(f"{name}: {_version(name) or 'not installed'}")
    print(f"devices: {_devices()}")
    problem = foreign_modalities()
    print(f"package modalities: {problem or f'ours, from {_owners()}'}")
    missing = _missing()
    for extra, names in missing.items():
        wanted = f"{DISTRIBUTION}[{extra}]" if extra else DISTRIBUTION
        print(f"missing for {extra or 'the core'}: {', '.join(names)}; get it with: pip install '{wanted}'")
    if not missing:
        print("missing: nothing, all extras are installed")
    print("data: scm-media check RECIPE opens a recipe's data and says what is missing there")
    return 1 if problem or "" in missing else 0


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _missing() -> dict[str, list[str]]:
    """Extra ("" for the core) to its requirements that are not installed; versions are pip's business."""
    found: dict[str, list[str]] = {}
    for requirement in metadata.requires(DISTRIBUTION) or []:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        match = re.search(r"""extra\s*==\s*["']([^"']+)["']""", requirement)
        extra = match[1] if match else ""
        if extra not in DEVELOPMENT and _version(name) is None:
            found.setdefault(extra, []).append(name)
    return found


def _devices() -> str:
    try:
        import torch
    except (ImportError, OSError) as error:
        return f"PyTorch cannot be imported: {error}"
    found = [
        f"cuda:{place} {torch.cuda.get_device_name(place)}, "
        f"{torch.cuda.get_device_properties(place).total_memory / 2**30:.0f} GiB"
        for place in range(torch.cuda.device_count())
    ]
    if torch.backends.mps.is_available():
        found.append("mps")
    return ", ".join([*found, f"cpu ({torch.get_num_threads()} threads)"])


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB of memory"
    except (AttributeError, ValueError, OSError):  # not a POSIX system, or one that does not say
        return "memory unknown"


def _owners() -> str:
    return ", ".join(sorted(set(metadata.packages_distributions().get("modalities", [])))) or "a folder on the path"

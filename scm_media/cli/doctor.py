"""``scm-media doctor`` lists versions, devices, memory, missing packages with how to get them, and known traps."""

from __future__ import annotations

import logging
import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib import metadata

from scm_media.cli import DISTRIBUTION, foreign_modalities
from scm_media.cli.arguments import parser
from scm_media.cli.traps import find_traps
from scm_media.cli.traps import installed_version as _version
from scm_media.display import byte_size, printable

LIBRARIES = (
    *("torch", "torchvision", "torchaudio", "einops", "numpy", "safetensors", "hydra-core", "lightning-fabric"),
    *("soundfile", "soxr", "av", "librosa"),
)
DEVELOPMENT = ("dev", "all")


def run(arguments: Sequence[str]) -> int:
    """Returns 0 when the core can work, 1 when something that it needs is missing or out of place."""
    parser(
        "doctor",
        "Lists what is installed, the devices, what is missing with how to get it, and known traps: versions that do\n"
        "not work together, builds that do not fit the machine, caches and locales that cannot be used.",
    ).parse_args(arguments)
    print(f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}, Python {platform.python_version()} at {sys.executable}")
    print(f"{platform.platform()}, {os.cpu_count()} cores, {_memory()}")
    for name in LIBRARIES:
        print(f"{name}: {_version(name) or 'not installed'}")
    print(f"devices: {_devices()}")
    problem = foreign_modalities()
    print(f"package modalities: {problem or f'ours, from {_owners()}'}")
    missing = _find_missing()
    for extra, names in missing.items():
        wanted = f"{DISTRIBUTION}[{extra}]" if extra else DISTRIBUTION
        print(f"missing for {extra or 'the core'}: {', '.join(names)}; get it with: pip install '{wanted}'")
    if not missing:
        print("missing: nothing, all extras are installed")
    logging.disable(logging.WARNING)  # libraries that are tried talk of their own insides
    try:
        traps = find_traps()
    finally:
        logging.disable(logging.NOTSET)
    for trap in (*traps.severe, *traps.limiting):
        print(f"trap: {printable(trap)}")
    if not traps.severe and not traps.limiting:
        print("traps: none of those that are known")
    for note in traps.notes:
        print(f"note: {printable(note)}")
    print("data: scm-media check RECIPE opens a recipe's data and lists what is missing there")
    print(
        "next: scm-media generate image/fashion -n 4 draws four pictures with a bundled model, scm-media train says "
        "more"
    )
    return 1 if problem or "" in missing or traps.severe else 0


def _find_missing() -> dict[str, list[str]]:
    """Returns the requirements that are not installed, by extra ("" for the core); pip looks after their versions."""
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
        f"cuda:{number} {torch.cuda.get_device_name(number)}, "
        f"{byte_size(torch.cuda.get_device_properties(number).total_memory)}"
        for number in range(torch.cuda.device_count())
    ]
    if torch.backends.mps.is_available():
        found.append("mps")
    return ", ".join([*found, f"cpu ({torch.get_num_threads()} threads)"])


def _memory() -> str:
    try:
        return f"{byte_size(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))} of memory"
    except (AttributeError, ValueError, OSError):  # not a POSIX system, or one without these names
        return "memory unknown"


def _owners() -> str:
    return ", ".join(sorted(set(metadata.packages_distributions().get("modalities", [])))) or "a folder on the path"

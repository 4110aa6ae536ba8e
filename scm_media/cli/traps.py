"""Finds faults of an installation that keep the package from working although every requirement is there.

Each function returns the fault with its remedy in one sentence, or None. Its parameters are what the machine says, so
that a test can say otherwise.
"""

from __future__ import annotations

import importlib
import locale
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from scm_media.cli import DISTRIBUTION
from scm_media.display import byte_size

LEAST_SHARED = 2**28
"""Workers that hand over batches run out of a /dev/shm of fewer bytes: containers have 64 MiB by default, machines half
of their memory."""
LEAST_FREE = 2**30
SOUND_FORMATS = ("MP3", "FLAC", "OGG")
CODECS = {"mp3": "MP3", "flac": "FLAC", "vorbis": "OGG", "h264": "MP4"}
"""Reading needs these decoders of av, each for one kind of file."""

Version = Callable[[str], str | None]
Load = Callable[[str], object]


def installed_version(name: str) -> str | None:
    """Returns the version of an installed distribution; None where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _wanted(*names: str) -> str:
    """Returns distributions with the versions that this package takes, as words of pip's command line."""
    own = metadata.requires(DISTRIBUTION) or []
    words = [next((each for each in own if re.match(rf"{name}\b(?!-)", each)), name) for name in names]
    return " ".join(shlex.quote(re.sub(r"\s", "", word.partition(";")[0])) for word in words)


def _first(version: str | None, num: int = 2) -> tuple[int, ...]:
    """Returns the first numbers of a version; empty for None."""
    return tuple(int(number) for number in re.findall(r"\d+", version or "")[:num])


def _reason(error: BaseException) -> str:
    """Returns the first line of an error that is not empty, with its type where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def torchaudio_trap(version: Version = installed_version, load: Load = importlib.import_module) -> str | None:
    """Returns why torchaudio does not load beside this torch; None where it does, or is not installed."""
    own, torch = version("torchaudio"), version("torch")
    if own is None:
        return None
    remedy = "pip install --upgrade --force-reinstall --no-deps 'torchaudio>=2.11,!=2.11.1'"
    if _first(own, 3) == (2, 11, 1) and _first(torch) >= (2, 12):
        return f"torchaudio {own} does not load beside torch {torch}: {remedy}"
    try:
        load("torchaudio")
    except (ImportError, OSError, RuntimeError) as error:
        return f"torchaudio {own} does not load beside torch {torch} ({_reason(error)}): {remedy}"
    return None


def torchvision_trap(version: Version = installed_version, load: Load = importlib.import_module) -> str | None:
    """Returns why torchvision does not load beside this torch, as one of another build says; None where it does.

    Its compiled operators are bound to one version and build of torch: "operator torchvision::nms does not exist".
    """
    own, torch = version("torchvision"), version("torch")
    if own is None:
        return None
    try:
        load("torchvision")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return (
            f"torchvision {own} was built for another torch than {torch} ({_reason(error)}): install both from the "
            f"same place, pip install --upgrade --force-reinstall {_wanted('torch', 'torchvision')}"
        )
    return None


def build_trap(
    cuda_build: str | None, cuda_works: bool, has_gpu: bool, environment: Mapping[str, str] = os.environ
) -> str | None:
    """Returns why an NVIDIA GPU stays unused; None where it is used, hidden by CUDA_VISIBLE_DEVICES, or not there.

    cuda_build: the CUDA version that torch was built with. cuda_works: whether it finds a device. has_gpu: whether the
    machine shows one.
    """
    if environment.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return None
    if cuda_build is None and has_gpu:
        return (
            "this machine has an NVIDIA GPU, and torch is a build for CPUs: install a CUDA build by the command that "
            "https://pytorch.org/get-started gives, or work with --device cpu"
        )
    if cuda_build is not None and not cuda_works and has_gpu:
        return (
            f"torch is built for CUDA {cuda_build} and finds no usable GPU, although the machine has one: its driver "
            "may be too old or missing; compare with nvidia-smi, or work with --device cpu"
        )
    return None


def build_note(cuda_build: str | None, cuda_works: bool, has_gpu: bool) -> str | None:
    """Returns how to save the disk of a CUDA build without a GPU, which works; the parameters are ``build_trap``'s."""
    if cuda_build is None or cuda_works or has_gpu:
        return None
    return (
        f"torch is built for CUDA {cuda_build}, and there is no GPU: all works on the CPU; builds for CPUs take a "
        f"tenth of the disk, pip install --force-reinstall {_wanted('torch', 'torchvision')} --index-url "
        "https://download.pytorch.org/whl/cpu"
    )


def shows_gpu(devices: Path = Path("/dev")) -> bool:
    """Returns whether the machine shows an NVIDIA GPU, by its device files or by nvidia-smi."""
    return any(devices.glob("nvidia[0-9]*")) or shutil.which("nvidia-smi") is not None


def numpy_trap(version: Version = installed_version, convert: Callable[[], object] | None = None) -> str | None:
    """Returns why arrays of this NumPy cannot be handed to torch; None where they can.

    A package that was compiled against NumPy 1 fails with NumPy 2 and the other way round, at its import or when the
    first array is handed over. A package that is not installed is not their disagreement. convert: hands an array to
    torch.
    """
    if version("numpy") is None or version("torch") is None:
        return None
    try:
        (convert or _hand_over)()
    except (ImportError, RuntimeError, AttributeError, ValueError) as error:
        return (
            f"NumPy {version('numpy')} and torch {version('torch')} do not work together ({_reason(error)}): one was "
            "compiled against another major version of NumPy; pip install --upgrade --force-reinstall "
            f"{_wanted('numpy', 'torch', 'torchvision')}"
        )
    return None


def _hand_over() -> object:
    import numpy
    import torch

    return torch.from_numpy(numpy.zeros(1)).numpy()


def sound_formats_trap(formats: Iterable[str] | None = None) -> str | None:
    """Returns which sound files cannot be read by soundfile's libsndfile; None where all can, or without soundfile."""
    if formats is None:
        try:
            formats = importlib.import_module("soundfile").available_formats()
        except (ImportError, OSError):
            return None
    if lacking := [name for name in SOUND_FORMATS if name not in set(formats)]:
        return (
            f"the libsndfile of soundfile reads no {', '.join(lacking)}: it is an old one of the system; pip install "
            "--force-reinstall soundfile brings a newer one along"
        )
    return None


def codecs_trap(codecs: Iterable[str] | None = None) -> str | None:
    """Returns which files cannot be read by av's FFmpeg; None where all can, or without av."""
    if codecs is None:
        try:
            codecs = importlib.import_module("av").codecs_available
        except (ImportError, OSError):
            return None
    if lacking := [kind for name, kind in CODECS.items() if name not in set(codecs)]:
        return (
            f"the FFmpeg of av decodes no {', '.join(lacking)}: it was built without; pip install --force-reinstall "
            "--only-binary av av brings a whole one along"
        )
    return None


def shared_memory_trap(total: int | None) -> str | None:
    """Returns that /dev/shm is too small for workers that load data; None where it suffices. total: bytes, or None."""
    if total is None or total >= LEAST_SHARED:
        return None
    return (
        f"/dev/shm has {byte_size(total)}, and workers hand batches over in it: start the container with "
        "--shm-size=2g, or train with trainer.num_workers=0"
    )


def shared_memory(place: Path = Path("/dev/shm")) -> int | None:
    """Returns the bytes of the shared memory; None on a machine without."""
    return shutil.disk_usage(place).total if place.is_dir() else None


def transformers_trap(version: Version = installed_version, load: Load = importlib.import_module) -> str | None:
    """Returns why diffusers, transformers and peft do not load together; None where those that are installed do."""
    names = [name for name in ("transformers", "diffusers", "peft") if version(name) is not None]
    said = ", ".join(f"{name} {version(name)}" for name in names)
    remedy = f"pip install --upgrade {' '.join(names)}"
    if "peft" in names and _first(version("peft")) < (0, 18) and _first(version("transformers"), 1) >= (5,):
        return f"{said} do not load together, peft before 0.18 not beside transformers 5: {remedy}"
    for name in names:
        try:
            load(name)
        except Exception as error:  # lazy imports of these packages raise whatever their dependencies do
            return f"{said} do not load together ({name}: {_reason(error)}): {remedy}"
    return None


def cache_places(environment: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Returns the folders that libraries keep files in, by the variable that moves them."""
    home = Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or tempfile.gettempdir()) / ".cache")
    return {
        "HF_HOME": Path(environment.get("HF_HOME") or home / "huggingface"),
        "XDG_CACHE_HOME": home,
        "TMPDIR": Path(environment.get("TMPDIR") or tempfile.gettempdir()),
    }


def cache_trap(places: Mapping[str, Path], free: Callable[[Path], int] | None = None) -> str | None:
    """Returns which folder of a cache cannot be written to, or is nearly full; None where all can be used."""
    for variable, place in places.items():
        there = next((each for each in (place, *place.parents) if each.exists()), Path("/"))
        if not there.is_dir() or not _is_writable(there):
            return f"{place} cannot be written to: set {variable} to a folder that can"
        room = shutil.disk_usage(there).free if free is None else free(there)
        if room < LEAST_FREE:
            return (
                f"{place} has {byte_size(room)} left on its disk, expected {byte_size(LEAST_FREE)}: delete "
                f"what is not needed, or set {variable} to a folder on another disk"
            )
    return None


def _is_writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def locale_trap(preferred: str | None = None, files: str | None = None) -> str | None:
    """Returns that the locale is none of UTF-8; None where it is. preferred, files: encodings of texts and of names."""
    found = {preferred or locale.getpreferredencoding(False), files or sys.getfilesystemencoding()}
    if wrong := sorted(name for name in found if name.lower().replace("-", "").replace("_", "") != "utf8"):
        return (
            f"the locale's encoding is {', '.join(wrong)}, not UTF-8, so that names of files with other letters may "
            "not be read or shown: export LC_ALL=C.UTF-8 (or set PYTHONUTF8=1)"
        )
    return None


@dataclass(frozen=True)
class Traps:
    """Holds faults that keep everything from working, those that limit a part of it, and notes on what works."""

    severe: Sequence[str]
    limiting: Sequence[str]
    notes: Sequence[str]


def find_traps() -> Traps:
    """Returns the faults of this installation on this machine."""
    severe, limiting, notes = [numpy_trap()], [], []
    try:
        import torch

        build = torch.version.cuda, torch.cuda.is_available(), shows_gpu()
    except (ImportError, OSError) as error:
        severe = [
            f"PyTorch cannot be imported ({_reason(error)}): pip install --upgrade --force-reinstall "
            f"{_wanted('torch', 'torchvision')}"
        ]
    else:
        limiting, notes = [build_trap(*build)], [build_note(*build)]
    limiting += [
        torchvision_trap(),
        torchaudio_trap(),
        sound_formats_trap(),
        codecs_trap(),
        transformers_trap(),
        shared_memory_trap(shared_memory()),
        cache_trap(cache_places()),
        locale_trap(),
    ]
    return Traps(*(tuple(each for each in found if each) for found in (severe, limiting, notes)))

"""Makes environments for the packaging tests, of the wheel alone beside exactly what it declares.

Nothing is downloaded. What the wheel's dependencies and theirs installed where the tests run is linked, file by
top-level file, into a folder of its own; the environment sees that folder and its own site-packages, nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable, Iterable
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
SOURCES = (
    "scm_media",
    "modalities",
    "configs",
    "recipes",
    "models",
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
    "MANIFEST.in",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "tests",
)


def closure(requirements: Iterable[str]) -> set[str]:
    """Returns the installed distributions that these requirements bring in, by canonical name."""
    found: set[str] = set()
    pending = [Requirement(text) for text in requirements]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        environments = [{"extra": extra} for extra in requirement.extras] or [{"extra": ""}]
        if requirement.marker and not any(requirement.marker.evaluate(environment) for environment in environments):
            continue
        if name in found and not requirement.extras:
            continue
        found.add(name)
        for text in metadata.requires(name) or ():
            child = Requirement(text)
            if child.marker is None or any(child.marker.evaluate(environment) for environment in environments):
                child.marker = None
                pending.append(child)
    return found


def core_requirements(wheel: Path) -> list[str]:
    """Returns the requirements of a wheel that is installed without extras."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        texts = message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    return [text for text in texts if "extra ==" not in text]


def link_distributions(names: Iterable[str], folder: Path) -> None:
    """Links the top-level entries of installed distributions into ``folder``."""
    folder.mkdir()
    for name in names:
        distribution = metadata.distribution(name)
        tops = {path.parts[0] for path in distribution.files or () if path.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            target = folder / top
            if not target.exists() and not top.endswith(".pth"):
                target.symlink_to(distribution.locate_file(top))


def copy_source(source: Path, out: Path) -> Path:
    """Copies the project in ``source``, so that building leaves nothing there, and returns the copy."""
    copy = out / f"source-{source.name}"
    copy.mkdir(parents=True)
    entries = SOURCES if source == REPOSITORY else [entry.name for entry in source.iterdir()]
    for entry in entries:
        path = source / entry
        if path.is_dir():
            shutil.copytree(path, copy / entry, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(path, copy / entry)
    return copy


def build_distribution(kind: str, source: Path, out: Path) -> Path:
    """Returns the wheel or the sdist of the project in ``source``, made by ``python -m build``."""
    copy, made = copy_source(source, out), out / f"{kind}-{source.name}"
    run([sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", made, copy], cwd=out)
    (archive,) = made.iterdir()
    return archive


class Environment:
    """Installs these wheels into a virtual environment, which sees the given distributions beside them."""

    def __init__(self, root: Path, wheels: Iterable[Path], distributions: Iterable[str]) -> None:
        self.root = root
        venv.create(root / "venv", with_pip=False)
        self.bin = root / "venv" / "bin"
        # Installed before the links are seen, so that pip finds no scm-media of another place.
        pip = [sys.executable, "-m", "pip", "--python", self.bin / "python", "install", "--quiet"]
        run([*pip, "--no-deps", "--no-index", *wheels], cwd=root)
        link_distributions(distributions, root / "distributions")
        (self.site_packages,) = (root / "venv" / "lib").glob("python3*/site-packages")
        (self.site_packages / "distributions.pth").write_text(f"{root / 'distributions'}\n")

    def run(self, *command: str | Path, timeout: float = 300.0) -> str:
        """Returns the standard output of a program of this environment, which is run outside the repository."""
        return run([self.bin / command[0], *command[1:]], cwd=self.root, timeout=timeout)


def run(command: Iterable[str | Path], cwd: Path, timeout: float = 300.0) -> str:
    """Returns the standard output of a command that must succeed; else what it said is in the error."""
    words = [str(word) for word in command]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SCM_MEDIA"))}
    done = subprocess.run(
        words, cwd=cwd, env=inherited, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{' '.join(words)} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def distributions_of() -> Callable[[Iterable[str]], set[str]]:
    """Returns a function from requirements to the names of all installed distributions that they bring in."""
    return closure


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """Builds the project's wheel and returns its path."""
    return build_distribution("wheel", REPOSITORY, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def sdist(tmp_path_factory) -> Path:
    """Builds the project's source distribution and returns its path."""
    return build_distribution("sdist", REPOSITORY, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def plugin_wheel(tmp_path_factory) -> Path:
    """Builds the wheel of the package under ``plugin/``, which knows us only through what we publish."""
    return build_distribution("wheel", Path(__file__).parent / "plugin", tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Environment:
    """Makes an environment with our wheel and the dependencies that it declares."""
    return Environment(tmp_path_factory.mktemp("installed"), [wheel], closure(core_requirements(wheel)))


@pytest.fixture(scope="session")
def installed_with_plugin(wheel, plugin_wheel, tmp_path_factory) -> Environment:
    """Makes the same environment with the plugin's wheel."""
    root = tmp_path_factory.mktemp("with_plugin")
    return Environment(root, [wheel, plugin_wheel], closure(core_requirements(wheel)))

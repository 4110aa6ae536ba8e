"""Checks what a release consists of: two distributions, citation, container, workflows and model cards."""

from __future__ import annotations

import datetime
import re
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from scm_media.pipeline import ModelFolder, bundled_names
from scm_media.pipeline.card import format_card

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
LARGEST = 80_000_000
"""A distribution has at most so many bytes; PyPI takes 100 MB."""

DEVICES = {"2.14": {"cpu", "cu126", "cu130", "cu132"}}
"""Each minor version of PyTorch was published in these builds, by its RELEASE.md (CUDA 12.8 ended with 2.11)."""

TEXTS = (".py", ".md", ".yaml", ".yml", ".json", ".toml", ".txt", ".cfg")
OUTSIDE = ("tests/", "__pycache__", ".pyc", ".git", ".venv", "/runs/", ".pytest_cache", "egg-info/SOURCES.txt.orig")
ABSOLUTE = re.compile(rb"(?<![\w./])/(?:root|home/(?!user/)\w+|Users/\w+|private|mnt/\w+)/[\w.-]+")
"""It matches a path of the machine that something was made on."""


def shipped() -> set[str]:
    """Returns the data files of the repository that belong to the package, as the wheel names them."""
    found = set()
    for folder, pattern in (("configs", "*.yaml"), ("recipes", "*.yaml"), ("models", "*")):
        for path in (REPOSITORY / folder).rglob(pattern):
            if path.is_file() and "__pycache__" not in path.parts:
                found.add(path.relative_to(REPOSITORY).as_posix())
    return found


def members(archive: Path) -> dict[str, tuple[int, bytes | None]]:
    """Returns the names in a wheel or an archive of sources, with sizes, and the contents of texts."""
    found: dict[str, tuple[int, bytes | None]] = {}
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                text = info.filename.endswith(TEXTS)
                found[info.filename] = (info.file_size, file.read(info) if text else None)
        return found
    with tarfile.open(archive) as file:
        for member in file:
            if member.isfile():
                name = member.name.partition("/")[2]
                text = name.endswith(TEXTS)
                found[name] = (member.size, file.extractfile(member).read() if text else None)  # type: ignore[union-attr]
    return found


@pytest.fixture(scope="module", params=["wheel", pytest.param("sdist", marks=pytest.mark.slow)])
def distribution(request) -> tuple[str, Path, dict[str, tuple[int, bytes | None]]]:
    archive = request.getfixturevalue(request.param)
    return request.param, archive, members(archive)


def test_models_recipes_and_configurations_are_in(distribution):
    kind, _, names = distribution
    prefix = "scm_media/" if kind == "wheel" else ""
    missing = {name for name in shipped() if f"{prefix}{name}" not in names}
    assert missing == set()
    modules = {
        path.relative_to(REPOSITORY).as_posix()
        for package in ("scm_media", "modalities")
        for path in (REPOSITORY / package).rglob("*.py")
        if not any(part in ("configs", "recipes", "models") for part in path.parts)
    }
    assert modules - names.keys() == set()


def test_tests_caches_and_paths_of_this_machine_are_out(distribution):
    _, _, names = distribution
    assert [name for name in names if any(part in f"/{name}" for part in OUTSIDE)] == []
    assert [name for name in names if name.startswith(("docs/", "benchmarks/", "examples/", "build/", "dist/"))] == []
    here = str(REPOSITORY).encode()
    found = {
        name: match[0]
        for name, (_, text) in names.items()
        if text is not None and (match := ABSOLUTE.search(text) or re.search(re.escape(here), text))
    }
    assert found == {}


def test_each_model_is_in_once(distribution):
    _, _, names = distribution
    weights = [name.rpartition("models/")[2] for name in names if name.endswith(".safetensors")]
    assert sorted(weights) == sorted(set(weights)) and len(weights) >= 4 * 3


def test_the_size_is_one_that_is_taken(distribution):
    _, archive, names = distribution
    assert 20_000_000 < archive.stat().st_size < LARGEST
    models = sum(size for name, (size, _) in names.items() if "models/" in name)
    assert sum(size for size, _ in names.values()) - models < 12_000_000, "something else than models is large"


@pytest.mark.slow
def test_the_sources_hold_what_builds_and_describes_them(sdist):
    names = members(sdist)
    wanted = {"pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"}
    assert wanted <= names.keys()


def test_the_metadata_are_such_as_twine_accepts(wheel):
    """Checks what ``twine check --strict`` does: the description has a type, and no field is empty or unknown."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        found = message_from_bytes(archive.read(name))
    assert found["Description-Content-Type"].startswith("text/markdown")
    assert found.get_payload().strip().startswith("# scm-media")
    assert (found["Name"], found["Version"]) == ("scm-media", PROJECT["version"])
    assert found["License-Expression"] == "Apache-2.0" and found["Requires-Python"] == ">=3.11"
    assert all(value.strip() and value != "UNKNOWN" for value in found.values())
    assert not any("License ::" in each for each in found.get_all("Classifier")), (
        "it and an expression exclude each other"
    )
    for requirement in found.get_all("Requires-Dist"):
        assert Requirement(requirement).url is None, "PyPI refuses addresses"


def test_the_citation_is_one_of_the_schema():
    """Compares the fields with those that schema 1.2.0 of the Citation File Format requires and knows."""
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    known = {
        "abstract",
        "type",
        "version",
        "date-released",
        "license",
        "keywords",
        "references",
        "url",
        "repository-code",
    }
    assert cited.keys() <= known | {"cff-version", "message", "title", "authors"}
    assert cited["cff-version"] == "1.2.0" and cited["type"] == "software"
    assert str(cited["version"]) == PROJECT["version"] and cited["license"] == PROJECT["license"]
    assert datetime.date.fromisoformat(cited["date-released"]).year >= 2026
    persons, entities = {"family-names", "given-names", "orcid", "affiliation"}, {"name", "website"}
    works = [cited, *cited["references"]]
    for author in [author for work in works for author in work["authors"]]:
        assert author and (author.keys() <= persons or author.keys() <= entities), author
    (paper,) = cited["references"]
    assert paper["type"] == "article" and paper["year"] == 2024
    assert [author["family-names"] for author in paper["authors"]] == ["Lu", "Song"]
    assert {"type": "other", "value": "arXiv:2410.11081"}.items() <= paper["identifiers"][0].items()


def docker_instructions() -> list[tuple[str, str]]:
    """Returns the instructions of the Dockerfile with their arguments, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", (REPOSITORY / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def is_sent(path: str) -> bool:
    """Returns whether .dockerignore sends a path: the last pattern that matches decides, ! takes it back."""
    sent = True
    for line in (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.lstrip("!")
        if not line or line.startswith("#"):
            continue
        parents = [path, *map(str, PurePosixPath(path).parents)]
        if any(fnmatch(each, pattern) or fnmatch(f"/{each}", f"*/{pattern.removeprefix('**/')}") for each in parents):
            sent = line.startswith("!")
    return sent


def test_the_container_copies_what_is_there_and_sent():
    copied = [words.split() for name, words in docker_instructions() if name == "COPY" and "--from" not in words]
    sources = [source for words in copied for source in words[:-1]]
    assert {"scm_media", "modalities", "configs", "recipes", "models", "pyproject.toml", "setup.py"} <= set(sources)
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert is_sent(source), f"{source} is kept out by .dockerignore"
    assert is_sent("models/image/fashion/student.safetensors")
    for kept in ("tests/conftest.py", ".git/config", "runs/mine/main/model.json", "scm_media/__pycache__/a.pyc"):
        assert not is_sent(kept), kept


def test_the_container_has_versions_that_pyproject_allows():
    arguments = dict(words.split("=", 1) for name, words in docker_instructions() if name == "ARG" and "=" in words)
    extras = [text for name in ("audio", "image", "video") for text in PROJECT["optional-dependencies"][name]]
    allowed = {each.name: each.specifier for each in map(Requirement, [*PROJECT["dependencies"], *extras])}
    for name in ("torch", "torchvision", "torchaudio"):
        assert Version(arguments[name.upper()]) in allowed[name], name
    assert Version(arguments["PYTHON"]) in SpecifierSet(PROJECT["requires-python"])
    assert arguments["DEVICE"] == "cpu"


def test_the_container_is_built_for_devices_that_its_torch_was_published_for():
    dockerfile, page = ((REPOSITORY / name).read_text(encoding="utf-8") for name in ("Dockerfile", "README.md"))
    builds = DEVICES[re.search(r"ARG TORCH=(\d+\.\d+)", dockerfile)[1]]
    for text in (dockerfile, page):
        named = re.findall(r"DEVICE=(\w+)", text)
        assert named and set(named) <= builds
    assert set(re.findall(r"\bcu\d+\b", dockerfile)) == builds - {"cpu"}


def test_the_container_runs_the_command_as_a_user():
    instructions = docker_instructions()
    last = max(number for number, (name, _) in enumerate(instructions) if name == "FROM")
    final = instructions[last:]
    assert ("ENTRYPOINT", '["scm-media"]') in final
    (user,) = [words for name, words in final if name == "USER"]
    assert user != "root" and any("useradd" in words and user in words for name, words in final if name == "RUN")


def test_the_container_compiles_and_any_user_has_a_home():
    instructions = docker_instructions()
    last = max(number for number, (name, _) in enumerate(instructions) if name == "FROM")
    runs = [words for name, words in instructions[last:] if name == "RUN"]
    assert any(re.search(r"apt-get install .*\bg\+\+(?= |$)", words) for words in runs)
    (home,) = re.findall(r"\bHOME=(\S+)", " ".join(words for name, words in instructions[last:] if name == "ENV"))
    assert any(f"chmod 1777 {home}" in words for words in runs)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_whole(path):
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", True, "permissions", "jobs"} <= found.keys(), "YAML reads the key on as true"
    assert found["permissions"] == {"contents": "read"}
    made = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for name, job in found["jobs"].items():
        assert job["runs-on"].startswith("ubuntu-") and job["steps"], name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", step["uses"]), step
            for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", "")):
                assert target in made | {"docs"}, target


def test_workflows_test_each_python_build_pages_and_publish_tags():
    found = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in WORKFLOWS}
    assert found.keys() == {"test", "test-all", "docs", "release"}
    assert "make test-all" in found["test-all"]["jobs"]["test-all"]["steps"][-1]["run"]
    versions = found["test"]["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12", "3.13"]
    assert all(Version(each) in SpecifierSet(PROJECT["requires-python"]) for each in versions)
    assert found["release"][True]["push"] == {"tags": ["v*"]}
    build, publish = (found["release"]["jobs"][name] for name in ("build", "publish"))
    commands = "\n".join(step.get("run", "") for step in build["steps"])
    assert "twine check --strict" in commands and "python -m build" in commands
    assert publish["permissions"] == {"id-token": "write"} and publish["needs"] == "build"
    assert publish["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert not re.search(r"password|secrets\.", yaml.safe_dump(found["release"]["jobs"]))


@pytest.mark.parametrize("name", bundled_names())
def test_model_cards_are_complete(name):
    folder = ModelFolder.open(name)
    text = (folder.path / "README.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert [each for each in headings if each in ("Intended use", "Limits", "Figures")] == [
        "Intended use",
        "Limits",
        "Figures",
    ]
    for wanted in (
        r"^- Data: (?!unknown)\S",
        r"^- Licence of the data: (?!unknown)\S",
        r"^license: \S",
        r"^\| consistency \|",
    ):
        assert re.search(wanted, text, flags=re.MULTILINE), wanted
    limits = text.partition("## Limits")[2].partition("\n## ")[0]
    assert len(re.findall(r"^- ", limits, flags=re.MULTILINE)) >= 2
    assert ("--memorization" in limits) == (folder.memorization() is None)
    assert text == format_card(folder), "scm-media writes the card of today: export the model, or evaluate it again"

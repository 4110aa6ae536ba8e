"""The wheel alone, installed outside the repository, does what the README promises."""

from __future__ import annotations

import json
import zipfile
from importlib import metadata

import pytest


def test_wheel_holds_packages_and_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        "scm_media/__init__.py",
        "scm_media/cli/__init__.py",
        "modalities/image/modality.py",
        "scm_media/configs/__init__.py",
        "scm_media/configs/base.yaml",
        "scm_media/recipes/image/tiny.yaml",
        "scm_media/recipes/image/fashion.yaml",
        "scm_media/models/image/fashion/model.json",
        "scm_media/models/image/fashion/student.safetensors",
        "scm_media/models/image/fashion/metrics.json",
        "scm_media/models/image/fashion/README.md",
    }
    assert expected <= names, f"not in the wheel: {sorted(expected - names)}"
    foreign = {name.partition("/")[0] for name in names} - {"scm_media", "modalities"}
    assert all(name.endswith(".dist-info") for name in foreign), f"top-level packages that are not ours: {foreign}"
    assert sum(name.endswith("LICENSE") for name in names) == 1


@pytest.mark.slow
def test_installed_wheel_is_used_and_not_the_repository(installed):
    path = installed.run("python", "-c", "import scm_media; print(scm_media.__file__)").strip()
    assert path == str(installed.site_packages / "scm_media" / "__init__.py")
    version = installed.run("python", "-c", "import importlib.metadata as m; print(m.version('scm-media'))").strip()
    assert version == metadata.version("scm-media")


@pytest.mark.slow
def test_installed_wheel_lists_recipes(installed):
    listing = installed.run("scm-media", "recipes")
    assert "image/tiny" in listing
    assert "image/fashion" in listing


@pytest.mark.slow
def test_installed_wheel_generates_from_bundled_model(installed):
    out = installed.root / "clips"
    command = ("generate", "image/fashion", "-n", "2", "--label", "Bag", "--steps", "1", "--device", "cpu", "--json")
    report = json.loads(installed.run("scm-media", *command, "--out", out))
    assert report["evaluations"] == 1
    assert len(report["samples"]) == 2
    for clip in report["samples"]:
        assert (installed.root / clip["path"]).read_bytes().startswith(b"\x89PNG")

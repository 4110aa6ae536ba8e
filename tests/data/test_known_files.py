"""Files that were found usable are opened again only where they, or what they are looked at for, have changed."""

from __future__ import annotations

import os

import pytest
import torch

from scm_media import recipe
from scm_media.build import build
from scm_media.cli import main
from scm_media.data import known_files
from scm_media.sources import open_data


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(known_files, "SECONDS", 0)
    return tmp_path / "cache" / "scm-media" / "files"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    modality = build({"_target_": "modalities.image.ImageModality", "size": 8, "channels": 3}, "modality")
    for number in range(4):
        modality.write(folder / f"{number}.png", torch.rand(3, 8, 8) * 2 - 1, {})
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:40])
    return folder


def words_for(folder, *more):
    return ["data=folder", f"data.root={folder}", "data.labels=none", f"run_dir={folder}-run", *more]


@pytest.fixture
def opened(folder, monkeypatch):
    """Returns a function that opens the data and tells which files were looked at, by a modality of its own."""

    def open_anew(*words, **options):
        config = recipe.compose("image/tiny", words_for(folder, *words))
        modality = build(config["modality"], "modality")
        looked, validate = set(), modality.validate

        def look(file):
            looked.add(os.path.basename(getattr(file, "name", file)))
            validate(file)

        monkeypatch.setattr(modality, "validate", look)
        splits = open_data(config, modality, **options)
        assert splits["train"].rejects == {"undecodable": 1}, "a file that cannot be used is counted each time"
        assert sum(map(len, splits.values())) == 4
        return sorted(looked)

    return open_anew


ALL = ["0.png", "1.png", "2.png", "3.png", "torn.png"]


def test_only_what_has_changed_or_could_not_be_used_is_looked_at_again(folder, opened):
    assert opened() == ALL
    assert opened() == ["torn.png"]
    os.utime(folder / "2.png", ns=(1, 1))
    assert opened() == ["2.png", "torn.png"]
    with (folder / "3.png").open("ab") as file:
        file.write(b"more")
    assert opened() == ["3.png", "torn.png"]


def test_other_settings_and_wishes_look_at_all(folder, opened, capsys):
    assert opened() == ALL
    assert opened("modality.size=8") == ALL
    assert opened(look_anew=True) == ALL
    assert opened() == ["torn.png"]
    assert main(["check", "image/tiny", *words_for(folder)]) == 0
    assert "1 undecodable" in capsys.readouterr().out


def test_a_lost_damaged_or_forbidden_file_of_results_costs_time_alone(cache, opened):
    assert opened() == ALL
    (file,) = cache.iterdir()
    for content in (b"", b"{}", b"[1]", b'[["a", "b"]]', b"[[1, null, 2, true, 0]]", b"\xff"):
        file.write_bytes(content)
        assert opened() == ALL, content
    file.unlink()
    cache.rmdir()
    cache.write_text("no folder")
    assert opened() == ALL


def test_nothing_is_kept_where_looking_is_quick(cache, opened, monkeypatch):
    monkeypatch.setattr(known_files, "SECONDS", 60)
    assert opened() == ALL
    assert not cache.exists()

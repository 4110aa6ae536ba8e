"""Files that were found usable are opened again only where they, or what they are looked at for, have changed."""

from __future__ import annotations

import json
import os

import pytest
import torch

from scm_media import recipe
from scm_media.build import build
from scm_media.cli import main
from scm_media.data import known_files, validation
from scm_media.data.entries import Entry
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

    def open_anew(*words, rejected=1, **options):
        config = recipe.compose("image/tiny", words_for(folder, *words))
        modality = build(config["modality"], "modality")
        looked, validate = set(), modality.validate

        def look(file):
            looked.add(os.path.basename(getattr(file, "name", file)))
            validate(file)

        monkeypatch.setattr(modality, "validate", look)
        splits = open_data(config, modality, **options)
        assert splits["train"].rejects == {"undecodable": rejected}, "a file that cannot be used is counted each time"
        assert sum(map(len, splits.values())) == 5 - rejected
        return sorted(looked)

    return open_anew


ALL = ["0.png", "1.png", "2.png", "3.png", "torn.png"]


def rows(cache):
    (file,) = cache.iterdir()
    return sorted(os.path.basename(row[0]) for row in json.loads(file.read_text()))


def damage(file):
    """Replaces a file's content by zeros, which neither its size nor its time tells."""
    before = file.stat()
    file.write_bytes(bytes(before.st_size))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_only_what_has_changed_or_could_not_be_used_is_looked_at_again(folder, cache, opened):
    assert opened() == ALL
    assert opened() == ["torn.png"]
    os.utime(folder / "2.png", ns=(1, 1))
    assert opened() == ["2.png", "torn.png"]
    with (folder / "3.png").open("ab") as file:
        file.write(b"more")
    assert opened() == ["3.png", "torn.png"]
    assert rows(cache) == ALL[:4], "each file once, and none that cannot be used"


def test_check_looks_at_all_files_and_what_it_finds_is_kept(folder, opened, capsys, monkeypatch):
    assert opened() == ALL
    damage(folder / "1.png")
    assert opened() == ["torn.png"], "no command but check looks at it"
    monkeypatch.setattr(known_files, "SECONDS", 60)  # also where it is quick: the results of before are wrong
    assert main(["check", "image/tiny", *words_for(folder)]) == 0
    assert "2 undecodable" in capsys.readouterr().out
    assert opened(rejected=2) == ["1.png", "torn.png"]


def test_files_are_looked_at_anew_for_other_settings_versions_and_code(opened, monkeypatch, tmp_path):
    assert opened() == ALL
    assert opened("modality.size=8") == ALL
    assert opened() == ["torn.png"]
    monkeypatch.setattr(known_files.metadata, "version", lambda name: "99")
    assert opened() == ALL
    monkeypatch.setattr(known_files.inspect, "getfile", lambda each: __file__)
    assert opened() == ALL
    assert opened() == ["torn.png"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert opened() == ALL
    (tmp_path / "elsewhere").rmdir()
    assert opened() == ALL, "in a folder that is gone nothing is kept"


DAMAGED = (
    *(b"", b"{}", b"[1]", b'[["a", "b"]]', b"[[1, null, 2, true, 0]]", b"\xff", b"[" * 100_000),
    *(b'[["a", 1e999, 2, true, 0]]', b'[["a", 1, 2, true, 1]]', b'[["a", 1, 2, true, -1]]'),
)


def test_a_lost_damaged_or_forbidden_file_of_results_costs_time_alone(cache, opened):
    assert opened() == ALL
    (file,) = cache.iterdir()
    good = json.loads(file.read_text())
    for content in (*DAMAGED, json.dumps([*good, ["x", 1, 1, True, 7]]).encode()):
        file.write_bytes(content)
        assert opened() == ALL, content[:40]
    file.unlink()
    cache.rmdir()
    cache.write_text("no folder")
    assert opened() == ALL


def test_results_are_for_the_user_alone(folder, cache, opened, monkeypatch):
    assert opened() == ALL
    (file,) = cache.iterdir()
    assert (file.stat().st_mode & 0o777, cache.stat().st_mode & 0o777) == (0o600, 0o700)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(cache.parents[2] / "home"))
    assert opened() == ALL
    assert opened() == ["torn.png"]
    assert len(list((cache.parents[2] / "home" / ".cache" / "scm-media" / "files").iterdir())) == 1
    monkeypatch.delenv("HOME")
    assert (opened(), opened()) == (ALL, ALL), "a folder for all users is no place for them"


def test_results_that_nobody_asks_for_are_removed(cache, opened):
    assert opened() == ALL
    (file,) = cache.iterdir()
    for name in ("old.json", "of-today.json"):
        (cache / name).write_text("[]")
    os.utime(cache / "old.json", (0, 0))
    os.utime(file, (0, 0))
    assert opened() == ["torn.png"]
    assert file.stat().st_mtime > 0
    assert opened("modality.size=8") == ALL
    assert sorted(each.name for each in cache.iterdir() if "-" in each.name or each.name == "old.json") == [
        "of-today.json"
    ]
    assert file.exists()


def test_nothing_is_kept_where_looking_is_quick_or_another_process_keeps_it(cache, opened, monkeypatch):
    monkeypatch.setattr(known_files, "SECONDS", 60)
    assert opened() == ALL
    monkeypatch.setattr(known_files, "SECONDS", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert opened() == ALL
    assert not cache.exists()


def test_what_was_looked_at_before_an_interruption_is_kept(folder, cache, opened, monkeypatch):
    inspect = validation._inspect

    def interrupted(entry, **given):
        if entry.path.name == "3.png":
            raise KeyboardInterrupt
        return inspect(entry, **given)

    monkeypatch.setattr(validation, "_inspect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opened()
    assert rows(cache) == ALL[:3]
    monkeypatch.setattr(validation, "_inspect", inspect)
    assert opened() == ["3.png", "torn.png"]
    os.utime(folder / "0.png", ns=(1, 1))
    monkeypatch.setattr(validation, "_inspect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opened()
    assert set(rows(cache)) == set(ALL[:4]), "what was not reached is not forgotten"


def test_two_cuts_of_a_file_that_differ_by_a_millisecond_are_two(tmp_path):
    path = tmp_path / "long.wav"
    path.write_bytes(b"sound")
    versions = {Entry(path, "long", cut=(start, 1000.5)).version for start in (1000.001, 1000.002)}
    assert len(versions) == 2

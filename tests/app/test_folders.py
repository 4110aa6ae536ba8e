"""Private folders are apart, and are deleted with their session."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from scm_media.app.folders import OPEN_SECONDS, Folders


@pytest.fixture
def folders(tmp_path: Path):
    made = Folders(tmp_path / "out", idle=100)
    yield made
    made.close()


def write(path: Path, age: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_each_session_has_a_folder_that_nobody_guesses(folders: Folders) -> None:
    a, b = folders.folder("a"), folders.folder("b")
    assert a != b and folders.folder("a") == a
    assert len(a.name) == 32 and a.name != "a"
    assert stat.S_IMODE(folders.root.stat().st_mode) == stat.S_IMODE(a.stat().st_mode) == 0o700


def test_the_end_of_a_session_deletes_its_files_alone(folders: Folders) -> None:
    mine, yours = write(folders.folder("a") / "0" / "x.png"), write(folders.folder("b") / "0" / "x.png")
    upload, shared = write(folders.root / "1" / "u.png"), write(folders.root / "2" / "u.png")
    for session, file in (("a", upload), ("a", shared), ("b", shared)):
        folders.claim(session, file)
    folders.end("a")
    assert not mine.exists() and not upload.exists()
    assert yours.exists() and shared.exists()
    assert folders.folder("a") != mine.parents[1]
    folders.end("b")
    assert not shared.exists()


def test_nothing_but_an_upload_is_ever_claimed(folders: Folders, tmp_path: Path) -> None:
    outside, yours = write(tmp_path / "precious.png"), write(folders.folder("b") / "0" / "x.png")
    upload = write(folders.root / "1" / "u.png")
    (folders.root / "link.png").symlink_to(outside)
    for path in (
        outside,
        folders.root / ".." / ".." / "precious.png",
        folders.root / "link.png",
        folders.root,
        folders.root / "results",
        upload.parent,
        yours,
        folders.root / "none.png",
    ):
        with pytest.raises(ValueError, match="is no uploaded file, or was deleted since: upload it again"):
            folders.claim("a", path)
    folders.end("a")
    assert outside.exists() and yours.exists() and upload.exists()


def test_files_without_an_open_page_are_swept_when_they_are_old(folders: Folders, monkeypatch) -> None:
    of_page, of_program = write(folders.folder("page") / "x"), write(folders.folder("program") / "x")
    folders.open("page")
    new, old, claimed = (write(folders.root / name / "u.png", age) for name, age in (("n", 0), ("o", 200), ("c", 200)))
    folders.claim("page", claimed)
    taken = write(folders.root / "t" / "u.png", 200)
    folders.claim("another program", taken)
    folders.sweep()
    assert taken.exists()
    assert of_page.exists() and of_program.exists() and new.exists() and claimed.exists()
    assert not old.exists()
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + 101)
    folders.sweep()
    assert of_page.exists() and claimed.exists()
    assert not of_program.exists() and not taken.exists()
    monkeypatch.setattr("time.monotonic", lambda: now + OPEN_SECONDS + 1)
    folders.sweep()
    assert not of_page.exists() and not claimed.exists()


def test_closing_deletes_everything_but_the_place(folders: Folders, tmp_path: Path) -> None:
    write(folders.folder("a") / "x")
    folders.close()
    assert list((tmp_path / "out").iterdir()) == []


def test_sweeping_goes_on_after_an_error(tmp_path: Path, monkeypatch, logged) -> None:
    swept = threading.Event()
    told = iter([OSError("gone")])

    def sweep(self: Folders) -> None:
        for error in told:
            raise error
        swept.set()

    monkeypatch.setattr("scm_media.app.folders.SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(Folders, "sweep", sweep)
    folders = Folders(tmp_path / "out")
    assert swept.wait(10)
    folders.close()
    assert any("could not be deleted" in line for line in logged)


def test_a_folder_that_vanishes_does_not_end_a_sweep(folders: Folders, monkeypatch) -> None:
    old = write(folders.root / "z" / "u.png", 200)
    gone = write(folders.root / "a" / "b" / "u.png", 200).parent
    original = os.scandir

    def scandir(place: str | Path):
        if Path(place) == gone:
            raise FileNotFoundError(place)
        return original(place)

    monkeypatch.setattr("os.scandir", scandir)
    folders.sweep()
    assert not old.exists()

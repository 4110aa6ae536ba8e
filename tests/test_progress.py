"""Progress on standard error: when a line is printed, what it says, and what a terminal shows."""

from __future__ import annotations

import sys

import pytest
import torch

from modalities.image.modality import ImageModality
from scm_media import progress
from scm_media.data import validation
from scm_media.data.folder import FolderDataset
from scm_media.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Returns a clock, a list of one number, that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_are_half_a_minute_apart_and_tell_the_time_left_of_their_job(clock, capsys):
    show = Progress()
    for seconds, what, done in [(0, "texts", 0), (29, "texts", 9), (40, "texts", 20), (69, "texts", 30)]:
        clock[0] = 100.0 + seconds
        show(what, done, 120)
    assert capsys.readouterr().err == "texts: 20 of 120, 3:20 left\n"
    clock[0] = 170.0
    show("latents", 500, 1000)  # goes on where another run stopped: no speed is known yet
    clock[0] = 200.0
    show("latents", 650, 1000)
    assert capsys.readouterr().err == "latents: 500 of 1000\nlatents: 650 of 1000, 1:10 left\n"


def test_a_terminal_shows_one_line_that_changes_and_ends(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    show = Progress()
    show("files", 0, 3)
    clock[0] += 0.05
    show("files", 1, 3)  # too soon
    clock[0] += 0.05
    show("files", 2, 3)
    show("files", 3, 3)  # the end is shown at once
    lines = capsys.readouterr().err
    assert lines == "\r\x1b[Kfiles: 0 of 3\r\x1b[Kfiles: 2 of 3\r\x1b[Kfiles: 3 of 3\n"


def test_each_job_on_a_terminal_begins_at_once_and_counts_its_own_time(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    show = Progress()
    show("quick", 1, 1)
    show("slow", 0, 5)  # within a tenth of a second
    assert capsys.readouterr().err == "\r\x1b[Kquick: 1 of 1\n\r\x1b[Kslow: 0 of 5"
    clock[0] += 50.0
    show("slow", 5, 5)
    show("slow", 0, 5)  # the same once more
    clock[0] += 10.0
    show("slow", 1, 5)
    assert capsys.readouterr().err.endswith("\r\x1b[Kslow: 0 of 5\r\x1b[Kslow: 1 of 5, 0:40 left")


def test_nothing_is_printed_where_there_is_no_standard_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    Progress(seconds=0)("files", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_short_job_on_a_terminal_shows_nothing_at_all(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    show = Progress(seconds=5)
    for seconds in range(5):
        clock[0] = 100.0 + seconds
        show("files", seconds, 4)
    assert capsys.readouterr().err == ""


def test_the_first_process_alone_prints(clock, capsys, monkeypatch):
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        show = Progress(seconds=0)
        show(f"process {rank}", 1, 2)
    assert capsys.readouterr().err == "process 0: 1 of 2\n"


def test_looking_at_many_files_is_not_silent(tmp_path, capsys, monkeypatch):
    modality = ImageModality(size=16, channels=3)
    for number in range(4):
        modality.write(tmp_path / f"{number}.png", torch.zeros(3, 16, 16), {})
    FolderDataset(modality, tmp_path, labels="none")
    assert "files looked at" not in capsys.readouterr().err
    monkeypatch.setattr(validation, "SECONDS_BEFORE_PROGRESS", 0.0)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    modality.inspections.clear()
    FolderDataset(modality, tmp_path, labels="none")
    told = [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert told == [f"files looked at: {number} of 4" for number in range(5)]

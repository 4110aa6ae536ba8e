"""``doctor``: what is there, what is missing, how to get it."""

from __future__ import annotations

import platform

import pytest
import torch

from scm_media.cli import doctor, main


def test_says_versions_and_devices(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"Python {platform.python_version()}" in said
    assert f"torch: {torch.__version__.partition('+')[0]}" in said
    assert "cpu (" in said
    assert "package modalities: ours" in said


def test_what_is_missing_comes_with_the_command_that_gets_it(monkeypatch, capsys):
    requirements = ["torch>=2", "left-out>=1", 'soundless>=2; extra == "audio"', 'builder; extra == "dev"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: requirements)
    assert main(["doctor"]) == 1, "the core lacks something"
    said = capsys.readouterr().out
    assert "missing for the core: left-out; get it with: pip install 'scm-media'" in said
    assert "missing for audio: soundless; get it with: pip install 'scm-media[audio]'" in said
    assert "builder" not in said


def test_a_foreign_package_modalities_is_a_fault(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "foreign_modalities", lambda: "it is another one's")
    assert main(["doctor"]) == 1
    assert "package modalities: it is another one's" in capsys.readouterr().out


def test_help(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["doctor", "--help"])
    assert exit.value.code == 0

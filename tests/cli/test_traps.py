"""Simulates each trap of ``doctor`` by what a machine that has it says, and finds none where it does not."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scm_media.cli import main, traps

FITTING = {"torch": "2.12.0", "torchvision": "0.27.0", "torchaudio": "2.12.0", "numpy": "2.1.0"}


PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
(TORCH,) = [each for each in map(Requirement, PROJECT["dependencies"]) if each.name == "torch"]
(TORCHVISION,) = map(Requirement, PROJECT["optional-dependencies"]["image"])


def asked_of_pip(text: str) -> list[Requirement]:
    """Returns what the pip command in a text installs."""
    words = shlex.split(text[text.index("pip install") :])
    return [Requirement(word) for word in words[2:] if re.match(r"torch|numpy", word)]


def versions(**changed: str | None):
    """Returns a function from a distribution to its version."""
    known = {**FITTING, **changed}
    return known.get


def failing(error: BaseException, *names: str):
    """Returns a function that loads modules, of which these fail."""

    def load(name: str) -> object:
        if name in names:
            raise error
        return object()

    return load


def test_torchaudio_of_one_version_does_not_load_beside_a_newer_torch():
    loads = failing(ImportError("none"))
    assert traps.torchaudio_trap(versions(), loads) is None
    assert traps.torchaudio_trap(versions(torchaudio="2.11.1", torch="2.11.0"), loads) is None
    found = traps.torchaudio_trap(versions(torchaudio="2.11.1"), loads)
    assert found.startswith("torchaudio 2.11.1 does not load beside torch 2.12.0: pip install")
    assert traps.torchaudio_trap(versions(torchaudio=None), failing(ImportError("x"), "torchaudio")) is None
    broken = failing(OSError("libtorchaudio.so: undefined symbol: _ZN3c10"), "torchaudio")
    assert "(libtorchaudio.so: undefined symbol: _ZN3c10): pip install" in traps.torchaudio_trap(versions(), broken)


def test_torchvision_of_another_build_says_that_an_operator_is_missing():
    assert traps.torchvision_trap(versions(), failing(ImportError("none"))) is None
    error = RuntimeError("operator torchvision::nms does not exist\nmore lines")
    found = traps.torchvision_trap(versions(torchvision="0.24.0"), failing(error, "torchvision"))
    assert "torchvision 0.24.0 was built for another torch than 2.12.0 (operator torchvision::nms does not" in found
    assert "more lines" not in found and asked_of_pip(found) == [TORCH, TORCHVISION]
    assert traps.torchvision_trap(versions(torchvision=None), failing(error, "torchvision")) is None


@pytest.mark.parametrize(
    ("cuda", "works", "gpu", "expected"),
    [
        (None, False, False, None),
        ("12.8", True, True, None),
        (None, False, True, "torch is a build for CPUs"),
        ("12.8", False, True, "finds no usable GPU, although the machine has one: its driver"),
        ("12.8", False, False, None),
    ],
)
def test_the_build_of_torch_fits_the_machine(cuda, works, gpu, expected):
    found = traps.build_trap(cuda, works, gpu, {})
    assert found is None if expected is None else expected in found
    assert traps.build_trap(cuda, works, gpu, {"CUDA_VISIBLE_DEVICES": ""}) is None, "the GPU is hidden on purpose"
    assert traps.build_trap(cuda, works, gpu, {"CUDA_VISIBLE_DEVICES": "1"}) == found


def test_a_cuda_build_without_a_gpu_works_and_is_no_trap():
    note = traps.build_note("12.8", False, False)
    assert note.startswith("torch is built for CUDA 12.8, and there is no GPU: all works on the CPU")
    assert asked_of_pip(note) == [TORCH, TORCHVISION], "torchvision of a CUDA build would not load beside it"
    assert traps.build_note("12.8", True, True) is traps.build_note(None, False, False) is None
    assert traps.build_note("12.8", False, True) is None, "that is a trap"


def test_a_gpu_is_seen_by_its_device_file(tmp_path, monkeypatch):
    monkeypatch.setattr(traps.shutil, "which", lambda name: None)
    assert not traps.shows_gpu(tmp_path)
    (tmp_path / "nvidia0").write_bytes(b"")
    assert traps.shows_gpu(tmp_path)


def test_numpy_of_another_major_version():
    def refused() -> object:
        raise RuntimeError("Numpy is not available")

    assert traps.numpy_trap() is None, "here they work together"
    found = traps.numpy_trap(versions(), refused)
    assert found.startswith("NumPy 2.1.0 and torch 2.12.0 do not work together (Numpy is not available)")
    assert traps.numpy_trap(versions(torch=None), refused) is traps.numpy_trap(versions(numpy=None), refused) is None


def test_sound_files_that_libraries_cannot_read():
    assert traps.sound_formats_trap(["WAV", "MP3", "FLAC", "OGG"]) is None
    assert "reads no MP3: it is an old one" in traps.sound_formats_trap(["WAV", "FLAC", "OGG"])
    assert traps.codecs_trap({"mp3", "flac", "vorbis", "h264"}) is None
    assert "decodes no OGG, MP4: it was built without" in traps.codecs_trap({"mp3", "flac"})
    assert traps.sound_formats_trap() is None and traps.codecs_trap() is None, "the installed ones read all"


def test_shared_memory_of_a_container():
    assert traps.shared_memory_trap(None) is None and traps.shared_memory_trap(2**29) is None
    assert "/dev/shm has 64 MiB" in traps.shared_memory_trap(64 * 2**20)


def test_peft_transformers_and_diffusers_that_do_not_load_together():
    whole = versions(peft="0.18.0", transformers="5.1.0", diffusers="0.36.0")
    assert traps.transformers_trap(whole, failing(ImportError("none"))) is None
    old = versions(peft="0.17.1", transformers="5.1.0", diffusers="0.36.0")
    found = traps.transformers_trap(old, failing(ImportError("none")))
    assert "peft before 0.18 not beside transformers 5: pip install --upgrade transformers diffusers peft" in found
    assert traps.transformers_trap(versions(peft="0.17.1", transformers="4.57.0"), failing(ImportError("x"))) is None
    error = ImportError("cannot import name 'EncoderDecoderCache' from 'transformers'")
    assert "(peft: cannot import name 'EncoderDecoderCache'" in traps.transformers_trap(whole, failing(error, "peft"))
    assert traps.transformers_trap(versions(), failing(error, "peft")) is None, "none of them is installed"


def test_caches_that_are_read_only_or_full(tmp_path, monkeypatch):
    places = {"HF_HOME": tmp_path / "not" / "there yet"}
    assert traps.cache_trap(places, lambda place: 2**40) is None
    assert not (tmp_path / "not").exists()
    full = traps.cache_trap(places, lambda place: 3 * 2**20)
    assert f"{tmp_path}/not/there yet has 3 MiB left on its disk, expected 1 GiB" in full and "set HF_HOME" in full
    (tmp_path / "file").write_text("")
    assert "cannot be written to: set HF_HOME" in traps.cache_trap({"HF_HOME": tmp_path / "file"})

    def refused(**_: object) -> object:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(traps.tempfile, "TemporaryFile", refused)
    assert "cannot be written to: set XDG_CACHE_HOME" in traps.cache_trap({"XDG_CACHE_HOME": tmp_path})


def test_caches_lie_where_the_environment_says():
    home = os.fspath(Path("/home/user"))
    assert traps.cache_places({"HOME": home})["HF_HOME"] == Path(home, ".cache", "huggingface")
    assert traps.cache_places({"HOME": home, "HF_HOME": "/big"})["HF_HOME"] == Path("/big")


def test_a_locale_that_is_not_utf_8():
    assert traps.locale_trap("UTF-8", "utf-8") is None
    assert "encoding is ANSI_X3.4-1968, not UTF-8" in traps.locale_trap("ANSI_X3.4-1968", "utf-8")


def test_doctor_prints_traps_and_fails_for_severe_ones_alone(monkeypatch, capsys):
    def find(severe=(), limiting=(), notes=()):
        monkeypatch.setattr("scm_media.cli.doctor.find_traps", lambda: traps.Traps(severe, limiting, notes))

    find(limiting=["the locale is odd: export LC_ALL"])
    assert main(["doctor"]) == 0
    assert "trap: the locale is odd: export LC_ALL\n" in capsys.readouterr().out
    find(severe=["NumPy is another one"])
    assert main(["doctor"]) == 1
    capsys.readouterr()
    find(notes=["the build is large"])
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "traps: none" in shown and "note: the build is large\n" in shown and "trap: " not in shown


def test_a_torch_that_cannot_be_imported_is_one_severe_trap(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = traps.find_traps()
    (severe,) = found.severe
    assert severe.startswith("PyTorch cannot be imported (") and asked_of_pip(severe) == [TORCH, TORCHVISION]
    assert found.notes == ()


def test_the_page_installs_what_pyproject_allows():
    page = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    commands = re.findall(r"`(pip install [^`]*\btorch\b[^`]*)`", page)
    assert len(commands) == 3
    for command in commands:
        assert {TORCH} <= set(asked_of_pip(command)), command

"""Rendered notes: scored over each instrument's range, each played from silence, listed in a manifest."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

SCRIPT = Path(__file__).parents[2] / "examples" / "render_notes.py"


class Synth:
    """Sines of the key's frequency and the velocity's amplitude, which ring on for a while when they are cut off."""

    loudest = 0.8

    def __init__(self, samplerate):
        self.rate, self.voices, self.played = samplerate, [], 0

    def sfload(self, path):
        return 7

    def program_select(self, channel, font, bank, program):
        assert (channel, font, bank) == (0, 7, 0)
        self.program = program

    def noteon(self, channel, key, velocity):
        self.played += 1
        self.voices.append([key, self.loudest * velocity / 127 if key < 100 else 0.0, self.rate * 60])

    def noteoff(self, channel, key):
        for voice in self.voices:
            voice[1] /= 2

    def sounds_off(self, channel):
        for voice in self.voices:
            voice[2] = self.rate // 50

    def generate(self, num):
        samples = np.zeros((num, 2), dtype=np.float32)
        for voice in self.voices:
            key, amplitude, left = voice
            span = min(num, left)
            wave = np.sin(2 * np.pi * 440 * 2 ** ((key - 69) / 12) * np.arange(span) / self.rate)
            samples[:span] += (amplitude * wave)[:, None]
            voice[2] -= span
        return memoryview(samples.tobytes())


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setitem(sys.modules, "tinysoundfont", SimpleNamespace(Synth=Synth))
    spec = importlib.util.spec_from_file_location("render_notes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "render_notes", module)  # dataclasses look for their module there
    spec.loader.exec_module(module)
    monkeypatch.setattr(
        module, "FAMILIES", {"piano": "Acoustic Grand 69-70, High Piano 98-103", "effects": "*Seashore 48-50"}
    )
    monkeypatch.setattr(module, "NUM_PROGRAMS", 3)
    return module


@pytest.fixture
def soundfont(tmp_path):
    file = tmp_path / "font.sf2"
    file.write_bytes(b"a soundfont")
    return file


def rows_of(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]


def test_general_midi_is_whole(script, monkeypatch):
    spec = importlib.util.spec_from_file_location("whole_render_notes", SCRIPT)
    whole = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "whole_render_notes", whole)
    spec.loader.exec_module(whole)
    programs = whole.programs()
    assert [program.number for program in programs] == list(range(128))
    assert len(set(Counter(program.family for program in programs).values())) == 1
    assert len({program.family for program in programs}) == 16
    assert all(21 <= program.low < program.high <= 108 for program in programs)
    assert {key for program in programs for key in range(program.low, program.high + 1)} == set(range(21, 109))
    assert sum(program.pitched for program in programs) == 113
    assert len({program.folder for program in programs}) == 128


def test_a_score_covers_the_range_evenly_and_repeats_nothing(script):
    program = script.Program(3, "piano", "Toy Piano", 60, 69, True)
    notes = script.score(program, 64, seed=0)
    assert len(set(notes)) == 64
    assert set(Counter(key for key, _ in notes).values()) == {6, 7}
    for key in range(60, 70):
        velocities = sorted(velocity for own, velocity in notes if own == key)
        assert velocities[0] < 64 < velocities[-1], "soft and loud ones of each key"
    assert notes == script.score(program, 64, seed=0)
    assert notes != script.score(program, 64, seed=1)
    assert [key for key, _ in script.score(program, 5, seed=0)] == [60, 62, 64, 66, 68]
    with pytest.raises(SystemExit, match="10 keys, so at most 960 different notes"):
        script.score(program, 961, seed=0)


def test_the_folder_is_what_the_recipe_reads(tmp_path, script, soundfont, capsys):
    folder = tmp_path / "notes"
    script.main([str(folder), "--soundfont", str(soundfont), "--notes", "6", "--rate", "8000", "--seconds", "0.25"])
    rows = rows_of(folder)
    printed = capsys.readouterr().out
    assert "14 notes" in printed
    assert "4 left out: peak below -60 dBFS" in printed, "the keys from 100 on are silent"
    assert Counter(row["family"] for row in rows) == {"piano": 8, "effects": 6}
    assert {row["pitched"] for row in rows if row["family"] == "effects"} == {False}
    assert rows[0]["path"].startswith("piano/000-acoustic-grand/069-")
    assert rows[0]["caption"].startswith("acoustic grand, A4, ")
    assert rows[-1]["caption"].count(",") == 1, "what has no pitch is not said to have one"
    for row in rows:
        samples, rate = soundfile.read(folder / row["path"])
        assert (len(samples), rate) == (2_000, 8_000)
        assert abs(samples[-1]) < 1e-3, "faded"
        loudest = max(other["velocity"] for other in rows if other["program"] == row["program"])
        held, released = np.abs(samples[200:1_400]).max(), np.abs(samples[1_520:1_800]).max()
        assert held == pytest.approx(0.9 * row["velocity"] / loudest, rel=0.12), "one gain a program"
        assert released == pytest.approx(held / 2, rel=0.05)


def test_a_note_does_not_hang_on_the_one_before(tmp_path, script, soundfont):
    player = script.Player(soundfont, 8_000, 0.25)
    assert player.oversampling == 6
    first = player.play(0, [(69, 100), (50, 127), (69, 100)])
    assert np.array_equal(first[0], first[2])
    alone = script.Player(soundfont, 8_000, 0.25).play(0, [(69, 100)])
    assert np.array_equal(first[0], alone[0])
    spectrum = np.abs(np.fft.rfft(alone[0][:1_600] * np.hanning(1_600)))
    assert np.argmax(spectrum) * 8_000 / 1_600 == pytest.approx(440, abs=5)


def test_what_is_above_half_the_rate_does_not_fold_back(tmp_path, script, soundfont):
    key = 69 + 12 * np.log2(5_000 / 440)  # 5 kHz would be heard at 3 kHz
    player = script.Player(soundfont, 8_000, 0.25)
    inside = np.abs(player.play(0, [(key, 127)])[0][200:1_400]).max()
    assert inside < 0.01


def test_a_stopped_run_goes_on_and_another_one_is_refused(tmp_path, script, soundfont, monkeypatch):
    folder, arguments = tmp_path / "notes", ["--soundfont", str(soundfont), "--rate", "8000", "--seconds", "0.1"]
    whole = script.render_program

    def stopped(folder, player, program, *others):
        if program.number == 1:
            raise KeyboardInterrupt
        return whole(folder, player, program, *others)

    monkeypatch.setattr(script, "render_program", stopped)
    with pytest.raises(KeyboardInterrupt):
        script.main([str(folder), *arguments, "--notes", "4"])
    assert not (folder / "manifest.jsonl").exists()
    made = []
    monkeypatch.setattr(script, "render_program", lambda *given: made.append(given[2].number) or whole(*given))
    script.main([str(folder), *arguments, "--notes", "4"])
    assert made == [1, 2]
    assert len({row["program"] for row in rows_of(folder)}) == 3
    with pytest.raises(SystemExit, match=r"was begun with another notes 4, now 5.*choose another folder"):
        script.main([str(folder), *arguments, "--notes", "5"])


def test_what_is_missing_is_named_with_its_remedy(tmp_path, script, soundfont, monkeypatch):
    with pytest.raises(SystemExit, match=r"none.sf2: no such file; Debian: apt-get install fluid-soundfont-gm"):
        script.main([str(tmp_path / "n"), "--soundfont", str(tmp_path / "none.sf2")])
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)
    with pytest.raises(SystemExit, match="pip install --no-deps tinysoundfont"):
        script.main([str(tmp_path / "n"), "--soundfont", str(soundfont)])

"""Recorded voices: decoded, with their texts, without what is no speech, listed in a manifest."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

SCRIPT = Path(__file__).parents[2] / "examples" / "collect_voices.py"
LANGUAGES = ("en", "es", "fr", "it", "ru")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("collect_voices", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "collect_voices", module)  # dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


def write_g722(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16_000, layout="mono")
        for start in range(0, len(samples), 320):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 320], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture
def root(tmp_path):
    """The packages' files of five languages: two prompts each, a tone, silence, and an empty file in one of them."""
    root = tmp_path / "root"
    wave = (8_000 * np.sin(2 * np.pi * 300 * np.arange(8_000) / 16_000)).astype(np.int16)
    for language in LANGUAGES:
        sounds = root / "usr/share/asterisk/sounds" / language
        for prompt in ("added", "digits/1", "beep", "silence/2"):
            write_g722(sounds / f"{prompt}.g722", wave)
        texts = root / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
        texts.parent.mkdir(parents=True)
        listed = f"\ufeff; Core sounds\n\nadded: Added [now]  in {language}.:\nbeep: [a tone]\ndigits/1:\n"
        texts.write_bytes(gzip.compress(listed.encode()))
    (sounds / "empty.g722").write_bytes(b"")
    return root


def test_the_folder_is_what_the_recipe_reads(tmp_path, script, root, capsys):
    folder = tmp_path / "voices"
    script.main([str(folder), "--root", str(root)])
    captured = capsys.readouterr()
    assert "10 left out: no speech" in captured.out
    assert "empty.g722" in captured.err
    assert "10 recordings, 0 minutes" in captured.out
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]
    assert [row["voice"] for row in rows[::2]] == ["english", "spanish", "french", "italian", "russian"]
    assert rows[0] == {
        "path": "english/added.wav",
        "voice": "english",
        "language": "en",
        "speaker": "Allison Smith",
        "prompt": "added",
        "seconds": 0.5,
        "caption": "Added in en.",
    }
    assert rows[1]["path"] == "english/digits/1.wav"
    assert "caption" not in rows[1], "its text is not told"
    samples, rate = soundfile.read(folder / rows[1]["path"])
    assert (len(samples), rate) == (8_000, 16_000)
    spectrum = np.abs(np.fft.rfft(samples[:1_600] * np.hanning(1_600)))
    assert np.argmax(spectrum) * 10 == 300
    assert np.abs(samples).max() == pytest.approx(8_000 / 32_768, rel=0.1)
    attribution = (folder / "ATTRIBUTION.txt").read_text("utf-8")
    assert "french/: spoken by June Wallack; CC-BY-SA-3.0" in attribution
    assert "italian/: spoken by Carlo Flora; CC-BY-3.0" in attribution


def test_a_missing_voice_is_named_with_its_packages(tmp_path, script, root):
    for path in (root / "usr/share/asterisk/sounds/fr").rglob("*.g722"):
        path.unlink()
    with pytest.raises(SystemExit, match="apt-get install asterisk-core-sounds-fr asterisk-core-sounds-fr-g722"):
        script.main([str(tmp_path / "voices"), "--root", str(root)])

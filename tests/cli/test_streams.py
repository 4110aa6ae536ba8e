"""Standard streams that are closed, full, read by nobody or of another encoding end no command with a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.training.small import SMALL

NOISE = ("Traceback", "Exception ignored", "UnicodeEncodeError")


def run(words: str, environment: dict[str, str] | None = None, **streams: object) -> subprocess.CompletedProcess:
    """A shell line in which COMMAND is ours."""
    own = f"'{sys.executable}' -m scm_media"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", words.replace("COMMAND", own)],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        **streams,  # type: ignore[call-overload]
    )


ENCODINGS = [
    pytest.param({"PYTHONIOENCODING": "ascii"}, marks=pytest.mark.slow),
    pytest.param({"PYTHONIOENCODING": "latin-1"}, marks=pytest.mark.slow),
    pytest.param({"PYTHONIOENCODING": "cp1252"}, marks=pytest.mark.slow),
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.mark.parametrize("environment", ENCODINGS, ids=lambda each: next(iter(each.items()))[1])
def test_what_an_encoding_cannot_say_is_escaped(model, tmp_path, environment):
    out = tmp_path / "日本 é"
    done = run(f"COMMAND generate '{model}' --device cpu --out '{out}'", environment)
    assert done.returncode == 0
    assert not any(word.encode() in done.stdout + done.stderr for word in NOISE)
    assert len(list(out.iterdir())) == 1
    assert done.stdout.count(b"\n") == 1
    done = run("COMMAND train 'image/日本 é'", environment)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1


def test_json_is_the_same_in_any_encoding(model, tmp_path):
    out = tmp_path / "日本 é"
    done = run(f"COMMAND generate '{model}' --json --device cpu --out '{out}'", {"PYTHONIOENCODING": "ascii"})
    assert json.loads(done.stdout)["samples"][0]["path"].startswith(str(out))


@pytest.mark.parametrize(
    ("streams", "code"),
    [
        (">&-", 0),
        ("2>&-", 0),
        (">&- 2>&- <&-", 0),
        ("2>/dev/full", 0),
        (">/dev/full", 1),
        ("| true", 1),
        ("2>&1 | true", 1),
    ],
)
def test_a_stream_that_is_closed_full_or_read_by_nobody(streams, code):
    done = run(f"COMMAND recipes --reference {streams}")
    assert done.returncode == code
    said = (done.stdout + done.stderr).decode()
    assert not any(word in said for word in NOISE)
    assert ("No space left on device" in said) == (streams == ">/dev/full")


@pytest.mark.slow
def test_what_is_told_with_standard_error_closed_does_not_go_to_standard_output(model, tmp_path):
    done = run(f"COMMAND generate '{model}' --json --device cpu --out '{tmp_path}' 2>&-")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["samples"]) == 1


def test_a_file_is_not_opened_in_the_place_of_a_closed_stream(tmp_path):
    program = (
        "import os, sys; from scm_media.cli.streams import secure_streams; secure_streams(); "
        f"file = open({str(tmp_path / 'file')!r}, 'w'); assert file.fileno() > 2; "
        "os.write(1, b'x'); os.write(2, b'x'); "
        "print('y'); print('y', file=sys.stderr); file.write('mine')"
    )
    done = run(f"'{sys.executable}' -c \"{program}\" >&- 2>&- <&-")
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_a_training_goes_on_when_its_terminal_is_gone(tmp_path):
    done = run(f"COMMAND train image/tiny {' '.join(SMALL)} run_dir={tmp_path}/run 2> >(true)")
    assert done.returncode == 0
    assert (tmp_path / "run" / "student" / "weights.safetensors").is_file()

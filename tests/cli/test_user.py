"""Users whom the system has no name for, as in ``docker run --user 12345``, train and measure speed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from scm_media.compiler import ensure_user_name
from tests.training.small import SMALL

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME", "TORCHINDUCTOR_CACHE_DIR")


@pytest.mark.slow
@pytest.mark.parametrize(("command", "home"), [("train", None), ("bench", "/nonexistent")])
def test_a_command_needs_no_name_of_the_user(tmp_path, command, home):
    """The system's list of users is emptied in the process, as a container has it: root is not needed for that."""
    rest = [f"run_dir={tmp_path}/run"] if command == "train" else ["--repeats", "1", "--batch-size", "2"]
    program = textwrap.dedent(f"""
        import pwd, sys
        def unknown(uid):
            raise KeyError(f"getpwuid(): uid not found: {{uid}}")
        pwd.getpwuid = unknown
        import getpass
        try:
            getpass.getuser()
        except (KeyError, OSError):
            pass
        else:
            sys.exit("the user has a name after all")
        from scm_media.cli import main
        sys.exit(main({[command, "image/tiny", *SMALL, *rest]!r}))
    """)
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment |= {"TMPDIR": str(tmp_path)} | ({} if home is None else {"HOME": home})
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if command == "train":
        assert (tmp_path / "run" / "student" / "weights.safetensors").is_file()


def test_a_user_without_a_name_gets_one(monkeypatch):
    def unknown():
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", unknown)
    monkeypatch.setenv("LOGNAME", "")
    ensure_user_name()
    assert os.environ["LOGNAME"] == f"uid{os.getuid()}"
    monkeypatch.setattr("getpass.getuser", lambda: "me")
    monkeypatch.setenv("LOGNAME", "me")
    ensure_user_name()
    assert os.environ["LOGNAME"] == "me"

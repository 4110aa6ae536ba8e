"""The settings of the server are checked, and the command takes them."""

from __future__ import annotations

import os
import signal
import socket
import threading

import gradio as gr
import pytest

from scm_media.app.context import App
from scm_media.app.folders import Folders
from scm_media.app.server import build, running, serve
from scm_media.app.settings import BUNDLED, ServerSettings, is_local
from scm_media.cli import app as command
from scm_media.pipeline import bundled_names
from tests.app.client import Client


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_this_computers_own_addresses_need_no_password(host: str) -> None:
    assert is_local(host)
    assert ServerSettings(host=host).password is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "my-machine", "127.0.0.1.example.org"])
def test_the_network_needs_a_password(host: str) -> None:
    assert not is_local(host)
    with pytest.raises(
        ValueError, match=r"--host .* needs a password: set the environment variable SCM_MEDIA_PASSWORD"
    ):
        ServerSettings(host=host)
    assert ServerSettings(host=host, password="long enough").password == "long enough"


def test_short_passwords_are_refused() -> None:
    with pytest.raises(ValueError, match="has 7 characters; give at least 8"):
        ServerSettings(password="1234567")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"port": 0}, "--port must be at least 1, got 0"),
        ({"port": 70000}, "--port must be at most 65535"),
        ({"max_upload": 0.0}, "--max-upload must be at least 0.001"),
        ({"max_upload": float("nan")}, "--max-upload must be finite"),
        ({"queue": 0}, "--queue must be at least 1"),
        ({"most": 0}, "--most must be at least 1"),
        ({"models": ("image/fashion", "image/fashion")}, "named twice"),
    ],
)
def test_numbers_out_of_range_name_their_flag(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServerSettings(**given)


def test_bundled_models_exist() -> None:
    assert set(BUNDLED) == set(bundled_names())


def test_the_command_says_how_to_get_gradio(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'scm-media\[app\]'"):
        command.run([])


def test_the_command_refuses_the_network_without_a_password(monkeypatch) -> None:
    monkeypatch.delenv("SCM_MEDIA_PASSWORD", raising=False)
    with pytest.raises(ValueError, match="lets other computers in"):
        command.run(["--host", "0.0.0.0"])


def test_the_command_takes_the_password_of_the_environment(monkeypatch) -> None:
    taken = []
    monkeypatch.setenv("SCM_MEDIA_PASSWORD", "from outside")
    monkeypatch.setattr("scm_media.app.server.serve", taken.append)
    assert command.run(["image/fashion", "--host", "0.0.0.0", "--max-upload", "5"]) == 0
    (settings,) = taken
    assert (settings.password, settings.models, settings.max_upload) == ("from outside", ("image/fashion",), 5)


def test_a_terminated_server_deletes_its_files_and_says_where_it_was(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # set back afterwards
    seen = []

    def look(folders: Folders) -> None:
        (folders.folder("someone") / "x.png").write_bytes(b"x")
        seen.append(folders.root)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(
        App, "__init__", _then(App.__init__, lambda app: threading.Timer(4, look, [app.folders]).start())
    )
    before = signal.getsignal(signal.SIGTERM)
    serve(ServerSettings(models=("image/fashion",), out=tmp_path, device="cpu"))
    assert len(seen) == 1 and seen[0].parent == tmp_path and not seen[0].exists()
    assert signal.getsignal(signal.SIGTERM) == before
    assert "for this computer alone; Ctrl-C ends it" in capsys.readouterr().out


def _then(first, second):
    def both(self, *arguments) -> None:
        first(self, *arguments)
        second(self)

    return both


def test_a_page_of_one_sample_at_a_time_is_built(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # building a page sets it
    app = App(ServerSettings(models=("image/fashion",), most=1, device="cpu", out=tmp_path))
    try:
        sliders = [each for each in build(app).blocks.values() if isinstance(each, gr.Slider)]
    finally:
        app.close()
    (num,) = [each for each in sliders if each.label == "Number of samples"]
    assert num.value == 1 and not num.interactive


def test_files_are_served_from_a_folder_of_any_name(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # building a page sets it
    place = tmp_path / "my #1 folder? 100%"
    with running(ServerSettings(models=("image/fashion",), device="cpu", out=place)) as server:
        client = Client(server.url.rstrip("/"))
        (record,) = client.generate(model="image/fashion", seed=1, steps="1")
        status, content = client.fetch(record["url"])
        assert (status, content[1:4]) == (200, b"PNG")


def test_a_port_that_is_taken_gives_the_signals_back(monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # building a page sets it
    before = signal.getsignal(signal.SIGTERM)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port {port}: .*choose another one"):
            serve(ServerSettings(models=("image/fashion",), device="cpu", port=port))
    assert signal.getsignal(signal.SIGTERM) == before

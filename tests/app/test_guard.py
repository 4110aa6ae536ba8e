"""The guard refuses what must never reach Gradio."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scm_media.app.guard import KEPT_FREE, LOGIN_SECONDS, SMALL_BODY, Guard
from scm_media.app.settings import MEGABYTE


class Recorder:
    """Stands for the application: notes what it is asked for, and answers with a status."""

    def __init__(self, status: int = 200) -> None:
        self.asked: list[str] = []
        self.status = status

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def ask(guard: Guard, path: str, method: str = "GET", body: bytes = b"", **named: str) -> dict[str, Any]:
    """Returns the first message of the answer; named: headers, with _ for -."""
    messages: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()]
    asyncio.run(guard({"type": "http", "path": path, "method": method, "headers": headers}, receive, send))
    return messages[0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "results").mkdir(parents=True)
    (tmp_path / "root" / "results" / "x.png").write_bytes(b"x")
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "rootless").mkdir()
    return (tmp_path / "root").resolve()


@pytest.mark.parametrize("route", ["/gradio_api/file=", "/file=", "/gradio_api/file/"])
@pytest.mark.parametrize(
    "path",
    [
        "{root}/../secret",
        "{root}/results/../../secret",
        "{root}/%2e%2e/secret",
        "{root}/%252e%252e/secret",
        "{root}/link",
        "{root}less/x",
        "{root}",
        "results/x.png",
        "/etc/passwd",
        "http://example.org/x.png",
        "file://{root}/results/x.png",
        "{root}/results/\0x.png",
    ],
)
def test_paths_outside_the_root_are_refused(root: Path, route: str, path: str) -> None:
    recorder = Recorder()
    assert ask(Guard(recorder, root), f"{route}{path.format(root=root)}")["status"] == 403
    assert recorder.asked == []


def test_files_below_the_root_and_other_pages_pass_with_headers(root: Path) -> None:
    recorder = Recorder()
    for path in (f"/gradio_api/file={root}/results/x.png", "/", "/gradio_api/queue/join", "/config"):
        answer = ask(Guard(recorder, root), path)
        assert answer["status"] == 200
        assert dict(answer["headers"])[b"content-security-policy"].startswith(b"default-src 'self'; ")
        assert dict(answer["headers"])[b"x-content-type-options"] == b"nosniff"
    assert len(recorder.asked) == 4


@pytest.mark.parametrize("path", ["/gradio_api/proxy=https://example.org", "/monitoring/summary", "/gradio_api/runs"])
def test_routes_without_use_are_refused(root: Path, path: str) -> None:
    recorder = Recorder()
    assert ask(Guard(recorder, root), path)["status"] == 403 and recorder.asked == []


def test_bodies_are_as_small_as_what_they_are_for(root: Path) -> None:
    recorder = Recorder()
    guard = Guard(recorder, root, max_upload=5 * MEGABYTE)
    for path in ("/login", "/gradio_api/queue/join", "/gradio_api/call/v2/generate", "/gradio_api/cancel"):
        assert ask(guard, path, "POST", content_length=str(SMALL_BODY + 1))["status"] == 413
        assert ask(guard, path, "POST", transfer_encoding="chunked")["status"] == 411
        assert ask(guard, path, "POST", content_length="20")["status"] == 200
    for path in ("/gradio_api/upload", "/gradio_api/component_server/"):
        assert ask(guard, path, "POST", content_length=str(5 * MEGABYTE))["status"] == 200
        assert ask(guard, path, "POST", content_length=str(6 * MEGABYTE + 1))["status"] == 413
    assert len(recorder.asked) == 6


def test_uploads_leave_a_part_of_the_disk_free(root: Path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=KEPT_FREE + 100))
    guard = Guard(Recorder(), root)
    assert ask(guard, "/gradio_api/upload", "POST", content_length="100")["status"] == 200
    assert ask(guard, "/gradio_api/upload", "POST", content_length="101")["status"] == 507
    assert ask(guard, "/gradio_api/queue/join", "POST", content_length="101")["status"] == 200


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200)])
def test_pages_of_others_may_link_here_and_do_no_more(root: Path, site: str, status: int) -> None:
    guard = Guard(Recorder(), root)
    assert ask(guard, "/gradio_api/upload", "POST", sec_fetch_site=site)["status"] == status
    assert ask(guard, "/", sec_fetch_site=site)["status"] == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7860", 200),
        ("localhost:7860", 200),
        ("[::1]:7860", 200),
        ("example.org:7860", 403),
        ("127.0.0.1.example.org", 403),
        ("[", 403),
        ("", 403),
    ],
)
def test_without_a_password_no_other_name_leads_here(root: Path, host: str, status: int) -> None:
    assert ask(Guard(Recorder(), root, local=True), "/config", host=host)["status"] == status
    assert ask(Guard(Recorder(), root), "/config", host=host)["status"] == 200


def test_a_body_that_does_not_come_keeps_nobody_from_logging_in(root: Path, monkeypatch) -> None:
    monkeypatch.setattr("scm_media.app.guard.BODY_SECONDS", 0.5)
    statuses: list[int] = []

    async def log_in(guard: Guard, comes: bool) -> None:
        async def receive() -> dict[str, Any]:
            if not comes:
                await asyncio.sleep(60)
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await guard({"type": "http", "path": "/login", "method": "POST"}, receive, send)

    async def both() -> None:
        guard = Guard(Recorder(), root)
        await asyncio.gather(log_in(guard, False), log_in(guard, True))
        assert guard._logins == {}

    asyncio.run(both())
    assert statuses == [200, 408]


def test_the_application_gets_the_whole_body(root: Path) -> None:
    parts = iter([(b"user", True), (b"name=", True), (b"me", False)])
    got: list[Any] = []

    async def receive() -> dict[str, Any]:
        part = next(parts, None)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part[0], "more_body": part[1]}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        got.extend([await receive(), await receive()])

    asyncio.run(Guard(application, root)({"type": "http", "path": "/login", "method": "POST"}, receive, None))
    assert (got[0]["body"], got[1]["type"]) == (b"username=me", "http.disconnect")


def test_wrong_passwords_take_a_second_one_after_another_from_each_address(root: Path) -> None:
    waited: list[float] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def two(guard: Guard, addresses: tuple[str, str] = ("a", "a")) -> None:
        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                waited.append(asyncio.get_running_loop().time() - begun)

        begun = asyncio.get_running_loop().time()
        scope = {"type": "http", "path": "/login", "method": "POST"}
        await asyncio.gather(*(guard({**scope, "client": (each, 1)}, receive, send) for each in addresses))
        assert guard._logins == {}

    asyncio.run(two(Guard(Recorder(400), root)))
    assert waited[0] >= LOGIN_SECONDS and waited[1] >= 2 * LOGIN_SECONDS
    waited.clear()
    asyncio.run(two(Guard(Recorder(400), root), ("a", "b")))
    assert LOGIN_SECONDS <= max(waited) < 2 * LOGIN_SECONDS
    waited.clear()
    asyncio.run(two(Guard(Recorder(200), root)))
    assert max(waited) < LOGIN_SECONDS

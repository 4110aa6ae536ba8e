"""What never reaches Gradio."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from scm_media.app.guard import LOGIN_SECONDS, Guard


class Recorder:
    """Stands for the application: notes what it is asked for, and answers with a status."""

    def __init__(self, status: int = 200) -> None:
        self.asked: list[str] = []
        self.status = status

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def ask(guard: Guard, path: str, method: str = "GET") -> dict[str, Any]:
    """Returns the first message of the answer."""
    messages: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    asyncio.run(guard({"type": "http", "path": path, "method": method}, None, send))
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


def test_wrong_passwords_take_a_second_one_after_another(root: Path) -> None:
    waited: list[float] = []

    async def two(guard: Guard) -> None:
        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                waited.append(asyncio.get_running_loop().time() - begun)

        begun = asyncio.get_running_loop().time()
        scope = {"type": "http", "path": "/login", "method": "POST"}
        await asyncio.gather(*(guard(scope, None, send) for _ in range(2)))

    asyncio.run(two(Guard(Recorder(400), root)))
    assert waited[0] >= LOGIN_SECONDS and waited[1] >= 2 * LOGIN_SECONDS
    waited.clear()
    asyncio.run(two(Guard(Recorder(200), root)))
    assert max(waited) < LOGIN_SECONDS

"""Stands before Gradio: no file outside the server's folder, no address of others, passwords one at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import unquote

FILE_ROUTES = ("/file=", "/file/")
FORBIDDEN_ROUTES = ("/proxy=", "/deep_link", "/monitoring", "/vibe", "/runs")
"""Routes of Gradio that this app has no use for: addresses of other servers, stored pages, histories."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""What pages may load: only what this server sends."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
LOGIN_SECONDS = 1.0
"""How long a wrong password takes."""


class Guard:
    """Checks each request before the application gets it, and adds headers to each answer.

    root: the folder of all private folders and uploads.
    """

    def __init__(self, app: Any, root: Path) -> None:
        self.app, self.root = app, root
        self._login = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        if self._is_forbidden(path):
            await _refuse(send, 403, b'{"detail":"this address is not served"}')
            return
        if path.rstrip("/") == "/login" and scope["method"] == "POST":
            async with self._login:
                await self.app(scope, receive, _slow_if_refused(_with_headers(send)))
            return
        await self.app(scope, receive, _with_headers(send))

    def _is_forbidden(self, path: str) -> bool:
        below = path.removeprefix("/gradio_api")
        if below.startswith(FORBIDDEN_ROUTES):
            return True
        route = next((each for each in FILE_ROUTES if below.startswith(each)), None)
        if route is None:
            return False
        asked = below.removeprefix(route)
        return not all(self._is_inside(text) for text in {asked, unquote(asked), unquote(unquote(asked))})

    def _is_inside(self, text: str) -> bool:
        if "\0" in text or not text.startswith("/"):
            return False
        try:
            path = Path(text).resolve()
        except (OSError, RuntimeError):
            return False
        return path != self.root and path.is_relative_to(self.root)


def _with_headers(send: Any) -> Any:
    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message.get("headers", ()),
                *((name.encode(), value.encode()) for name, value in HEADERS.items()),
            ]
        await send(message)

    return sent


def _slow_if_refused(send: Any) -> Any:
    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            await asyncio.sleep(LOGIN_SECONDS)
        await send(message)

    return sent


async def _refuse(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json")]
    await _with_headers(send)({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

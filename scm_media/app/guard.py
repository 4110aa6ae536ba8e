"""Stands before Gradio: no file outside the folder, no page of others, no endless body, and slow wrong passwords."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from scm_media.app.settings import MEGABYTE, ServerSettings, is_local

FILE_ROUTES = ("/file=", "/file/")
FORBIDDEN_ROUTES = ("/proxy=", "/deep_link", "/monitoring", "/vibe", "/runs", "/process_recording", "/stream/")
"""This app has no use for these routes: addresses of other servers, stored pages, histories, recordings."""
UPLOAD_ROUTES = ("/upload", "/component_server")
"""These routes take files, and the drawings of the edit tab; the bodies of all others are small."""
SMALL_BODY = MEGABYTE
"""A body without a file has at most so many bytes: it is read before the password, so it may be a stranger's."""
BODY_SECONDS = 20.0
"""A small body may take so long to come."""
KEPT_FREE = 1000 * MEGABYTE
"""Uploads leave so many bytes of the disk free."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""Pages may load only what this server sends."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
LOGIN_SECONDS = 1.0
"""A wrong password takes so long."""


class Guard:
    """Checks each request before the application gets it, and adds headers to each answer.

    root: the folder of all private folders and uploads. max_upload: size of an upload in bytes at most. local: only
    requests for an address of this computer are answered, since a page of others can let its own name point here.
    """

    def __init__(
        self, app: Any, root: Path, max_upload: int = ServerSettings().upload_bytes, local: bool = False
    ) -> None:
        self.app, self.root, self.max_upload, self.local = app, root, max_upload, local
        self._logins: dict[str, tuple[asyncio.Lock, int]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refused = self._find_refusal(scope)
        if refused is not None:
            await _refuse(send, *refused)
            return
        if not self._takes_files(scope) and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            try:
                receive = await _read_ahead(receive)
            except TimeoutError:
                await _refuse(send, 408, "the request did not come to its end in time")
                return
        if scope["path"].rstrip("/") == "/login" and scope["method"] == "POST":
            async with self._turn(str((scope.get("client") or [""])[0])):
                await self.app(scope, receive, _slow_if_refused(_with_headers(send)))
            return
        await self.app(scope, receive, _with_headers(send))

    def _find_refusal(self, scope: Any) -> tuple[int, str] | None:
        """Returns the status and the words with which a request is refused; None for one that may pass."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope.get("headers", ())}
        if self._is_forbidden(scope["path"]):
            return 403, "this address is not served"
        if self.local and not is_local(_host_of(headers.get(b"host", ""))):
            return 403, "without a password the app answers requests for 127.0.0.1 and localhost alone"
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        if headers.get(b"sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403, "pages of other addresses may not use the app"
        if b"transfer-encoding" in headers:
            return 411, "the request must say how long it is (Content-Length)"
        length, uploads = int(headers.get(b"content-length", "0")), self._takes_files(scope)
        most = self.max_upload + SMALL_BODY if uploads else SMALL_BODY
        if length > most:
            return 413, f"the request is larger than {most / MEGABYTE:g} MB"
        if uploads and shutil.disk_usage(self.root).free < length + KEPT_FREE:
            return 507, "the server's disk is nearly full, so it takes no files now"
        return None

    def _takes_files(self, scope: Any) -> bool:
        return scope["path"].removeprefix("/gradio_api").rstrip("/") in UPLOAD_ROUTES

    @asynccontextmanager
    async def _turn(self, address: str) -> AsyncIterator[None]:
        """Lets one attempt of an address to log in follow another; those of other addresses do not wait for it."""
        lock, waiting = self._logins.get(address, (asyncio.Lock(), 0))
        self._logins[address] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            waiting = self._logins[address][1] - 1
            if waiting:
                self._logins[address] = lock, waiting
            else:
                del self._logins[address]

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


def _host_of(address: str) -> str:
    """Returns the host of ``host:port``; "" for anything that is written otherwise."""
    try:
        return urlsplit(f"//{address}").hostname or ""
    except ValueError:
        return ""


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


async def _read_ahead(receive: Any) -> Any:
    """Returns a ``receive`` whose body has come already; raises TimeoutError for one that is too slow."""
    parts: list[bytes] = []
    async with asyncio.timeout(BODY_SECONDS):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                break
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                message = {"type": "http.request", "body": b"".join(parts), "more_body": False}
                break
    waiting = [message]

    async def received() -> Any:
        return waiting.pop() if waiting else await receive()

    return received


async def _refuse(send: Any, status: int, words: str) -> None:
    headers = [(b"content-type", b"application/json")]
    await _with_headers(send)({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": words}).encode()})

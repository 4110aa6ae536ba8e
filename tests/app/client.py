"""Speaks HTTP to a server as programs do, with the standard library alone."""

from __future__ import annotations

import http.cookiejar
import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Client:
    """This is one user, with cookies of their own."""

    url: str
    opener: urllib.request.OpenerDirector = field(init=False)

    def __post_init__(self) -> None:
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(jar, urllib.request.ProxyHandler({}))

    def fetch(self, path: str, body: bytes | None = None, kind: str = "application/json") -> tuple[int, bytes]:
        """Returns status and body of a GET, or of a POST with a body."""
        headers = {} if body is None else {"Content-Type": kind}
        request = urllib.request.Request(f"{self.url}{path}", body, headers)
        try:
            with self.opener.open(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def call(self, endpoint: str, **values: Any) -> tuple[str, Any]:
        """Returns the last event of an endpoint, ``complete`` or ``error``, and its data."""
        status, body = self.fetch(f"/gradio_api/call/v2/{endpoint}", json.dumps(values).encode())
        assert status == 200, body
        number = json.loads(body)["event_id"]
        _, events = self.fetch(f"/gradio_api/call/v2/{endpoint}/{number}")
        name, data = events.decode().strip().split("\n\n")[-1].split("\n")
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    def generate(self, **values: Any) -> list[dict[str, Any]]:
        """Returns the records of what was made, with addresses."""
        name, data = self.call("generate", **values)
        assert name == "complete", data
        return data[0]

    def upload(self, name: str, content: bytes) -> tuple[int, bytes]:
        """Returns status and body of the upload of a file."""
        edge = "edge-of-parts"
        head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{edge}--\r\n".encode()
        return self.fetch("/gradio_api/upload", body, f"multipart/form-data; boundary={edge}")

    def login(self, password: str) -> int:
        """Returns the status of an attempt to log in."""
        body = f"username=someone&password={password}".encode()
        return self.fetch("/login", body, "application/x-www-form-urlencoded")[0]

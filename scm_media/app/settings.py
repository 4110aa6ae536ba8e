"""This module checks the settings of the app's server before anything is opened."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from scm_media.bounds import Bounds

BUNDLED = ("image/fashion", "image/emoji-text", "audio/notes", "audio/notes-text", "video/scenes")
"""These models are opened where none are named."""
PASSWORD_VARIABLE = "SCM_MEDIA_PASSWORD"
SHORTEST_PASSWORD = 8
MEGABYTE = 1_000_000
MADE_AT_FIRST = 4
"""The page begins with this number of samples, or with the most that one request may ask for."""
PORTS = Bounds(1, 65535, whole=True)
UPLOADS = Bounds(0.001, 10_000)
QUEUES = Bounds(1, 10_000, whole=True)
SAMPLES = Bounds(1, 1024, whole=True)


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """This holds the flags of ``scm-media app``, and raises ValueError, naming the flag, for a value it cannot use."""

    models: tuple[str, ...] = BUNDLED
    """The page offers these: bundled names, run folders, model folders and files."""
    host: str = "127.0.0.1"
    """The server listens on this address; any other than this computer's own needs a password."""
    port: int | None = None
    """None stands for 7860, or the next one that is free."""
    password: str | None = None
    """Visitors give it before anything is shown; with None nobody is asked."""
    max_upload: float = 32.0
    """An uploaded file has at most so many megabytes."""
    queue: int = 32
    """At most so many requests wait; further ones are refused with a message."""
    most: int = 16
    """One request may ask for so many samples."""
    out: Path | None = None
    """The private folders of sessions are made here; None stands for the system's folder for temporary files."""
    runs: Path | None = None
    """Trainings below this folder are shown; with None there are none."""
    device: str = "auto"
    precision: str = "float32"

    @property
    def upload_bytes(self) -> int:
        """Returns the size of an uploaded file at most, in bytes."""
        return int(self.max_upload * MEGABYTE)

    @property
    def made_at_first(self) -> int:
        """Returns how many samples the page asks for until the user chooses another number."""
        return min(MADE_AT_FIRST, self.most)

    def __post_init__(self) -> None:
        ranges = {"port": PORTS, "max_upload": UPLOADS, "queue": QUEUES, "most": SAMPLES}
        for name, bounds in ranges.items():
            value = getattr(self, name)
            if value is not None and (expected := bounds.complaint(value)) is not None:
                raise ValueError(f"--{name.replace('_', '-')} must be {expected}, got {value}")
        if self.runs is not None and not self.runs.is_dir():
            raise ValueError(f"--runs {self.runs} is no folder: name the one that trainings write to, such as runs")
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"a model is named twice: {', '.join(self.models)}")
        if self.password is not None and len(self.password) < SHORTEST_PASSWORD:
            raise ValueError(f"the password has {len(self.password)} characters; give at least {SHORTEST_PASSWORD}")
        if self.password is None and not is_local(self.host):
            raise ValueError(
                f"--host {self.host} lets other computers in, which needs a password: set the environment variable "
                f"{PASSWORD_VARIABLE} (or --password, which others on this computer can see), or leave --host out"
            )


def is_local(host: str) -> bool:
    """Returns whether only programs of this computer reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

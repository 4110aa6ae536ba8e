"""This module holds what all tabs share: the models, the jobs, and the private folders of sessions."""

from __future__ import annotations

import html
import secrets
from pathlib import Path
from urllib.parse import quote

import gradio as gr

from scm_media.app.folders import Folders
from scm_media.app.jobs import Jobs
from scm_media.app.models import Models
from scm_media.app.settings import ServerSettings


class App:
    """This is the state of the server; ``close`` deletes all files of all sessions."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.models = Models(settings.models, settings.device, settings.precision)
        self.folders = Folders(settings.out)
        self.jobs = Jobs()

    def folder(self, request: gr.Request) -> Path:
        """Returns the private folder of a session, whose files are deleted when its page is closed."""
        return self.folders.folder(session_of(request))

    def claim(self, request: gr.Request, file: str | Path) -> Path:
        """Returns the path of a file that the session uploaded; it is deleted when the session's page is closed.

        Raises ValueError for a path that is no upload.
        """
        path = Path(file)
        self.folders.claim(session_of(request), path)
        return path

    def url(self, file: Path) -> str:
        """Returns the address of a file in a private folder, relative to the page."""
        return f"gradio_api/file={quote(str(file), safe='/=+,')}"

    def say(self, text: str, title: str = "Done", refused: bool = False) -> None:
        """Shows a short message on the page until it is closed; called by a handler.

        refused: what the user wanted was not done.
        """
        show = gr.Warning if refused else gr.Info
        show(html.escape(text, quote=False), duration=None if refused else 10, title=title)

    def close(self) -> None:
        """Deletes all files of all sessions."""
        self.folders.close()


def session_of(request: gr.Request) -> str:
    """Returns what names a session: a page that is open, or one call of the REST interface.

    A call that comes without a name gets one: users without names would share a folder, and guess the files in it.
    """
    if not request.session_hash:
        request.session_hash = f"call-{secrets.token_urlsafe(24)}"
    return str(request.session_hash)

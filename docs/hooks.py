"""Changes the pages on their way into the site; on Git hosting they are read as they are."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

DOCS = Path(__file__).parent
FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
LIST_AFTER_TEXT = re.compile(r"^(?![-*] |\d+\. |\s|$)(.+\n)(?=[-*] )", re.MULTILINE)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Returns a page's Markdown with what only Git hosting reads put into words.

    Links to files outside of ``docs/``, which are no part of the site, become the file's name; a list right below a
    line of text gets the empty line that Python-Markdown asks for; comments, which are for tests, go.
    """
    parts = FENCE.split(markdown)
    parts[::2] = [_outside_of_fences(part, PurePosixPath(page.file.src_uri).parent) for part in parts[::2]]
    return "".join(parts)


def _outside_of_fences(text: str, folder: PurePosixPath) -> str:
    text = LINK.sub(lambda link: named(link, folder), COMMENT.sub("", text))
    return LIST_AFTER_TEXT.sub(r"\1\n", text)


def named(link: re.Match[str], folder: PurePosixPath) -> str:
    """Returns a link as it is, or the name of its file where that lies in the repository outside of ``docs/``."""
    picture, text, target, _ = link.groups()
    if picture or re.match(r"\w+:", target):
        return link[0]
    path = (DOCS / folder / target).resolve()
    if path.is_relative_to(DOCS) or not path.exists():  # mkdocs itself complains of what is nowhere
        return link[0]
    file = path.relative_to(DOCS.parent).as_posix()
    words = text.strip("`").removeprefix("../")
    return f"`{file}`" if file.endswith(words) else f"{text} (`{file}`)"

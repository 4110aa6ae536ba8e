"""This module writes results as files with their settings inside, and shows them on the page."""

from __future__ import annotations

import html
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from scm_media.pipeline import Pipeline
from scm_media.pipeline.records import sample_file_name

KEPT_RESULTS = 256
"""So many results stay in a folder; a request for more keeps all of its own."""

Address = Callable[[Path], str]
"""A function of this type returns the address of a file, relative to the page."""


@dataclass(frozen=True)
class Result:
    """This is a sample as a file. view: a picture of a sound, its outline and mel spectrogram; else None."""

    file: Path
    record: Mapping[str, Any]
    view: Path | None = None
    remark: str | None = None

    @property
    def words(self) -> str:
        """Returns label and text of the sample."""
        parts = (self.record.get("label"), self.record.get("prompt"))
        return ", ".join(str(part) for part in parts if part)

    @property
    def number(self) -> str:
        """Returns what the sample's noise follows from."""
        text = f"seed {self.record['seed']}"
        if self.record["index"]:
            text += f", sample {self.record['index']}"
        if walk := self.record.get("walk"):
            text += f", {walk[1]:.0%} of the way to seed {walk[0]}"
        return text


def write_result(pipeline: Pipeline, folder: Path, sample: Tensor, record: Mapping[str, Any]) -> Result:
    """Writes a sample ``(C, *S)`` with its record into a new folder of its own below ``folder``."""
    number = max((int(each.name) for each in folder.iterdir() if each.name.isdigit()), default=-1) + 1
    own = folder / str(number)
    while True:
        try:
            own.mkdir()
            break
        except FileExistsError:  # another request of the same session was faster
            own = folder / str(int(own.name) + 1)
    file = own / sample_file_name(record, pipeline.modality.written_suffixes[0])
    remark = pipeline.modality.write(file, sample, record)
    view = None
    if kind_of(file) == "audio":
        view = own / "view.png"
        pipeline.modality.preview(sample[None], (), 1).save(view)
    return Result(file, record, view, remark)


def delete_oldest(folder: Path, kept: int = KEPT_RESULTS) -> None:
    """Deletes all results that ``write_result`` wrote into ``folder`` but the newest ``kept``."""
    numbered = sorted((each for each in folder.iterdir() if each.name.isdigit()), key=lambda each: int(each.name))
    for old in numbered[:-kept]:
        shutil.rmtree(old, ignore_errors=True)


def kind_of(file: Path) -> str:
    """Returns how a page plays a file: ``image``, ``audio`` or ``video``."""
    suffix = file.suffix.lower()
    if suffix in (".png", ".gif"):
        return "image"
    return "audio" if suffix in (".wav", ".flac", ".ogg", ".mp3") else "video"


def show(results: Iterable[Result], address: Address, large: bool = False) -> str:
    """Returns HTML of results, each with its label, its seed and a link to save it; all text in it is escaped."""
    cards = "".join(_card(result, address) for result in results)
    return f'<div class="scm-results{" scm-large" if large else ""}" role="list">{cards}</div>' if cards else empty()


def empty(text: str = "Nothing made yet.") -> str:
    """Returns HTML for a place without results."""
    return f'<p class="scm-empty">{html.escape(text)}</p>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Returns HTML of a line of facts, each with its name."""
    items = "".join(f"<span>{html.escape(name)} <b>{html.escape(value)}</b></span>" for name, value in pairs)
    return f'<p class="scm-facts">{items}</p>'


def _card(result: Result, address: Address) -> str:
    source, words, number = (html.escape(each) for each in (address(result.file), result.words, result.number))
    name = html.escape(", ".join(part for part in (result.words, result.number) if part))
    kind = kind_of(result.file)
    if kind == "image":
        medium = f'<img src="{source}" alt="{name}">'
    elif kind == "video":
        medium = f'<video src="{source}" aria-label="{name}" controls autoplay loop muted playsinline></video>'
    else:
        view = html.escape(address(result.view)) if result.view else ""
        picture = f'<img class="scm-mel" src="{view}" alt="waveform and mel spectrogram: {name}">' if view else ""
        medium = f'{picture}<audio src="{source}" aria-label="{name}" controls preload="metadata"></audio>'
    remark = f"<small>{html.escape(result.remark)}</small>" if result.remark else ""
    shown = f"<b>{words}</b>" if words else ""
    return (
        f'<figure role="listitem" class="scm-{kind}">{medium}<figcaption>{shown}<span>{number}</span>{remark}'
        f'<a href="{source}" download="{html.escape(result.file.name)}" aria-label="Download {name}">Download</a>'
        "</figcaption></figure>"
    )

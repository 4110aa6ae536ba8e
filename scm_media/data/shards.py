"""WebDataset shards: tar files in which the members of one example share a name up to its first dot.

The library ``webdataset`` (extra ``shards``) expands patterns of shards and splits names of members. Its own pipelines
are streams: they shuffle within a buffer, in an order that depends on the number of workers and cannot be resumed at a
step. So this module indexes the positions of members in the tar, and reads examples by number, as every dataset here.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from scm_media.class_names import classes_of, names_of, utf8_text
from scm_media.data import tars
from scm_media.data.entries import Entry, Rejects, Unusable, read_label
from scm_media.data.files import FileDataset, Listing
from scm_media.data.sidecars import captions_from
from scm_media.modality import Modality
from scm_media.parts import part


@dataclass(frozen=True, slots=True)
class Member(Entry):
    """A file inside a tar, at ``offset``, ``length`` bytes long."""

    offset: int = 0
    length: int = 0

    def file(self) -> IO[bytes]:
        """Returns the member's content as an opened file with the name ``source``."""
        with self.path.open("rb") as tar:
            tar.seek(self.offset)
            content = io.BytesIO(tar.read(self.length))
        content.name = self.source  # from which a modality takes the suffix
        return content

    @property
    def source(self) -> str:
        """The tar and the member's name."""
        return f"{self.path}#{Path(self.name).name}"

    @property
    def size(self) -> int:
        """Bytes."""
        return self.length

    @property
    def version(self) -> tuple[str, int, int]:
        """Tar and offset, size, time of the tar's change."""
        return f"{self.path}#{self.offset}", self.length, self.path.stat().st_mtime_ns


@part("data")
class ShardsDataset(FileDataset):
    """The examples of tar files on a disk.

    shards: a pattern with braces (``train-{000..099}.tar``) or a list of such, relative to ``root``. labels: name of a
    label to its source: "cls", the text of the member .cls, or "json:KEY" of the member .json; None for no labels.
    caption: "txt", each line of which is one, "json:KEY" or None. scalars: labels that are numbers. classes: label to
    its classes in order; a whole number in a .cls is an index of them. index: a folder that keeps the members'
    positions, so that the tars are walked through once; None to do so whenever the data is opened.

    Counted among the rejects: shards that are missing, cut short (the members before the cut are used) or no plain tar,
    members of the same name as an earlier one, examples that lack a file of the modality or a label, and those that
    ``FileDataset`` leaves out, which explains ``held_out``, ``verify`` and ``measures``.
    """

    def __init__(
        self,
        modality: Modality,
        shards: str | Sequence[str],
        root: str | Path | None = None,
        labels: Mapping[str, str] | None = None,
        caption: str | None = None,
        scalars: Sequence[str] = (),
        classes: Mapping[str, Sequence[Any]] | None = None,
        index: str | Path | None = None,
        split: str = "train",
        held_out: float = 0.02,
        verify: bool = True,
        measures: Sequence[str] = (),
    ) -> None:
        if labels is not None and not isinstance(labels, Mapping):
            raise ValueError(
                f"data.labels must map labels to their sources, got {labels!r}: write data.labels={{class: cls}}"
            )
        labels = {str(name): source for name, source in (labels or {}).items()}
        scalars = names_of(scalars, "data.scalars")
        for key, source in [*((f"labels.{name}", source) for name, source in labels.items()), ("caption", caption)]:
            if source is not None and source not in ("cls", "txt") and not str(source).startswith("json:"):
                raise ValueError(f"data.{key} must be cls, txt or json:KEY, got {source!r}")
        fixed = classes_of(classes, "data.classes")
        if strangers := [name for name in [*scalars, *fixed] if name not in labels]:
            raise ValueError(
                f"data.scalars and data.classes name {', '.join(strangers)}, which data.labels does not: add it "
                "there, or leave it out here"
            )
        rejects = Rejects()
        folder = Path("" if root is None else root).expanduser()
        keep = None if index is None else Path(index).expanduser()
        entries = []
        for path in expand(shards, folder):
            for name, members in _examples(path, modality, keep, rejects):
                try:
                    entries.append(_make_entry(path, members, modality, labels, caption, scalars, fixed))
                except Unusable as error:
                    rejects.add(f"{path}#{name}", error.reason, error.detail)
        label_names = {name: () if name in scalars else fixed.get(name) for name in labels}
        listing = Listing(entries, label_names, f"data.shards={shards}", rejects)
        super().__init__(listing, modality, split, held_out, verify, measures)


def expand(shards: str | Sequence[str], root: Path) -> list[Path]:
    """Returns the paths that patterns expand to; ValueError without the library, for none, or for a remote one."""
    try:
        from webdataset.shardlists import expand_urls
    except ModuleNotFoundError as error:
        raise ValueError("shards need the library webdataset: pip install 'scm-media[shards]'") from error
    patterns = [shards] if isinstance(shards, str) else list(shards)
    found = list(dict.fromkeys(name for pattern in patterns for name in expand_urls(pattern)))
    if remote := [name for name in found if ":" in name.partition("/")[0]]:
        raise ValueError(f"data.shards: {remote[0]} is not on this machine; copy the shards to a disk first")
    if not found:
        raise ValueError(f"data.shards={shards!r} names no shard; expected a pattern such as train-{{000..099}}.tar")
    return [root / name for name in found]


def _make_entry(
    path: Path,
    members: Mapping[str, Sequence[Any]],
    modality: Modality,
    labels: Mapping[str, str],
    caption: str | None,
    scalars: Sequence[str],
    classes: Mapping[str, Sequence[str]],
) -> Member:
    """Returns the entry of an example, given its members by suffix; raises Unusable without a file or a label."""
    suffix = next((suffix for suffix in members if f".{suffix}" in modality.suffixes), None)
    if suffix is None:
        raise Unusable("no file of the modality's", ", ".join(members))
    name, offset, length, _ = members[suffix]
    own = {}
    for label, source in labels.items():
        value = _find_text(members, source)
        known = classes.get(label)
        if known is not None and source == "cls" and str(value).isdecimal() and int(str(value)) < len(known):
            value = known[int(str(value))]
        own[label] = read_label(value, label, label in scalars, known)
    words = None if caption is None else _find_text(members, caption)
    captions = captions_from(words.splitlines() if isinstance(words, str) and caption == "txt" else words)
    told = None if words is None else utf8_text(str(words))
    return Member(path, f"{path.name}/{name}", own, captions, caption=told, offset=offset, length=length)


def _find_text(members: Mapping[str, Sequence[Any]], source: str) -> Any:
    """Returns the value at "cls", "txt" or "json:KEY" of an example, None where there is none."""
    suffix, _, key = source.partition(":")
    text = members[suffix][3] if suffix in members else None
    if text is None or suffix != "json":
        return None if text is None else text.strip()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, or lists in lists without end
        raise Unusable("member .json that is no JSON", key) from None
    return content.get(key) if isinstance(content, dict) else None


def _examples(
    path: Path, modality: Modality, keep: Path | None, rejects: Rejects
) -> Iterator[tuple[str, Mapping[str, Sequence[Any]]]]:
    """Yields the name of each example of a shard, and its members by suffix; the shard's faults are counted.

    As in webdataset, a name ends at the first dot of the base name, and suffixes are of any case.
    """
    from webdataset.tariterators import base_plus_ext

    if not path.is_file():
        rejects.add(path, "missing shard")
        return
    status = path.stat()
    fault, members = tars.read_index(path, status.st_size, status.st_mtime_ns, keep)
    if fault:
        rejects.add(path, *fault.split(": ", 1))
    grouped: dict[str, dict[str, Sequence[Any]]] = {}
    for member in members:
        name, suffix = base_plus_ext(member[0])
        if name is None:
            rejects.add(f"{path}#{member[0]}", "member without a suffix")
        elif suffix.lower() in grouped.get(name, {}):
            rejects.add(f"{path}#{member[0]}", "member of the same name as an earlier one")
        else:
            grouped.setdefault(name, {})[suffix.lower()] = member
    whole = [by_suffix for by_suffix in grouped.values() if _has_file(by_suffix, modality)]
    auxiliary = {suffix for by_suffix in whole for suffix in by_suffix if "." in suffix}
    for name, by_suffix in grouped.items():
        yield from _split_examples(name, by_suffix, auxiliary, modality)


def _has_file(suffixes: Iterable[str], modality: Modality) -> bool:
    return any(f".{suffix}" in modality.suffixes for suffix in suffixes)


def _split_examples(
    name: str, members: Mapping[str, Sequence[Any]], auxiliary: Set[str], modality: Modality
) -> Iterator[tuple[str, Mapping[str, Sequence[Any]]]]:
    """Yields the examples among members that share a name: one, if the suffix of one of them is the modality's.

    Where only longer suffixes end in one of the modality's (``v1.0.png``, ``v1.1.png``: suffixes ``0.png`` and
    ``1.png``), each is an example, with the members that begin alike (``0.cls``) and those of the whole name (``cls``).
    auxiliary: longer suffixes that accompany a file of the modality elsewhere (``mask.png``), which are no examples.
    """
    dotted: dict[str, dict[str, Sequence[Any]]] = {}
    for suffix, member in members.items():
        before, _, last = suffix.rpartition(".")
        dotted.setdefault(before, {})[last] = member
    common = dotted.pop("", {})
    longer = [suffix for suffix in members.keys() - auxiliary if _has_file([suffix.rpartition(".")[2]], modality)]
    if _has_file(common, modality) or not longer:
        yield name, members
        return
    for before, own in dotted.items():
        yield f"{name}.{before}", {**common, **own}

"""A list of files with labels and captions: a .csv, or a .jsonl of one object a line."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media.class_names import classes_of, names_of, utf8_text
from scm_media.data.actions import (
    MAX_ACTION_SEQUENCES,
    ActionBank,
    check_actions,
    read_actions,
    select_for_bank,
    usual_width,
)
from scm_media.data.entries import Entry, Rejects, Unusable, read_label
from scm_media.data.examples import Example
from scm_media.data.files import FileDataset, Listing
from scm_media.data.labelling import LabelFunction, LabelNames, add_labels
from scm_media.data.sidecars import captions_from
from scm_media.display import printable
from scm_media.modality import Modality
from scm_media.parts import part

MAX_NAMED = 20
"""Columns of a manifest that an error lists."""
_OWN_COLUMNS = ("path", "caption")


class _Words(Mapping[str, Iterator[Any]]):
    """Maps a label to the values of its column, which are read only where a recipe's classes need them."""

    def __init__(self, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        self._rows = rows

    def __getitem__(self, label: str) -> Iterator[Any]:
        return (row[label] for _, row in self._rows if row.get(label) is not None)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(column for _, row in self._rows for column in row))

    def __len__(self) -> int:
        return sum(1 for _ in self)


@part("data", label_function="label_function")
class ManifestDataset(FileDataset):
    """The files that a manifest lists in its column "path", relative to ``root`` (by default the manifest's folder).

    labels: the columns that are labels, None for every named column but path, caption and fields. scalars: those of
    them that are numbers. classes: label to its classes in order; other labels have the classes that are found.
    group: a column whose equal values are held out together; it is no label unless ``labels`` says so.
    label_function: gives more labels, for a file's path and its row (see ``labelling.add_labels``).
    cut: two columns, the seconds from and to which a row reaches in its file (empty: the file's start, its end), for
    modalities that take segments; segments of one file are held out together unless ``group`` says otherwise.
    fields: columns that templates of texts may name beside labels; they are no labels unless ``labels`` says so. The
    column "caption" has a text or, in a .jsonl, a list of them.
    actions: a column of a .jsonl that holds a list of numbers for each frame of the sample, from its start on.
    action_names: the names of these numbers; None: 1, 2, 3 …
    Rows that cannot be used are counted: a missing or undecodable file, a path listed twice, a missing or unknown
    label, a scalar or a cut that is no number, actions of another size, a row that cannot be parsed. ``FileDataset``
    explains ``held_out``, ``verify``, ``measures``.
    """

    def __init__(
        self,
        modality: Modality,
        path: str | Path,
        root: str | Path | None = None,
        labels: Sequence[str] | None = None,
        scalars: Sequence[str] = (),
        classes: Mapping[str, Sequence[Any]] | None = None,
        group: str | None = None,
        split: str = "train",
        held_out: float = 0.02,
        verify: bool = True,
        label_function: LabelFunction | None = None,
        measures: Sequence[str] = (),
        cut: Sequence[str] | None = None,
        actions: str | None = None,
        action_names: Sequence[str] | None = None,
        fields: Sequence[str] = (),
    ) -> None:
        _check_cut(cut, modality)
        scalars, fields = names_of(scalars, "data.scalars"), names_of(fields, "data.fields")
        path = Path(path).expanduser()
        check_actions(actions, action_names, path, modality)
        rejects = Rejects()
        rows = _read_rows(path, rejects)
        columns = list(dict.fromkeys(column for _, row in rows for column in row))
        if not rows:
            raise rejects.make_error(path, "expected a header and rows (.csv), or one object a line (.jsonl)")
        fixed = classes_of(classes, "data.classes", _Words(rows))
        own = [*_OWN_COLUMNS, *(cut or ()), *([] if actions is None else [actions])]
        if labels is None:
            labels = [column for column in columns if column and column not in (*own, group, *fields)]
        labels = names_of(labels, "data.labels")
        _check_columns(path, columns, [*labels, *own[len(_OWN_COLUMNS) :], *fields], group)
        if actions is not None and action_names is None:
            action_names = [str(1 + number) for number in range(usual_width(row.get(actions) for _, row in rows))]
        self.action_names = tuple(map(str, action_names or ()))
        label_classes: LabelNames = {label: () if label in scalars else fixed.get(label) for label in labels}
        reader = _RowReader(path.parent if root is None else Path(root).expanduser(), label_classes, group, cut, fields)
        entries, used = [], []
        actions_of: dict[str, Tensor] = {}
        for line, row in rows:
            try:
                entry = reader.read(row)
                if actions is not None:
                    num_frames, width = modality.shape()[1], len(self.action_names)
                    actions_of[entry.name] = read_actions(row.get(actions), actions, num_frames, width)
            except Unusable as error:
                rejects.add(f"{path}:{line}", error.reason, error.detail)
            else:
                entries.append(entry)
                used.append((row,))
        entries, names = add_labels(entries, used, label_function, label_classes, scalars, fixed, rejects)
        super().__init__(Listing(entries, names, path, rejects), modality, split, held_out, verify, measures)
        # One tensor, since workers that are not forked would be sent each by itself.
        self._actions = torch.stack([actions_of[entry.name] for entry in self._entries]) if actions_of else None

    def action_bank(self, num: int = MAX_ACTION_SEQUENCES) -> ActionBank:
        """Returns the actions and classes of ``num`` examples, of fewer where they are long."""
        assert self._actions is not None
        indices = select_for_bank(len(self), self._actions.shape[1:], num)
        labels = {name: self.class_numbers(name, indices) for name, classes in self.label_names.items() if classes}
        return ActionBank(self._actions[indices], labels)

    def fingerprint(self) -> str:
        """Returns a digest as ``FileDataset``, of the actions too where there are any."""
        digest = super().fingerprint()
        if self._actions is None:
            return digest
        return f"{digest}-{hashlib.blake2b(self._actions.numpy().tobytes(), digest_size=8).hexdigest()}"

    def _read(self, index: int, generator: torch.Generator | None) -> Example:
        example = super()._read(index, generator)
        return example if self._actions is None else replace(example, actions=self._actions[index])


@dataclass
class _RowReader:
    """Makes entries of rows. root: the folder that paths are relative to. classes: label to its classes."""

    root: Path
    classes: LabelNames
    group: str | None
    cut: Sequence[str] | None
    fields: Sequence[str]
    taken: set[str] = field(default_factory=set)

    def read(self, row: Mapping[str, Any]) -> Entry:
        """Returns the entry of a row; raises Unusable for one that has no path, or the same one as an earlier row."""
        path = row.get("path")
        if not isinstance(path, str) or not path:
            raise Unusable("no path", "")
        file = os.path.normpath(path)
        cut = None if self.cut is None else _read_cut(row, self.cut)
        name = file if cut is None else f"{file}#{cut}"
        if name in self.taken:
            raise Unusable("duplicate", name)
        self.taken.add(name)
        labels = {
            label: read_label(row.get(label), label, classes == (), classes or None)
            for label, classes in self.classes.items()
        }
        group = None if cut is None else file
        if self.group is not None:
            group = None if row.get(self.group) in (None, "") else str(row[self.group])
        kept = {column: utf8_text(str(row[column])) for column in self.fields if row.get(column) is not None}
        told = row.get("caption")
        caption = None if told is None else utf8_text(str(told))
        return Entry(self.root / file, name, labels, captions_from(told), kept, group, cut, caption)


def _check_cut(cut: Sequence[str] | None, modality: Modality) -> None:
    if cut is None:
        return
    if isinstance(cut, str) or len(cut) != 2:
        raise ValueError(f"data.cut must be two columns, the seconds from and to which a row reaches; got {cut!r}")
    if not modality.takes_segments:
        raise ValueError(f"data.cut={list(cut)}: files of {modality.name} are read whole; set data.cut=null")


def _read_cut(row: Mapping[str, Any], cut: Sequence[str]) -> tuple[float, float | None]:
    """Returns the seconds from and to which a row reaches, None for the file's end; Unusable for none such."""
    first, last = (row.get(column) for column in cut)
    detail = f"{cut[0]}={first}, {cut[1]}={last}"
    try:
        begin = 0.0 if first in (None, "") else float(first)
        end = math.inf if last in (None, "") else float(last)
    except (TypeError, ValueError, OverflowError):
        raise Unusable("cut that is no number of seconds", detail) from None
    if not 0 <= begin < end:
        raise Unusable("cut that ends before it begins", detail)
    return begin, None if end == math.inf else end


def _check_columns(path: Path, columns: Sequence[str], labels: Sequence[str], group: str | None) -> None:
    own = [] if group is None else [group]
    missing = [column for column in ["path", *labels, *own] if column not in columns]
    if missing:
        lacking, there = (printable(", ".join(map(str, names[:MAX_NAMED]))) for names in (missing, columns))
        raise ValueError(
            f"{path} has no column {lacking}; it has {there}: the file's column is called path, the label columns are "
            "named in data.labels, the column of the split in data.group"
        )


def _read_rows(path: Path, rejects: Rejects) -> list[tuple[int, dict[str, Any]]]:
    """Returns line number and content of each row that can be parsed."""
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    if path.suffix.lower() not in readers:
        raise ValueError(f"data.path={path}: a manifest is a .csv or a .jsonl")
    if not path.is_file():
        raise ValueError(f"data.path={path}: no such file")
    try:
        return list(readers[path.suffix.lower()](path, rejects))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a manifest (UTF-8): {error}") from error


def _csv_rows(path: Path, rejects: Rejects) -> Iterator[tuple[int, dict[str, Any]]]:
    # Names of files may have bytes that are not UTF-8: they are kept.
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        rows = iter(reader)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                if reader.line_num < 2:
                    raise
                rejects.add(f"{path}:{reader.line_num}", "row that cannot be parsed", str(error))
                continue
            if None in row:
                rejects.add(f"{path}:{reader.line_num}", "row with more fields than the header")
            else:
                yield reader.line_num, row


def _jsonl_rows(path: Path, rejects: Rejects) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):  # no JSON, or lists in lists without end
                row = None
            if isinstance(row, dict):
                yield number, row
            else:
                rejects.add(f"{path}:{number}", "line that is no JSON object")

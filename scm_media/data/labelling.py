"""Labels beside those of columns and folders: from a function of the user's, and measured by the modality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any

from scm_media.data.entries import Entry, Rejects, Unusable, read_label
from scm_media.modality import Modality

LabelFunction = Callable[..., Mapping[str, Any] | None]
"""From a file's path, and its row where a manifest lists it, to label names and values; None leaves the file out."""
LabelNames = Mapping[str, Sequence[str] | None]
"""Label to its classes, ``()`` for a number, None for the classes that the files have."""


def add_labels(
    entries: Sequence[Entry],
    rows: Sequence[tuple[Mapping[str, Any], ...]],
    function: LabelFunction | None,
    names: LabelNames,
    scalars: Sequence[str],
    classes: Mapping[str, Sequence[str]],
    rejects: Rejects,
) -> tuple[list[Entry], LabelNames]:
    """Returns the entries with the labels of a user's function added, and all label names.

    rows: arguments of the function for each entry, beside the path. scalars: labels that are numbers. classes: the
    classes of labels whose classes are given. Entries that the function leaves out (None), refuses (ValueError) or
    gives an unusable label are counted. Raises ValueError where scalars or classes name a label that there is not, and,
    with the file's name, for any other error in the function.
    """
    given = [] if function is None else _call(function, entries, rows, rejects)
    new = list(dict.fromkeys(name for _, labels in given for name in labels))
    check_new(new, list(names), "label_function")
    known = [*names, *new]
    if strangers := [name for name in [*scalars, *classes] if name not in known]:
        raise ValueError(
            f"data.scalars and data.classes name {', '.join(strangers)}, which is no label; labels: "
            f"{', '.join(known) or 'none'}"
        )
    if function is None:
        return list(entries), names
    labelled = []
    for entry, labels in given:
        try:
            own = {name: read_label(labels.get(name), name, name in scalars, classes.get(name)) for name in new}
        except Unusable as error:
            rejects.add(entry.source, error.reason, error.detail)
        else:
            labelled.append(replace(entry, labels={**entry.labels, **own}))
    return labelled, {**names, **{name: () if name in scalars else classes.get(name) for name in new}}


def _call(
    function: Any, entries: Sequence[Entry], rows: Sequence[tuple[Mapping[str, Any], ...]], rejects: Rejects
) -> list[tuple[Entry, Mapping[str, Any]]]:
    """Returns the entries that a user's function does not leave out, each with the labels that it gives."""
    if not callable(function):
        raise ValueError(
            "data.label_function must be {_target_: package.function, _partial_: true}, the package being named in "
            f"SCM_MEDIA_ALLOW; got {function!r}"
        )
    name = getattr(getattr(function, "func", function), "__name__", "data.label_function")
    taken = []
    for entry, row in zip(entries, rows, strict=True):
        try:
            labels = function(entry.path, *row)
        except ValueError as error:
            rejects.add(entry.source, "refused by data.label_function", str(error))
            continue
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            raise ValueError(f"data.label_function {name} failed for {entry.path} ({problem}); mend it") from error
        if labels is None:
            rejects.add(entry.source, "left out by data.label_function")
        elif not isinstance(labels, Mapping):
            raise ValueError(
                f"data.label_function {name} gave {labels!r} for {entry.path}; expected a mapping of label names to "
                "values, or None to leave the file out"
            )
        else:
            taken.append((entry, labels))
    return taken


def check_new(names: Sequence[str], known: Sequence[str], key: str) -> None:
    """Refuses (ValueError) names of ``key`` that are labels already."""
    if twice := [name for name in names if name in known]:
        raise ValueError(f"data.{key} gives {', '.join(twice)}, which is a label already; call one of them otherwise")


def add_measures(
    entries: Sequence[Entry], modality: Modality, names: Sequence[str], rejects: Rejects, pool: Executor
) -> list[Entry]:
    """Returns the entries with the modality's measures of these names added as scalar labels.

    A file that cannot be measured, or whose measure is not finite, is counted and left out. Raises ValueError for a
    name that the modality does not measure.
    """
    if not names:
        return list(entries)
    kept = []
    measure = partial(_measure, modality=modality)
    for entry, found in zip(entries, pool.map(measure, entries), strict=True):
        if isinstance(found, ValueError):
            rejects.add(entry.source, getattr(found, "reason", "undecodable"), str(found))
            continue
        if not found:
            raise ValueError(
                f"data.measures={list(names)}: nothing is measured of {modality.name}; set data.measures=[]"
            )
        if unknown := [name for name in names if name not in found]:
            raise ValueError(f"data.measures: {modality.name} measures {', '.join(found)}, not {', '.join(unknown)}")
        try:
            own = {name: read_label(found[name], name, True, None) for name in names}
        except Unusable as error:
            rejects.add(entry.source, error.reason, error.detail)
        else:
            kept.append(replace(entry, labels={**entry.labels, **own}))
    return kept


def _measure(entry: Entry, modality: Modality) -> Mapping[str, float] | ValueError:
    try:
        return entry.measure(modality)
    except ValueError as error:
        return error

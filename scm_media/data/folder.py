"""A folder of files, with classes from its sub-folders or without labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scm_media.data.entries import Entry, Rejects
from scm_media.data.files import FileDataset
from scm_media.data.labelling import LabelFunction, LabelNames, complete
from scm_media.interfaces import Modality
from scm_media.parts import part


@part("data", label_function="label_function")
class FolderDataset(FileDataset):
    """Every file below ``root`` that the modality reads, and every folder that it holds to be one sample; links count.

    labels: "subfolder", the label "class" is the name of the first folder below root, or "none". label_function: gives
    more labels, for a file's path (see ``labelling.complete``). scalars: labels that are numbers. Hidden files, files
    of other kinds, files outside any class, class folders without a file, and files that the function leaves out are
    counted among the rejects. See ``FileDataset`` for ``held_out``, ``verify`` and ``measures``; ValueError when fewer
    than two files are usable.
    """

    def __init__(
        self,
        modality: Modality,
        root: str | Path,
        labels: str = "subfolder",
        split: str = "train",
        held_out: float = 0.02,
        verify: bool = True,
        label_function: LabelFunction | None = None,
        scalars: Sequence[str] = (),
        measures: Sequence[str] = (),
    ) -> None:
        if labels not in ("subfolder", "none"):
            raise ValueError(f'data.labels must be "subfolder" or "none", got {labels!r}')
        root = Path(root).expanduser()
        if not root.is_dir():
            raise ValueError(f"data.root={root} is {'a file, not a folder' if root.exists() else 'no folder'}")
        rejects = Rejects()
        entries = []
        labels_of: dict[str, dict[str, str]] = {}  # one for all files of a class: there can be millions
        for path in walk(root, modality):
            inside = path.relative_to(root)
            if inside.name.startswith("."):
                rejects.add(path, "hidden")
            elif not path.is_dir() and path.suffix.lower() not in modality.suffixes:
                rejects.add(path, "of another kind", path.suffix or "no suffix")
            elif labels == "none":
                entries.append(Entry(path, inside.as_posix()))
            elif len(inside.parts) == 1:
                rejects.add(path, "in no class folder (data.labels=none takes them)")
            else:
                own = labels_of.setdefault(inside.parts[0], {"class": inside.parts[0]})
                entries.append(Entry(path, inside.as_posix(), own))
        if labels == "subfolder":
            for folder in sorted(root.iterdir()):
                if folder.is_dir() and not folder.name.startswith(".") and folder.name not in labels_of:
                    rejects.add(folder, "empty class folder")
        names: LabelNames = {"class": None} if labels == "subfolder" else {}
        entries, names = complete(entries, [()] * len(entries), label_function, names, scalars, {}, rejects)
        super().__init__(entries, modality, names, root, rejects, split, held_out, verify, measures)


def walk(root: Path, modality: Modality) -> Iterator[Path]:
    """Files below root in a fixed order; a folder that is hidden, or one sample of the modality, is given as one path.

    A folder that is met again is not entered.
    """
    entered = set()
    holds: Callable[[Path], bool] = getattr(modality, "holds", lambda folder: False)
    for folder, folders, files in os.walk(root, followlinks=True):
        here = os.path.realpath(folder)
        if here in entered:
            folders.clear()
            continue
        entered.add(here)
        whole = [name for name in folders if name.startswith(".") or holds(Path(folder, name))]
        folders[:] = sorted(set(folders) - set(whole))
        yield from (Path(folder, name) for name in sorted(files + whole))

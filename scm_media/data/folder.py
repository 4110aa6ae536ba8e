"""A folder of files, with classes from its sub-folders or without labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scm_media.class_names import class_name, names_of
from scm_media.data.entries import Entry, Rejects
from scm_media.data.files import FileDataset, Listing
from scm_media.data.labelling import LabelFunction, LabelNames, add_labels
from scm_media.data.sidecars import read_sidecars, split_sidecars, stem
from scm_media.modality import Modality
from scm_media.parts import part

UNREADABLE = "unreadable folder"


@part("data", label_function="label_function")
class FolderDataset(FileDataset):
    r"""Every file below ``root`` that the modality reads, and every folder that is one sample; links are followed.

    labels: "subfolder", the label "class" is the name of the first folder below root, or "none". label_function: gives
    more labels, for a file's path (see ``labelling.add_labels``). scalars: labels that are numbers. Hidden files, files
    of other kinds, files outside any class, class folders without a file, folders that cannot be listed, and files that
    the function leaves out are counted among the rejects. A .txt or .json of a file's name holds its captions
    (``sidecars``). Names of folders that differ in Unicode's form alone (NFC, NFD) are one class; bytes that are not
    UTF-8 stand as ``\xNN`` in it. ``FileDataset`` explains ``held_out``, ``verify`` and ``measures``. Raises ValueError
    when fewer than two files are usable.
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
            raise ValueError(
                f"data.root={root} is {'a file, not a folder' if root.exists() else 'no folder'}: give the folder of "
                "your files"
            )
        scalars = names_of(scalars, "data.scalars")
        rejects = Rejects()
        entries = []
        labels_of: dict[str, dict[str, str]] = {}  # one for all files of a class: there can be millions
        unlisted = set()

        def reject_folder(folder: Path, problem: str) -> None:
            unlisted.add(folder)
            rejects.add(folder, UNREADABLE, problem)

        paths, self._sidecars = split_sidecars(walk(root, modality, reject_folder), frozenset(modality.suffixes))
        for path in paths:
            inside = path.relative_to(root)
            if inside.name.startswith("."):
                rejects.add(path, "hidden")
            elif not os.path.isdir(path) and path.suffix.lower() not in modality.suffixes:
                rejects.add(path, "of another kind", path.suffix or "no suffix")
            elif labels == "none":
                entries.append(Entry(path, inside.as_posix()))
            elif len(inside.parts) == 1:
                rejects.add(path, "in no class folder (data.labels=none takes them)")
            else:
                own = labels_of.setdefault(inside.parts[0], {"class": class_name(inside.parts[0])})
                entries.append(Entry(path, inside.as_posix(), own))
        if labels == "subfolder":
            for folder in _class_folders(root):
                if folder.name not in labels_of and folder not in unlisted:
                    rejects.add(folder, "empty class folder")
        names: LabelNames = {"class": None} if labels == "subfolder" else {}
        entries, names = add_labels(entries, [()] * len(entries), label_function, names, scalars, {}, rejects)
        super().__init__(Listing(entries, names, root, rejects), modality, split, held_out, verify, measures)

    def captions(self) -> list[tuple[str, ...]]:
        """Returns the captions beside each file, which are read now; files of captions of no use are counted."""
        rejects, suffixes = Rejects(), frozenset(self.modality.suffixes)
        found = [read_sidecars(self._sidecars.get(stem(entry.path, suffixes), ()), rejects) for entry in self._entries]
        self.rejects |= rejects.counts
        known = {source for source, _ in self.rejected}
        self.rejected += [each for each in rejects.listed if each[0] not in known]
        return found


def _class_folders(root: Path) -> list[Path]:
    """Returns the visible folders in a root; none where it cannot be listed, which ``walk`` reports."""
    try:
        with os.scandir(root) as found:
            return sorted(Path(each.path) for each in found if each.is_dir() and not each.name.startswith("."))
    except OSError:
        return []


def walk(root: Path, modality: Modality, on_unreadable: Callable[[Path, str], None]) -> Iterator[Path]:
    """Yields the files below root in a fixed order.

    A folder that is hidden, or one sample of the modality, is one path. A folder that links lead to twice is entered
    once. on_unreadable: called with each folder that cannot be listed (no permission, gone meanwhile), and why.
    """

    def report(error: OSError) -> None:
        on_unreadable(Path(error.filename or root), error.strerror or str(error))

    entered = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=report):
        here = os.path.realpath(folder)
        if here in entered:
            folders.clear()
            continue
        entered.add(here)
        whole = [name for name in folders if name.startswith(".") or _is_sample_dir(Path(folder, name), modality)]
        folders[:] = sorted(set(folders) - set(whole))
        yield from (Path(folder, name) for name in sorted(files + whole))


def _is_sample_dir(folder: Path, modality: Modality) -> bool:
    """Returns whether a folder is one sample; False where it cannot be listed, which ``walk`` reports later."""
    try:
        return modality.is_sample_dir(folder)
    except OSError:
        return False

"""This module chooses the recipe, and with it the modality, that reads the files of a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scm_media import recipe

NO_DATA = ("++data.root=.",)
"""This override names any folder as the data: a recipe is described without them."""
FOR_FOLDERS = "/folder"
"""Names of recipes that are made for a folder of files end with this."""


@dataclass(frozen=True)
class Candidate:
    """Holds a recipe that could read a folder: its name, its modality, how many files it reads, and its effort.

    effort: recipes for folders come first, trials last, then those whose teacher sees fewer samples.
    """

    recipe: str
    modality: Any
    num_read: int
    effort: tuple[int, int]

    @property
    def order(self) -> tuple[int, int, int, str]:
        """Returns what sorts the recipe that reads most files, with the least effort, before the others."""
        return (-self.num_read, *self.effort, self.recipe)


@dataclass(frozen=True)
class Choice:
    """Holds the recipe that reads a folder, its modality, and how many files each other modality would read."""

    recipe: str
    modality: Any
    others: Mapping[str, int]


def choose_recipe(files: Sequence[Path], folder: Path, kind: str | None = None) -> Choice:
    """Returns the recipe that reads most of the files; of several the one of least effort.

    Recipes for folders are asked first, and the others only where they could read more files than these.
    kind: the name of the modality that is wanted, such as "image"; None for the one that reads most files.
    Raises ValueError when none reads any.
    """
    suffixes = Counter(path.suffix.lower() for path in files)
    unusable: list[str] = []
    candidates: list[Candidate] = []
    for for_folders in (True, False):
        candidates += _candidates(suffixes, for_folders, unusable)
        candidates.sort(key=lambda each: each.order)
        wanted = [each for each in candidates if kind in (None, each.modality.name)]
        known = {suffix for each in candidates for suffix in each.modality.suffixes}
        unread = sum(num for suffix, num in suffixes.items() if suffix not in known)
        if wanted and wanted[0].num_read >= (1 if kind else unread):
            break
    most = {each.modality.name: each.num_read for each in reversed(candidates)}
    if wanted and wanted[0].num_read:
        best = wanted[0]
        others = {name: num for name, num in most.items() if num and name != best.modality.name}
        return Choice(best.recipe, best.modality, others)
    if kind is not None and kind not in most:
        raise ValueError(f"--modality {kind}: there is no such modality; there are: {', '.join(sorted(most))}")
    seen = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(5))
    readers = "; ".join(
        f"{each.modality.name} reads {' '.join(sorted(each.modality.suffixes))}"
        for each in wanted
        if each.recipe.endswith(FOR_FOLDERS)
    )
    who = "no recipe's modality reads" if kind is None else f"--modality {kind} reads none of"
    what = f"it has {seen}" if seen else "it is empty"
    raise ValueError("; ".join([f"{folder}: {who} these files: {what}", *filter(None, [readers]), *unusable]))


def _candidates(suffixes: Counter[str], for_folders: bool, unusable: list[str]) -> Iterator[Candidate]:
    """Yields the recipes that are made for folders, or the others; why one cannot be used is added to ``unusable``."""
    from scm_media.build import build

    for name in recipe.names():
        # Those that distil a teacher need it beside files.
        if name.endswith("/distil") or name.endswith(FOR_FOLDERS) != for_folders:
            continue
        try:
            config = recipe.compose(name, NO_DATA)
            modality = build(config["modality"], "modality")
        except ValueError as error:
            unusable.append(f"{name} is not usable here: {error}")
            continue
        readiness = 0 if for_folders else 2 if name.endswith("/tiny") else 1
        effort = (readiness, config["teacher"]["max_steps"] * config["teacher"]["batch_size"])
        yield Candidate(name, modality, sum(suffixes[suffix] for suffix in modality.suffixes), effort)

"""This module proposes a recipe for a folder: of the modality that reads its files, with keys that fit them."""

from __future__ import annotations

import inspect
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from scm_media import recipe
from scm_media.display import printable
from scm_media.typed import nearest

NO_DATA = ("++data.root=.",)
"""This override names any folder as the data, since a recipe is described without them."""

HELD_OUT, FEW_HELD_OUT = 0.02, 32
"""The first is the usual fraction of files that is held out; it is larger where that gives fewer files than the second,
since a held-out loss of a dozen files says too little to end a stage by."""

NUM_FEW = 100
FEW_FILES = (
    "# warning: {} files are few: a model of them repeats them; some hundreds are where it begins to make new ones"
)

NUM_OPENED = 32
"""So many files, spread over the folder, are opened for a proposal."""

FOR_FOLDERS = "/folder"
"""Names of recipes that are made for a folder of files end with this."""

FEWEST_CAPTIONED = 0.5
"""A model of texts is proposed where at least this part of the files has captions."""


@dataclass(frozen=True)
class Found:
    """Holds the recipe that reads a folder, its modality, and how many files each other modality would read."""

    recipe: str
    modality: Any
    others: Mapping[str, int]


@dataclass(frozen=True)
class Planned:
    """Holds the lines that a plan adds to a proposal: comments and sections."""

    comments: Sequence[str]
    sections: Sequence[str]


UNPLANNED = Planned(
    (), ("trainer: {compile: false}  # true is faster where a compiler is installed and the run is long",)
)


def propose(
    folder: Path,
    hours: float | None,
    device: str,
    kind: str | None = None,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Returns a recipe's text for a folder: of the modality that reads most of its files, with keys that fit them.

    hours: those that training and evaluation on the device are planned to fit into; None for the recipe's own numbers.
    kind: the name of the modality whose files are meant where a folder has several kinds. given: keys of the modality
    that take the place of those that would fit.
    """
    if not folder.is_dir():
        what = "it is a file; give the folder that it lies in" if folder.exists() else "check the path"
        raise ValueError(f"{folder}: no such folder: {what}")
    if hours is not None:
        from scm_media.cli.budgeted import plan_training, usable_device

        device = usable_device(device)  # before the folder is looked at
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path, folder))
    found = recipe_for(files, folder, kind)
    best, modality = found.recipe, found.modality
    own = [path for path in files if path.suffix.lower() in modality.suffixes]
    keys, seen = fitting_keys(modality, own)
    keys |= given
    _check_keys(modality, keys)
    classes, aside = _find_classes(own, folder)
    num_captioned = _count_captioned(own, files)
    of_texts = num_captioned >= max(1, FEWEST_CAPTIONED * len(own))
    plan, own_name, fraction = UNPLANNED, recipe_name(folder), held_out(len(own))
    if hours is not None:
        plan = plan_training(best, own_name, keys, own, classes, hours, device)
    lines = [
        f"# {len(own)} files of {printable(folder)}, after the recipe {best}.",
        f"# Write this to {own_name}.yaml, look at it with  scm-media check {own_name}.yaml",
        f"# and train it with  scm-media train {own_name}.yaml",
        *(f"# {line}" for line in plan.comments),
        *([f"# Seen: {printable(seen)}."] if seen else []),
        *([FEW_FILES.format(len(own))] if len(own) < NUM_FEW else []),
        *_about_texts(num_captioned, len(own), of_texts),
        *(f"# Left out: {num} files that --modality {other} reads." for other, num in sorted(found.others.items())),
        "defaults:",
        f"  - {best}",
        "  - override /data: folder",
        *(["  - override /text: minilm  # of captions: pip install 'scm-media[text]'"] if of_texts else []),
        "  - _self_",
        "",
        f"recipe: {yaml_text(own_name)}",
        "data:",
        f"  root: {yaml_text(str(folder.resolve()))}",
        *([f"  held_out: {fraction:g}  # more than usual: the files are few"] if fraction > HELD_OUT else []),
        f"  labels: {'subfolder  # ' + _abbreviate(classes) if classes else 'none'}",
        *([f"modality: {{{', '.join(f'{key}: {_yaml(value)}' for key, value in keys.items())}}}"] if keys else []),
        *plan.sections,
    ]
    if hours is not None:
        lines.append(f"hours: {hours:g}  # train warns where it expects more for training and evaluation")
    if aside:
        lines.append(f"# Of sub-folders: {aside}.")
    if of_texts and num_captioned < len(own):
        lines.append("text: {missing: unconditional}  # files without a caption; leave_out trains on the others alone")
    if not classes:
        lines.append(
            "feature_extractor: null  # a feature network learns from classes; without it there are no figures"
        )
    return "\n".join(lines)


def _find_classes(own: Sequence[Path], folder: Path) -> tuple[list[str], str]:
    """Returns the names of sub-folders that are classes, and why others are none; "" where all are or there are none.

    Folders without a file that the recipe reads are none; one folder alone is no choice, and where most files lie
    beside the folders, classes would leave these out.
    """
    inside = [path.relative_to(folder) for path in own]
    names = {path.parts[0] for path in inside if len(path.parts) > 1}
    names |= {path.name for path in folder.iterdir() if path.is_symlink() and path.is_dir()}
    beside = sum(len(path.parts) == 1 for path in inside)
    if len(names) == 1:
        return [], f"{printable(*names)} alone is no choice of classes, so that labels are none"
    if names and 2 * beside > len(own):
        return [], f"most files lie beside them, so that labels are none (subfolder would leave out {beside} files)"
    if names and beside:
        return sorted(names), f"{beside} files lie beside them and are left out; move them into one"
    return sorted(names), ""


def _count_captioned(own: Sequence[Path], files: Sequence[Path]) -> int:
    """Returns how many files have a file of captions beside them."""
    from scm_media.data.sidecars import split_sidecars

    _, sidecars = split_sidecars(files, {path.suffix.lower() for path in own})
    return sum(str(path.with_suffix("")) in sidecars for path in own)


def given_keys(overrides: Sequence[str]) -> dict[str, Any]:
    """Returns the keys of ``modality.KEY=VALUE``, with values as YAML has them; raises ValueError for anything else."""
    keys = {}
    for override in overrides:
        name, equals, value = override.partition("=")
        section, _, key = name.partition(".")
        if not equals or section != "modality" or not key:
            raise ValueError(
                f"{override!r}: with --for FOLDER only keys of the modality are given, as in modality.size=32; write "
                "the others into the recipe that is proposed"
            )
        try:
            keys[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"{override!r}: the value cannot be read: {' '.join(str(error).split())}") from error
    return keys


def _check_keys(modality: Any, keys: Mapping[str, Any]) -> None:
    """Raises ValueError for a key that the modality does not take, or a value that it refuses."""
    known = [name for name in inspect.signature(type(modality)).parameters]
    for key in keys:
        if key not in known:
            raise ValueError(f"modality.{key}: {modality.name} has no such key{nearest(key, known)}")
    try:
        type(modality)(**keys)
    except TypeError as error:
        raise ValueError(f"modality: {error}; scm-media recipes NAME --keys lists keys and their types") from error


def _about_texts(num_captioned: int, num: int, of_texts: bool) -> list[str]:
    if of_texts:
        return [f"# Texts: {num_captioned} files have captions in a .txt or .json beside them."]
    if num_captioned:
        return [
            f"# Texts: {num_captioned} of {num} files alone have captions beside them: too few for a model of texts."
        ]
    return []


def held_out(num_files: int) -> float:
    """Returns the fraction of files that is held out: of few files more, a tenth at most."""
    return max(HELD_OUT, round(min(0.1, FEW_HELD_OUT / max(1, num_files)), 3))


def recipe_name(folder: Path) -> str:
    """Returns the name of the recipe for a folder, and of its run folder: the folder's, in letters that shells keep.

    Letters lose their accents.
    """
    letters = unicodedata.normalize("NFKD", folder.resolve().name).encode("ascii", "ignore").decode()
    return re.sub(r"[^\w.-]+", "-", letters).strip("-.") or "mine"


def yaml_text(text: str) -> str:
    """Returns text as YAML in one line that a recipe reads back unchanged, even if it looks like syntax.

    A name that is not UTF-8 keeps its bytes, as escapes of PEP 383.
    """
    escaped = json.dumps(recipe.escaped_interpolations(text), ensure_ascii=False)
    return "".join(character if printable(character) == character else _yaml_escape(character) for character in escaped)


def _yaml_escape(character: str) -> str:
    number = ord(character)
    return f"\\U{number:08x}" if number > 0xFFFF else f"\\u{number:04x}"


def _yaml(value: Any) -> str:
    return yaml_text(value) if isinstance(value, str) else json.dumps(value)


def recipe_for(files: Sequence[Path], folder: Path, kind: str | None = None) -> Found:
    """Returns the recipe that reads most of the files; of several the one of least effort.

    Recipes for folders are asked first, and the others only where these read half of the files at most.
    kind: the name of the modality that is wanted, such as "image"; None for the one that reads most files.
    Raises ValueError when none reads any.
    """
    suffixes = Counter(path.suffix.lower() for path in files)
    unusable: list[str] = []
    usable: list[tuple[int, tuple[int, int], str, Any]] = []
    for for_folders in (True, False):
        usable += _candidates(suffixes, for_folders, unusable)
        read = {
            modality.name: -negative for negative, _, _, modality in sorted(usable, key=lambda each: each[:3])[::-1]
        }
        wanted = sorted((each for each in usable if kind in (None, each[3].name)), key=lambda each: each[:3])
        if not files or (wanted and -wanted[0][0] > (0 if kind else len(files) / 2)):
            break
    if wanted and wanted[0][0]:
        _, _, name, modality = wanted[0]
        return Found(name, modality, {other: num for other, num in read.items() if num and other != modality.name})
    if kind is not None and kind not in read:
        raise ValueError(f"--modality {kind}: there is no such modality; there are: {', '.join(sorted(read))}")
    seen = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(5))
    what = f"it has {seen}" if seen else "it is empty"
    readers = "; ".join(
        f"{modality.name} reads {' '.join(sorted(modality.suffixes))}"
        for _, _, name, modality in sorted(usable, key=lambda each: each[1:3])
        if name.endswith(FOR_FOLDERS) and kind in (None, modality.name)
    )
    who = "no recipe's modality reads" if kind is None else f"--modality {kind} reads none of"
    raise ValueError("; ".join([f"{folder}: {who} these files: {what}", *filter(None, [readers]), *unusable]))


def _candidates(
    suffixes: Counter[str], for_folders: bool, unusable: list[str]
) -> Iterator[tuple[int, tuple[int, int], str, Any]]:
    """Yields recipes with minus the number of files that each reads, its order, its name and its modality."""
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
        yield -sum(suffixes[suffix] for suffix in modality.suffixes), _order_of(name, config), name, modality


def _order_of(name: str, config: dict[str, Any]) -> tuple[int, int]:
    """Returns the order of recipes: those for folders first, trials last, then by the samples that the teacher sees."""
    readiness = 0 if name.endswith(FOR_FOLDERS) else 2 if name.endswith("/tiny") else 1
    return readiness, config["teacher"]["max_steps"] * config["teacher"]["batch_size"]


def fitting_keys(modality: Any, files: Sequence[Path]) -> tuple[dict[str, Any], str]:
    """Returns keys of the modality that fit these files, and what was seen in them."""
    num = min(NUM_OPENED, len(files))
    return modality.suggest_config([files[place * len(files) // num] for place in range(num)])


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _abbreviate(words: Sequence[str]) -> str:
    return f"{len(words)}: {', '.join(map(printable, words[:5]))}{', …' if len(words) > 5 else ''}"

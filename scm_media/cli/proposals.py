"""This module proposes a recipe for a folder: of the modality that reads its files, with keys that fit them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scm_media import recipe
from scm_media.cli.recipe_choice import NO_DATA, choose_recipe
from scm_media.display import printable

HELD_OUT, FEW_HELD_OUT = 0.02, 32
"""The first is the usual fraction of files that is held out; it is larger where that gives fewer files than the second,
since a held-out loss of a dozen files says too little to end a stage by."""

NUM_FEW = 100
FEW_FILES = (
    "# warning: {} files are few: a model of them repeats them; some hundreds are where it begins to make new ones"
)

NUM_OPENED = 32
"""So many files, spread over the folder, are opened for a proposal."""

FEWEST_CAPTIONED = 0.5
"""A model of texts is proposed where at least this part of the files has captions."""


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
    overrides: Sequence[str] = (),
) -> str:
    """Returns a recipe's text for a folder: of the modality that reads most of its files, with keys that fit them.

    hours: those that training and evaluation on the device are planned to fit into; None for the recipe's own numbers.
    kind: the name of the modality whose files are meant where a folder has several kinds. overrides: keys of the
    modality, ``modality.KEY=VALUE``, that take the place of those that would fit.
    """
    if not folder.is_dir():
        what = "it is a file; give the folder that it lies in" if folder.exists() else "check the path"
        raise ValueError(f"{folder}: no such folder: {what}")
    if hours is not None:
        from scm_media.cli.budgeted import plan_training, usable_device

        device = usable_device(device)  # before the folder is looked at
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path, folder))
    found = choose_recipe(files, folder, kind)
    best, modality = found.recipe, found.modality
    own = [path for path in files if path.suffix.lower() in modality.suffixes]
    keys, seen = fitting_keys(modality, own)
    keys |= _given_keys(best, overrides)
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


def _given_keys(parent: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Returns the keys of ``modality.KEY=VALUE``.

    Raises ValueError for other words, and as ``recipe.compose`` for keys and values that the modality does not take.
    """
    from scm_media.build import build

    for override in overrides:
        if not re.match(r"modality\.\w+=", override):
            raise ValueError(
                f"{override!r}: with --for FOLDER only keys of the modality are given, as in modality.size=32; write "
                "the others into the recipe that is proposed"
            )
    settings = recipe.compose(parent, [*NO_DATA, *overrides])["modality"] if overrides else {}
    if settings:
        build(settings, "modality")
    return {key: settings[key] for key in (each.partition("=")[0].partition(".")[2] for each in overrides)}


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


def fitting_keys(modality: Any, files: Sequence[Path]) -> tuple[dict[str, Any], str]:
    """Returns keys of the modality that fit these files, and what was seen in them."""
    num = min(NUM_OPENED, len(files))
    return modality.suggest_config([files[place * len(files) // num] for place in range(num)])


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _abbreviate(words: Sequence[str]) -> str:
    return f"{len(words)}: {', '.join(map(printable, words[:5]))}{', …' if len(words) > 5 else ''}"

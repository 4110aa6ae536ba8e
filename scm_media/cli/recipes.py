"""``scm-media recipes`` lists, prints and copies recipes, prints their keys, and proposes one for a folder."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scm_media import recipe
from scm_media.cli.arguments import parser
from scm_media.display import printable, printable_lines

NO_DATA = ("++data.root=.",)
"""An override that names any folder as the data: a recipe is described without them."""

HELD_OUT, FEW_HELD_OUT = 0.02, 32
"""The usual fraction of files that is held out, and the number below which it is more: a held-out loss of a dozen files
says too little to end a stage by."""

NUM_OPENED = 32
"""Number of files that are opened for a proposal, spread over the folder."""


@dataclass(frozen=True)
class Planned:
    """Holds the lines that a plan adds to a proposal: comments and sections."""

    comments: Sequence[str]
    sections: Sequence[str]


UNPLANNED = Planned(
    (), ("trainer: {compile: false}  # true is faster where a compiler is installed and the run is long",)
)


def run(arguments: Sequence[str]) -> int:
    """Lists, prints, copies or proposes recipes; returns 0."""
    commands = parser("recipes", "Lists the recipes that are installed, prints or copies one, or proposes one.")
    commands.add_argument("name", nargs="?", metavar="NAME", help="print this recipe, or YAML file, and its cost")
    commands.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="the cost of NAME with these settings")
    commands.add_argument("--copy", metavar="FILE", help="write the recipe NAME to a new file, to be changed")
    commands.add_argument("--keys", action="store_true", help="print every key of NAME: type, unit, bounds, default")
    commands.add_argument("--json", action="store_true", help="with --keys: as JSON")
    commands.add_argument("--reference", action="store_true", help="print docs/recipe-keys.md")
    commands.add_argument("--for", dest="folder", metavar="FOLDER", help="propose a recipe for a folder of files")
    commands.add_argument(
        "--hours", type=float, metavar="H", help="with --for: time this machine, and fit training and evaluation to H"
    )
    commands.add_argument("--device", choices=("auto", "cpu", "cuda"), help="with --hours: default: auto")
    parsed = commands.parse_intermixed_args(arguments)
    if parsed.overrides and (parsed.copy or parsed.keys or parsed.folder or parsed.reference):
        commands.error("KEY=VALUE goes with NAME alone, whose cost it changes")
    if parsed.copy and not parsed.name:
        commands.error("--copy needs the NAME of a recipe")
    if parsed.keys and not parsed.name:
        commands.error("--keys needs the NAME of a recipe")
    if parsed.json and not parsed.keys:
        commands.error("--json needs --keys")
    if parsed.hours is not None and not parsed.folder:
        commands.error("--hours needs --for FOLDER")
    if parsed.device and parsed.hours is None:
        commands.error("--device needs --hours")
    if parsed.folder:
        print(_proposal(Path(parsed.folder), parsed.hours, parsed.device or "auto"))
    elif parsed.copy:
        _copy(recipe.describe(parsed.name), Path(parsed.copy))
    elif parsed.keys:
        _print_keys(parsed.name, parsed.json)
    elif parsed.reference:
        from scm_media.recipe.reference import reference_page

        print(reference_page(), end="")
    elif parsed.name:
        print(_with_cost(parsed.name, parsed.overrides))
    else:
        for number, name in enumerate(recipe.names()):
            if number:
                print()
            print(_entry(name), flush=True)
    return 0


def _print_keys(name: str, as_json: bool) -> None:
    from scm_media.recipe.reference import list_keys

    keys = list(list_keys(recipe.compose(name, NO_DATA)))
    if as_json:
        print(json.dumps({"recipe": name, "keys": [key.to_json() for key in keys]}, indent=2, ensure_ascii=False))
    else:
        print(printable_lines("\n".join(key.lines() for key in keys)))


def _copy(shipped: recipe.Recipe, target: Path) -> None:
    if target.suffix != recipe.SUFFIX:
        raise ValueError(f"{target}: a recipe's file ends in {recipe.SUFFIX}")
    try:
        with target.open("x", encoding="utf-8") as file:
            # The copy is called by its file name, so that its run folder is its own.
            lines = (line for line in shipped.text.splitlines(keepends=True) if not line.startswith("recipe:"))
            file.writelines(lines)
    except FileExistsError:
        raise ValueError(f"{target} exists; choose another file") from None
    print(f"{printable(target)}: a copy of {shipped.name}; train it with: scm-media train {printable(command(target))}")


def command(path: Path) -> str:
    """Returns a path as one word of a shell."""
    return shlex.quote(str(path))


def _entry(name: str) -> str:
    from scm_media.recipe.cost import count_parameters  # with torch, which no command's help waits for

    lines = [name, *(f"  {line}" for line in recipe.describe(name).header)]
    try:
        config = recipe.compose(name, NO_DATA)
        lines.append(f"  {_shape(config)}, {count_parameters(config) / 1e6:.2f} M parameters a network")
    except ValueError as error:
        lines.append(f"  not usable here: {error}")
    return "\n".join(lines)


def _with_cost(name: str, overrides: Sequence[str] = ()) -> str:
    """Returns a recipe's text with its cost, under overrides, in comments after it, so that it stays a recipe."""
    from scm_media.recipe.cost import count_cost

    text = printable_lines(recipe.describe(name).text)
    try:
        config = recipe.compose(name, [*NO_DATA, *overrides])
        counted = count_cost(config)
        lines = [
            *([f"with {' '.join(overrides)}"] if overrides else []),
            f"{_shape(config)}, latent {_times(counted.latent_shape)}",
            f"{counted.parameters / 1e6:.2f} M parameters a network, "
            f"{counted.multiply_adds / 1e9:.3g} G multiply-adds a forward pass of one sample",
            f"about {counted.training_bytes / 2**30:.2g} GiB in training on each device, {counted.samples_per_pass} "
            "samples a pass, beside PyTorch itself and the data (without a compiler, which needs less)",
        ]
    except ValueError as error:
        lines = [f"not usable here: {error}"]
    return "\n".join([text.rstrip("\n"), "", *(f"# counted: {line}" for line in lines)])


def _shape(config: dict[str, Any]) -> str:
    from scm_media.build import build

    modality = build(config["modality"], "modality")
    return f"modality {modality.name}, sample {_times(modality.shape())}"


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _proposal(folder: Path, hours: float | None, device: str) -> str:
    """Returns a recipe's text for a folder: of the modality that reads most of its files, with keys that fit them.

    hours: those that training and evaluation on the device are planned to fit into; None for the recipe's own numbers.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    if hours is not None:
        from scm_media.cli.budgeted import plan_training, usable_device

        device = usable_device(device)  # before the folder is looked at
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path, folder))
    best, modality = recipe_for(files, folder)
    own = [path for path in files if path.suffix.lower() in modality.suffixes]
    keys, seen = fitting_keys(modality, own)
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not _is_hidden(path, folder))
    num_captioned = _count_captioned(own, files)
    plan, own_name, fraction = UNPLANNED, recipe_name(folder), held_out(len(own))
    if hours is not None:
        plan = plan_training(best, own_name, keys, own, classes, hours, device)
    lines = [
        f"# {len(own)} files of {printable(folder)}, after the recipe {best}.",
        f"# Write this to {own_name}.yaml, look at it with  scm-media check {own_name}.yaml",
        f"# and train it with  scm-media train {own_name}.yaml",
        *(f"# {line}" for line in plan.comments),
        *([f"# Seen: {printable(seen)}."] if seen else []),
        *([f"# Texts: {num_captioned} files have captions in a .txt or .json beside them."] if num_captioned else []),
        "defaults:",
        f"  - {best}",
        "  - override /data: folder",
        *(["  - override /text: minilm  # of captions: pip install 'scm-media[text]'"] if num_captioned else []),
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
    if 0 < num_captioned < len(own):
        lines.append("text: {missing: unconditional}  # files without a caption; leave_out trains on the others alone")
    if not classes:
        lines.append(
            "feature_extractor: null  # a feature network learns from classes; without it there are no figures"
        )
    return "\n".join(lines)


def _count_captioned(own: Sequence[Path], files: Sequence[Path]) -> int:
    """Returns how many files have a file of captions beside them."""
    from scm_media.data.sidecars import split_sidecars

    _, sidecars = split_sidecars(files, {path.suffix.lower() for path in own})
    return sum(str(path.with_suffix("")) in sidecars for path in own)


def held_out(num_files: int) -> float:
    """Returns the fraction of files that is held out: of few files more, a tenth at most."""
    return max(HELD_OUT, round(min(0.1, FEW_HELD_OUT / max(1, num_files)), 3))


def recipe_name(folder: Path) -> str:
    """Returns the name of the recipe for a folder, and of its run folder: the folder's, in letters that shells keep."""
    return re.sub(r"[^\w.-]+", "-", folder.resolve().name, flags=re.ASCII).strip("-.") or "mine"


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


def recipe_for(files: Sequence[Path], folder: Path) -> tuple[str, Any]:
    """Returns the recipe, with its modality, that reads most of the files; of several the one of least effort.

    Raises ValueError when none reads any.
    """
    from scm_media.build import build

    suffixes = Counter(path.suffix.lower() for path in files)
    best, found, most = "", None, 0
    unusable, usable = [], []
    for name in recipe.names():
        if name.endswith("/distil"):  # they need a teacher, beside files
            continue
        try:
            config = recipe.compose(name, NO_DATA)
            usable.append((_order_of(name, config), name, build(config["modality"], "modality")))
        except ValueError as error:
            unusable.append(f"{name} is not usable here: {error}")
    for _, name, modality in sorted(usable, key=lambda entry: entry[:2]):
        count = sum(suffixes[suffix] for suffix in modality.suffixes)
        if count > most:
            best, found, most = name, modality, count
    if not best:
        seen = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(5))
        raise ValueError("; ".join([f"{folder}: no recipe's modality reads these files ({seen or 'none'})", *unusable]))
    return best, found


def _order_of(name: str, config: dict[str, Any]) -> tuple[int, int]:
    """Returns the order of recipes: those for folders first, trials last, then by the samples that the teacher sees."""
    readiness = 0 if name.endswith("/folder") else 2 if name.endswith("/tiny") else 1
    return readiness, config["teacher"]["max_steps"] * config["teacher"]["batch_size"]


def fitting_keys(modality: Any, files: Sequence[Path]) -> tuple[dict[str, Any], str]:
    """Returns keys of the modality that fit these files, and what was seen in them."""
    num = min(NUM_OPENED, len(files))
    return modality.suggest_config([files[place * len(files) // num] for place in range(num)])


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _abbreviate(words: Sequence[str]) -> str:
    return f"{len(words)}: {', '.join(map(printable, words[:5]))}{', …' if len(words) > 5 else ''}"

"""``scm-media recipes`` lists, prints and copies recipes, prints their keys, and proposes one for a folder."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from scm_media import recipe
from scm_media.cli.arguments import parser
from scm_media.cli.proposals import propose
from scm_media.cli.recipe_choice import NO_DATA
from scm_media.display import byte_size, printable, printable_lines

NUM_HOW = 3
"""So many lines at the head of a proposal say what it is of, where to write it, and how to train it."""


def run(arguments: Sequence[str]) -> int:
    """Lists, prints, copies or proposes recipes; returns 0."""
    commands = parser("recipes", "Lists the recipes that are installed, prints or copies one, or proposes one.")
    commands.add_argument("name", nargs="?", metavar="NAME", help="print this recipe, or YAML file, and its cost")
    commands.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="settings of NAME to change before its cost is counted"
    )
    commands.add_argument("--copy", metavar="FILE", help="write the recipe NAME to a new file, to be changed")
    commands.add_argument("--keys", action="store_true", help="print every key of NAME: type, unit, bounds, default")
    commands.add_argument("--json", action="store_true", help="with --keys: as JSON")
    commands.add_argument("--reference", action="store_true", help="print docs/recipe-keys.md")
    commands.add_argument("--for", dest="folder", metavar="FOLDER", help="propose a recipe for a folder of files")
    commands.add_argument(
        "--hours",
        type=float,
        metavar="H",
        help="with --for: time this machine, and fit training and evaluation to H hours",
    )
    commands.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), help="with --hours: the device to train on; default: auto"
    )
    commands.add_argument(
        "--modality",
        metavar="NAME",
        help="with --for: image, audio, video or a plugin's; default: the one that reads most files",
    )
    parsed = commands.parse_intermixed_args(arguments)
    if parsed.folder and parsed.name:
        parsed.overrides, parsed.name = [parsed.name, *parsed.overrides], None
    if parsed.overrides and (parsed.copy or parsed.keys or parsed.reference):
        commands.error("KEY=VALUE goes with NAME, whose cost it changes, or with --for FOLDER")
    if parsed.copy and not parsed.name:
        commands.error("--copy needs the NAME of a recipe; scm-media recipes lists them")
    if parsed.keys and not parsed.name:
        commands.error("--keys needs the NAME of a recipe; scm-media recipes lists them")
    if parsed.json and not parsed.keys:
        commands.error("--json needs --keys: the list of recipes has no JSON")
    if parsed.hours is not None and not parsed.folder:
        commands.error("--hours needs --for FOLDER, the folder of files to train on")
    if parsed.device and parsed.hours is None:
        commands.error("--device needs --hours H: without hours nothing is timed")
    if parsed.modality and not parsed.folder:
        commands.error("--modality needs --for FOLDER, the folder of files to train on")
    if parsed.folder:
        print(text := _propose(parsed))
        if not sys.stdout.isatty():
            _tell(text)
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


def _propose(parsed: Any) -> str:
    device = parsed.device or "auto"
    return propose(Path(parsed.folder), parsed.hours, device, parsed.modality, parsed.overrides)


def _tell(proposal: str) -> None:
    """Prints what a proposal says at its head for a user who sends the rest into a file."""
    head = [line[2:] for line in takewhile(lambda line: line.startswith("# "), proposal.splitlines())]
    for line in [head[0], *head[NUM_HOW:]]:
        print(line, file=sys.stderr)
    file = _standard_output()
    name, where = ("FILE.yaml", ", FILE being what you write this to") if file is None else (command(file), "")
    print(f"next: scm-media check {name} and scm-media train {name}{where}", file=sys.stderr)


def _standard_output() -> Path | None:
    """Returns the recipe file that standard output is sent to, as the user would write it; None where none is found."""
    try:
        file = Path(f"/proc/self/fd/{sys.stdout.fileno()}").readlink()
    except OSError:  # no /proc, a pipe's end, or a stream without a number
        return None
    if file.suffix != recipe.SUFFIX:
        return None
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


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
            f"about {byte_size(counted.training_bytes)} in training on each device, {counted.samples_per_pass} "
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

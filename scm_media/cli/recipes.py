"""``scm-media recipes``: what is shipped, what each needs, and a proposal for a folder of one's own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scm_media import recipe
from scm_media.cli.arguments import parser

NO_DATA = ("++data.root=null",)
"""A recipe is described without its data, which may have to be named first."""

NUM_OPENED = 32
"""Files of a folder that are opened for a proposal, spread over it."""

WEIGHT_COPIES = 6
"""Of a student's training: teacher, student, its average, gradient, and the optimiser's two moments."""


def run(arguments: Sequence[str]) -> int:
    """Lists, prints, copies or proposes; 0."""
    commands = parser("recipes", "Lists the recipes that are installed, prints or copies one, or proposes one.")
    commands.add_argument("name", nargs="?", metavar="NAME", help="print this recipe")
    commands.add_argument("--copy", metavar="FILE", help="write the recipe NAME to a new file, to be changed")
    commands.add_argument("--for", dest="folder", metavar="FOLDER", help="propose a recipe for a folder of files")
    parsed = commands.parse_args(arguments)
    if parsed.copy and not parsed.name:
        commands.error("--copy needs the NAME of a recipe")
    if parsed.folder:
        print(_proposal(Path(parsed.folder)))
    elif parsed.copy:
        _copy(recipe.describe(parsed.name), Path(parsed.copy))
    elif parsed.name:
        print(recipe.describe(parsed.name).text, end="")
    else:
        print("\n\n".join(_entry(name) for name in recipe.names()))
    return 0


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
    print(f"{target}: a copy of {shipped.name}; train it with: scm-media train {target}")


def _entry(name: str) -> str:
    header = recipe.describe(name).header
    lines = [name, *(f"  {line}" for line in header)]
    try:
        lines.append(f"  {_measured(recipe.compose(name, NO_DATA))}")
    except ValueError as error:
        lines.append(f"  not usable here: {error}")
    return "\n".join(lines)


def _measured(config: dict[str, Any]) -> str:
    """Modality, parameters and memory of a recipe, from networks without storage (PyTorch's fake tensors)."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from scm_media.build import build

    modality = build(config["modality"])
    with FakeTensorMode():
        shape = build(config["autoencoder"]["network"]).latent_shape(modality.shape())
        filled: dict[str, Any] = {"in_channels": shape[0], "labels": {}}
        missing = {key: value for key, value in filled.items() if config["backbone"].get(key, 0) is None}
        backbone = build(config["backbone"], **missing)
        parameters = sum(parameter.numel() for parameter in backbone.parameters())
        activations = _activations(backbone, shape) * config["student"]["batch_size"]
    gigabytes = (WEIGHT_COPIES * 4 * parameters + activations) / 2**30
    return (
        f"modality {modality.name}, sample {'×'.join(map(str, modality.shape()))}, {parameters / 1e6:.2f} M parameters "
        f"a network, about {gigabytes:.2g} GiB in training beside PyTorch itself and the data"
    )


def _activations(backbone: Any, shape: Sequence[int]) -> int:
    """Bytes that one clip's forward pass keeps for the backward pass."""
    import torch

    from scm_media.interfaces import Conditioning

    weights = {parameter.untyped_storage()._cdata for parameter in backbone.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # by address, and kept alive so that no other gets the same

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        backbone(torch.empty(1, *shape), torch.empty(1), Conditioning())
    return sum(storage.nbytes() for storage in kept.values())


def _proposal(folder: Path) -> str:
    """A recipe's text for a folder: the modality that most of its files belong to, with keys that fit them."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path, folder))
    best, modality = recipe_for(files, folder)
    own = [path for path in files if path.suffix.lower() in modality.suffixes]
    keys, seen = fitting_keys(modality, own)
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not _hidden(path, folder))
    lines = [
        f"# {len(own)} files of {folder}, after the recipe {best}. Write this to mine.yaml, look at it with",
        "#   scm-media check mine.yaml",
        "# and train it with  scm-media train mine.yaml",
        *([f"# Seen: {seen}."] if seen else []),
        "defaults:",
        f"  - {best}",
        "  - override /data: folder",
        "  - _self_",
        "",
        "recipe: mine",
        "data:",
        f"  root: {json.dumps(str(folder.resolve()), ensure_ascii=False)}",
        f"  labels: {'subfolder  # ' + _shortened(classes) if classes else 'none'}",
        *([f"modality: {{{', '.join(f'{key}: {json.dumps(value)}' for key, value in keys.items())}}}"] if keys else []),
        "trainer: {compile: false}  # true is faster where a compiler is installed and the run is long",
    ]
    if not classes:
        lines.append("embedder: null  # a feature network learns from classes; without it there are no figures")
    return "\n".join(lines)


def recipe_for(files: Sequence[Path], folder: Path) -> tuple[str, Any]:
    """The recipe whose modality reads most of the files, and that modality. Raises ValueError when none reads any."""
    from scm_media.build import build

    suffixes = Counter(path.suffix.lower() for path in files)
    best, found, most = "", None, 0
    unusable = []
    for name in sorted(recipe.names(), key=lambda name: name.endswith("/tiny")):
        try:
            modality = build(recipe.compose(name, NO_DATA)["modality"])
        except ValueError as error:
            unusable.append(f"{name} is not usable here: {error}")
            continue
        count = sum(suffixes[suffix] for suffix in modality.suffixes)
        if count > most:
            best, found, most = name, modality, count
    if not best:
        seen = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(5))
        raise ValueError("; ".join([f"{folder}: no recipe's modality reads these files ({seen or 'none'})", *unusable]))
    return best, found


def fitting_keys(modality: Any, files: Sequence[Path]) -> tuple[dict[str, Any], str]:
    """Keys of the recipe's modality for these files and what was seen; nothing where the modality does not say."""
    if not hasattr(modality, "propose"):
        return {}, ""
    num = min(NUM_OPENED, len(files))
    return modality.propose([files[place * len(files) // num] for place in range(num)])


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _shortened(words: Sequence[str]) -> str:
    return f"{len(words)}: {', '.join(words[:5])}{', …' if len(words) > 5 else ''}"

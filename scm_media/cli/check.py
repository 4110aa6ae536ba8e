"""``scm-media check``: opens a recipe's data and shows what training would see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scm_media import recipe
from scm_media.cli.arguments import parser

NUM_PREVIEWED = 24
NUM_LISTED = 5


def run(arguments: Sequence[str]) -> int:
    """0 when there is something to train on; ValueError, so exit 1, when nothing is usable."""
    commands = parser(
        "check",
        "Opens a recipe's data: counts, shapes, labels, rejects by reason, and a preview in the run folder.",
        usage="scm-media check RECIPE [KEY=VALUE ...]",
    )
    commands.add_argument("recipe", metavar="RECIPE", help="a recipe's name or YAML file")
    commands.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. data=folder data.root=pictures/")
    parsed = commands.parse_args(arguments)
    config = recipe.compose(parsed.recipe, parsed.overrides)

    from scm_media.build import build

    modality = build(config["modality"])
    dataset = build(config["data"], modality=modality, split="train")
    held_out = build(config["data"], modality=modality, split="held_out")
    if len(dataset) == 0:
        raise ValueError(f"{parsed.recipe}: no usable example ({_rejects(dataset.rejects) or 'the data is empty'})")
    print(f"{parsed.recipe}: {modality.name}, {len(dataset)} examples to train on, {len(held_out)} held out")
    print(f"shape: {'×'.join(map(str, dataset.shape))}")
    _print_labels(dataset)
    _print_rejects(dataset)
    print(f"preview: {_write_preview(modality, dataset, Path(config['run_dir']) / 'preview.png')}")
    return 0


def _print_labels(dataset: Any) -> None:
    if not dataset.label_names:
        print("labels: none")
    for name, classes in dataset.label_names.items():
        counts = dataset.label_counts.get(name, ())
        listed = ", ".join(f"{label} {count}" for label, count in zip(classes, counts, strict=True))
        print(f"label {name}: {f'{len(classes)} classes: {listed}' if classes else 'a number'}")


def _print_rejects(dataset: Any) -> None:
    print(f"rejected: {_rejects(dataset.rejects) or 'none'}")
    for source, reason in dataset.rejected[:NUM_LISTED]:
        print(f"  {source}: {reason}")
    if len(dataset.rejected) > NUM_LISTED:
        print(f"  … and {len(dataset.rejected) - NUM_LISTED} more")


def _rejects(rejects: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in rejects.items())


def _write_preview(modality: Any, dataset: Any, path: Path) -> Path:
    """The picture of examples spread over the dataset, and their labels below."""
    import torch

    num = min(NUM_PREVIEWED, len(dataset))
    examples = [dataset[place * len(dataset) // num] for place in range(num)]
    captions = [_caption(example.labels, dataset.label_names) for example in examples]
    picture = modality.preview(torch.stack([example.sample for example in examples]), captions)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def _caption(labels: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> str:
    return " ".join(str(names[name][value] if names[name] else value) for name, value in labels.items())

"""``scm-media check`` opens a recipe's data and shows what training would see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scm_media import recipe
from scm_media.cli.arguments import parser
from scm_media.display import printable

if TYPE_CHECKING:
    from scm_media import Dataset, Example, Modality

NUM_PREVIEWED = 24
NUM_LISTED = 5
ALL = "all"
BREAKS = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})


def run(arguments: Sequence[str]) -> int:
    """Returns 0 when there is something to train on; raises ValueError, so exit 1, when nothing is usable."""
    commands = parser(
        "check",
        "Opens a recipe's data: counts, shapes, labels, rejects by reason, and a preview in the run folder.",
        usage="scm-media check RECIPE [KEY=VALUE ...] [--rejects all|FILE]",
    )
    commands.add_argument(
        "--rejects",
        metavar="all|FILE",
        help="list every file that was left out, not the first five; into FILE, a line each: path, tab, reason",
    )
    commands.add_argument("recipe", metavar="RECIPE", help="a recipe's name or YAML file")
    commands.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="settings to change, e.g. data=folder data.root=pictures/"
    )
    parsed = commands.parse_intermixed_args(arguments)
    config = recipe.compose(parsed.recipe, parsed.overrides)

    from scm_media.build import build
    from scm_media.sources import open_data
    from scm_media.training.passes import STAGES as PASSING
    from scm_media.training.passes import describe_passes

    modality = build(config["modality"], "modality")
    try:
        dataset, held_out = open_data(config, modality, look_anew=True).values()
    except ValueError as error:
        if parsed.rejects is not None:  # nothing is left, and the user asked for the list
            _list_rejects(getattr(error, "rejected", ()), parsed.rejects)
        raise
    if len(dataset) == 0:
        reasons = _list_reasons(dataset.rejects) or "the data is empty"
        raise ValueError(
            f"{parsed.recipe}: no usable example ({reasons}); check data.root, or see each file by --rejects all"
        )
    print(f"{printable(parsed.recipe)}: {modality.name}, {len(dataset)} examples to train on, {len(held_out)} held out")
    print(f"shape: {'×'.join(map(str, dataset.shape))}")
    _print_buckets(modality, dataset)
    _print_labels(dataset)
    if config["text"] is not None:
        _print_texts(dataset, config["text"])
    if names := dataset.action_names:
        print(
            f"actions: {len(names)} numbers for each of {dataset.shape[1]} frames: {', '.join(map(printable, names))}"
        )
    _print_rejects(dataset, parsed.rejects)
    examples = _choose_examples(dataset)
    passes = [describe_passes(config, stage, len(dataset), modality) for stage in PASSING]
    found = [*_find_lonely_classes(dataset, held_out), *_find_warnings(modality, examples), *filter(None, passes)]
    for warning in found:
        print(f"warning: {printable(warning)}")
    preview = _write_preview(modality, dataset, examples, Path(config["run_dir"]) / "preview.png")
    print(f"preview: {printable(preview)}")
    return 0


def _print_labels(dataset: Dataset) -> None:
    from scm_media.prompts import LABEL as PROMPT

    names = {name: classes for name, classes in dataset.label_names.items() if name != PROMPT}
    if not names:
        print("labels: none")
    for name, classes in names.items():
        counts = dataset.label_counts.get(name, ())
        listed = ", ".join(f"{printable(label)} {count}" for label, count in zip(classes, counts, strict=True))
        print(f"label {printable(name)}: {f'{len(classes)} classes: {listed}' if classes else 'a number'}")


def _print_texts(dataset: Dataset, settings: Mapping[str, Any]) -> None:
    """Prints how many texts there are, some of them, and how many tokens they have."""
    from scm_media.training.texts import open_text_encoder

    table = dataset.caption_table
    if table is None:
        return
    counts = table.first.diff()
    without = int((counts == 0).sum())
    texts = sorted({text for place in range(len(table)) for text in table.of_example(place)})
    print(
        f"texts: {len(texts)} different ones, {counts.float().mean().item():.2g} for each example"
        + (f", none for {without} examples" if without else "")
    )
    if table.num_unused:
        print(f"  {table.num_unused} more have no room: text.per_example={settings['per_example']}, captions first")
    for text in texts[:: -(-len(texts) // NUM_LISTED)]:
        print(f"  {printable(text)}")
    try:
        encoder = open_text_encoder(settings)
    except ValueError as error:
        print(f"warning: their tokens were not counted: {printable(str(error))}")
        return
    lengths = sorted(encoder.count_tokens(texts))
    cut = sum(length > encoder.max_tokens for length in lengths)
    print(
        f"tokens by {encoder.name}: {lengths[len(lengths) // 2]} in the median text, {lengths[-1]} in the longest; "
        f"{cut} texts have more than text.max_tokens={encoder.max_tokens} and are cut"
    )


def _print_rejects(dataset: Dataset, where: str | None) -> None:
    print(f"rejected: {_list_reasons(dataset.rejects) or 'none'}")
    if where is not None:
        _list_rejects(dataset.rejected, where)
        return
    _list_rejects(dataset.rejected[:NUM_LISTED], ALL)
    if len(dataset.rejected) > NUM_LISTED:
        print(
            f"  … and {len(dataset.rejected) - NUM_LISTED} more: --rejects all lists them, --rejects FILE writes them"
        )


def _list_rejects(rejected: Sequence[tuple[str, str]], where: str) -> None:
    """Prints what was left out, or writes it into a file; only tabs and line ends of names are escaped there."""
    from scm_media.class_names import name_bytes

    if where == ALL:
        for source, reason in rejected:
            print(f"  {printable(source)}: {printable(reason)}")
        return
    lines = ["\t".join(part.translate(BREAKS) for part in each) + "\n" for each in rejected]
    path = Path(where)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(name_bytes, lines)))
    print(f"  listed in {where}")


def _list_reasons(rejects: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in rejects.items())


def _print_buckets(modality: Modality, dataset: Dataset) -> None:
    if dataset.buckets is not None:
        assert modality.buckets is not None
        counts = dataset.buckets.bincount(minlength=len(modality.buckets)).tolist()
        listed = zip(modality.buckets, counts, strict=True)
        print(f"buckets: {', '.join(f'{high}×{wide} {count}' for (high, wide), count in listed)}")


def _find_lonely_classes(dataset: Dataset, held_out: Dataset) -> list[str]:
    """Returns a warning of the classes that have one example, in training or held out."""
    from scm_media.prompts import LABEL as PROMPT

    lonely = []
    for name, classes in dataset.label_names.items():
        if name == PROMPT:
            continue
        both = zip(classes, dataset.label_counts.get(name, ()), held_out.label_counts.get(name, ()), strict=False)
        lonely += [f"{name} {label}" for label, train, other in both if train + other == 1]
    if not lonely:
        return []
    return [
        f"one example alone: {', '.join(lonely)}; a model repeats it, or never sees it where it is held out: "
        "add more, or take the class away"
    ]


def _find_warnings(modality: Modality, examples: Sequence[Example]) -> list[str]:
    """Returns the modality's warnings, and the fraction that is padding."""
    found = modality.data_warnings([example.sample for example in examples])
    masks = [example.padding_mask for example in examples if example.padding_mask is not None]
    if masks:
        fraction = 1 - sum(mask.mean().item() for mask in masks) / len(masks)
        found = [*found, f"{fraction:.0%} of the {len(masks)} examples that were looked at is padding, and left out"]
    return found


def _choose_examples(dataset: Dataset) -> list[Example]:
    """Returns examples spread over the dataset, or over its largest bucket, since the preview shows one shape."""
    indices: Sequence[int] = range(len(dataset))
    if (buckets := dataset.buckets) is not None:
        indices = (buckets == buckets.bincount().argmax()).nonzero().flatten().tolist()
    num = min(NUM_PREVIEWED, len(indices))
    return [dataset[indices[number * len(indices) // num]] for number in range(num)]


def _write_preview(modality: Modality, dataset: Dataset, examples: Sequence[Example], path: Path) -> Path:
    """Writes a picture of examples with their labels below, and returns its path."""
    import torch

    captions = [_write_caption(example.labels, dataset.label_names) for example in examples]
    picture = modality.preview(torch.stack([example.sample for example in examples]), captions)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def _write_caption(labels: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> str:
    return " ".join(str(names[name][value] if names[name] else value) for name, value in labels.items())

"""``scm-media bench`` prints the speed table of a recipe, measured in one run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from scm_media.cli.arguments import parser
from scm_media.cli.output import print_json
from scm_media.display import printable
from scm_media.progress import Progress

PRECISIONS = {"float32": "32-true", "bf16": "bf16-mixed"}


def run(arguments: Sequence[str]) -> int:
    """Prints the table; returns 0."""
    parsed = _parser().parse_intermixed_args(arguments)
    config, labels = _config(parsed.name, parsed.overrides)
    if parsed.precision is not None:
        config["precision"] = PRECISIONS[parsed.precision]
    if parsed.compile:
        config["trainer"] = {**config["trainer"], "compile": True}

    from scm_media.evaluation.speed import measure_speed
    from scm_media.pipeline.loaded_model import choose_device

    device = choose_device(parsed.device)
    table = measure_speed(config, device, parsed.batch_size, parsed.repeats, labels, Progress())
    if parsed.json:
        print_json(table)
    else:
        _print(table)
    return 0


def _parser() -> argparse.ArgumentParser:
    commands = parser(
        "bench",
        "Times training steps, one evaluation, decoding and loading in turns, in one run: medians after a warm-up.",
        usage="scm-media bench RECIPE|MODEL [KEY=VALUE ...] [flags]",
        epilog="Networks are fresh: speed does not depend on weights. Without the recipe's data all else is timed.",
    )
    commands.add_argument("name", metavar="RECIPE|MODEL", help="a recipe's name or YAML file, or a run or model folder")
    commands.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of a recipe, e.g. trainer.num_workers=4")
    commands.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    commands.add_argument("--precision", choices=tuple(PRECISIONS), help="of the networks; default: the recipe's")
    commands.add_argument("--batch-size", type=int, metavar="B", help="samples in a step; default: the student's")
    commands.add_argument("--compile", action="store_true", help="compile the networks, whatever the recipe says")
    commands.add_argument("--repeats", type=int, default=7, metavar="R", help="rounds; default: 7")
    commands.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return commands


def _config(name: str, overrides: Sequence[str]) -> tuple[dict[str, Any], Mapping[str, Sequence[str]]]:
    """Returns the recipe to measure, and the labels that a model's description has."""
    from scm_media import recipe

    if name in recipe.names() or name.endswith(recipe.SUFFIX):
        return recipe.compose(name, overrides), {}
    if overrides:
        raise ValueError(
            f"{' '.join(overrides)}: settings go with a recipe, and {name} is none; scm-media recipes lists them"
        )

    from scm_media.pipeline import ModelFolder

    folder = ModelFolder.open(name)
    config = folder.recipe()
    if config is None:
        raise ValueError(f"{folder.path} holds no recipe.yaml, so its training is not known; name its recipe instead")
    config.setdefault("conditioning", {"mask": None})  # absent from old recipes
    return config, folder.description.labels


def _print(table: Mapping[str, Any]) -> None:
    compiled = ", compiled" if table["compile"] else ""
    print(
        f"{printable(table['recipe'])} on {table['device']} ({table['num_threads']} threads), "
        f"{table['precision']}{compiled}, "
        f"batches of {table['batch_size']}; seconds a batch"
    )
    width = max(len(row["what"]) for row in table["rows"])
    print(f"{'':{width}}  {'median':>9}  {'least':>9}  {'most':>9}  {'ratio':>6}")
    for row in table["rows"]:
        seconds = "  ".join(f"{row[f'seconds_{which}']:9.4f}" for which in ("median", "min", "max"))
        print(f"{row['what']:{width}}  {seconds}  {row['ratio']:6.3f}")
    for what, reason in table["left_out"].items():
        print(f"{what}: not measured ({printable(reason)})")
    data = table["data"]
    if "missing" in data:
        print(f"loading: not measured, the data are not here ({printable(data['missing'])})")
        return
    print(
        f"loading: {data['examples_per_second']:.0f} examples/s with {data['workers']} workers; a diffusion step that "
        f"is fed by them waits {100 * data['wait_fraction']:.1f} % of its time"
    )

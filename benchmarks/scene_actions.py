"""Measures how often a clip that was made for words about movement moves as they say.

    python benchmarks/scene_actions.py MODEL [--rows teacher 1 2] [-n 400] [--data MANIFEST] [--wording TEMPLATE]

The texts are ``TEMPLATES`` filled with place and motion of held-out clips, of as many training clips ("seen"), and with
``--wording`` of held-out clips in other words (``asked``). A judge with the architecture of the recipe's feature
extractor, which sees motion, and with weights of its own learns from training clips, whose buttons are known, what
each half of a clip does: it turns (left, right or not), walks (forward, back or not), steps aside (left, right or not)
and fires or not. Each column is the fraction of halves that do what the text says, among those whose text says that
something is done; ``all`` is the fraction of clips that do, and leave undone, all that their text says.

The first rows are the clips themselves (the judge's own hit rate: the ceiling), the same through the autoencoder, and
the clips under each other's texts (chance).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from asked import HELD_OUT, OTHER_WORDS, add_text_flags, asked, asked_splits, open_text_model, reword
from samples import BATCH_SIZE, Samples, choose, draw_recordings, fit, print_figures, say, through_autoencoder
from torch import Tensor, nn

from scm_media import weights
from scm_media.build import build
from scm_media.data.captions import CaptionedDataset
from scm_media.data.order import select
from scm_media.pipeline import Pipeline

MOVES = {
    "turns": ("turning left", "turning right"),
    "walks": ("walking forward", "walking back"),
    "steps aside": ("stepping left", "stepping right"),
    "fires": ("firing",),
}
"""What a half of a clip does, as ``examples/render_scenes.py`` words it."""

HALVES = 2
THEN = ", then "
TEMPLATES = ("{motion} through {place}", "{place}; {motion}")
"""Two of the recipe's templates, which say where and how the player moves."""

COLUMNS = {
    "texts": "texts",
    "evaluations": "evaluations",
    **{name: name for name in MOVES},
    "all": "all",
    "num": "samples",
}


def wanted_moves(motion: str) -> dict[str, int]:
    """Returns class numbers by head, "turns 0" to "fires 1": 0 for what a half of the clip leaves undone.

    motion: the column of the manifest, "walking forward, then turning left"; without "then" both halves are alike.
    """
    halves = motion.split(THEN)
    return {
        f"{name} {half}": next((place for place, word in enumerate(words, 1) if word in halves[half % len(halves)]), 0)
        for name, words in MOVES.items()
        for half in range(HALVES)
    }


def targets_of(motions: Sequence[str]) -> dict[str, Tensor]:
    """Returns class numbers ``(N,)`` by head of clips with these motions."""
    each = [wanted_moves(motion) for motion in motions]
    return {head: torch.tensor([moves[head] for moves in each]) for head in each[0]}


def build_judge(config: Mapping[str, Any]) -> nn.Module:
    """Returns an untrained judge; config: of the recipe's feature extractor."""
    labels = {f"{name} {half}": len(words) + 1 for name, words in MOVES.items() for half in range(HALVES)}
    judge: nn.Module = build({**config, "labels": labels}, "feature_extractor")
    return judge


def train_or_load(
    file: Path, config: Mapping[str, Any], data: CaptionedDataset, steps: int, size: int = 32, seed: int = 1
) -> nn.Module:
    """Returns the judge that a file holds, or one that is trained in so many steps of ``size`` and saved there."""
    torch.manual_seed(seed)
    judge = build_judge(config)
    if file.is_file():
        weights.load_into(judge, weights.read(file).state, file)
        return judge.eval()
    motions = [data.fields(index)["motion"] for index in range(len(data))]
    optimizer = torch.optim.Adam(judge.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def loss(chosen: Sequence[int]) -> Tensor:
        scores, targets = judge(data.batch(chosen).sample), targets_of([motions[index] for index in chosen])
        each = [nnf.cross_entropy(scores[head], target, label_smoothing=0.05) for head, target in targets.items()]
        return torch.stack(each).sum()

    seen = ([index for _, index in select(range(k, k + size), len(data), seed)] for k in range(0, size * steps, size))
    fit(map(loss, seen), optimizer, schedule, "judge of motion", say)
    weights.save(file, judge.state_dict(), {**config, "steps": steps})
    return judge.eval()


@torch.inference_mode()
def figures(judge: nn.Module, texts: str, samples: Samples, motions: Sequence[str]) -> dict[str, Any]:
    """Returns a row of the table; motions: what each sample is to show."""
    parts = [judge(part) for part in samples.samples.split(BATCH_SIZE)]
    found = {head: torch.cat([part[head].argmax(1) for part in parts]) for head in parts[0]}
    targets = targets_of(motions)
    right = {head: found[head] == target for head, target in targets.items()}
    row: dict[str, Any] = {"samples": samples.name, "texts": texts, "evaluations": samples.evaluations}
    for name in MOVES:
        heads = [f"{name} {half}" for half in range(HALVES)]
        told = torch.cat([right[head][targets[head] > 0] for head in heads])
        row[name] = float(told.double().mean()) if len(told) else None
    row["all"] = float(torch.stack(list(right.values())).all(0).double().mean())
    row["num"] = len(samples)
    return row


def cases(
    pipeline: Pipeline, splits: Mapping[str, CaptionedDataset], parsed: argparse.Namespace
) -> Iterator[tuple[str, Samples, list[str]]]:
    """Yields which texts, samples, and how each is to move: clips first, then the model's samples."""
    for texts, data in splits.items():
        real = draw_recordings(data, parsed.num)
        motions = [data.fields(index)["motion"] for index in choose(data, parsed.num)]
        yield texts, real, motions
        yield texts, through_autoencoder(real, pipeline), motions
        yield texts, replace(real, name="recordings under each other's texts"), motions[1:] + motions[:1]
        for row in parsed.rows:
            yield texts, asked(pipeline, row, reword(data, parsed.num, TEMPLATES), real, parsed), motions
        if parsed.wording and texts == HELD_OUT:
            other = reword(data, parsed.num, parsed.wording)
            yield from ((OTHER_WORDS, asked(pipeline, row, other, real, parsed), motions) for row in parsed.rows)


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, trains the judge where there is none, measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_flags(parser)
    parser.add_argument("--judge", type=Path, default=Path("runs/judges/motion.safetensors"), metavar="FILE")
    parser.add_argument("--judge-steps", type=int, default=1_300, metavar="N")
    parsed = parser.parse_args(arguments)
    pipeline, config, train, held_out = open_text_model(parser, parsed)
    if "motion" not in train.fields(0):
        parser.error(f"the data of {parsed.model} have no column motion; see examples/render_scenes.py")
    judge = train_or_load(parsed.judge, config["feature_extractor"]["network"], train, parsed.judge_steps)
    rows = []
    for texts, samples, motions in cases(pipeline, asked_splits(parsed, train, held_out), parsed):
        rows.append(figures(judge, texts, samples, motions))
        say(f"{texts}, {samples.name}: all {rows[-1]['all']:.3f}")
    print_figures({"model": pipeline.name, "seed": parsed.seed, "rows": rows}, COLUMNS, parsed)


if __name__ == "__main__":
    main()

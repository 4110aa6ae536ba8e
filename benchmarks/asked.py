"""Makes samples for the texts of examples with a model of texts, and yields these examples beside them.

The texts are those of held-out examples, those of as many training examples ("seen"; not with ``--no-seen``), and with
``--wording`` the held-out examples in other words: templates that the model was not trained on, filled with an
example's labels and columns, which take turns. An example whose columns fill none of them keeps its own text.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from samples import Samples, add_flags, choose, draw_recordings, generate, through_autoencoder

from scm_media import load
from scm_media.build import build
from scm_media.data.captions import CaptionedDataset, fill_templates
from scm_media.pipeline import Pipeline
from scm_media.prompts import LABEL
from scm_media.sources import open_data

HELD_OUT, SEEN, OTHER_WORDS = "held out", "seen", "held out, other words"


def add_wording_flag(parser: argparse.ArgumentParser) -> None:
    """Adds ``--wording``."""
    parser.add_argument(
        "--wording",
        action="append",
        default=[],
        metavar="TEMPLATE",
        help='text with names of labels and columns in braces, e.g. "please play {note} on a {instrument}"; repeatable',
    )


def add_text_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of figures of models of texts."""
    add_flags(parser, ("teacher", "1", "2"), 400)
    add_wording_flag(parser)
    parser.add_argument("--no-seen", action="store_true", help="leave out the texts of training examples")


def asked_splits(
    parsed: argparse.Namespace, train: CaptionedDataset, held_out: CaptionedDataset
) -> dict[str, CaptionedDataset]:
    """Returns the data whose texts are asked for, by the words for them."""
    return {HELD_OUT: held_out} if parsed.no_seen else {HELD_OUT: held_out, SEEN: train}


def open_text_model(
    parser: argparse.ArgumentParser, parsed: argparse.Namespace
) -> tuple[Pipeline, dict[str, Any], CaptionedDataset, CaptionedDataset]:
    """Returns the model, its recipe, and its training and held-out data; ends with usage for a model without texts."""
    pipeline = load(parsed.model, precision=parsed.precision)
    config = pipeline.folder.recipe()
    if pipeline.text is None or config is None:
        parser.error(f"{parsed.model} takes no text, or has no recipe.yaml")
    return pipeline, config, *open_texts(config, parsed.data)


def open_texts(config: dict[str, Any], manifest: Any = None) -> tuple[CaptionedDataset, CaptionedDataset]:
    """Returns training and held-out data of a recipe with texts; manifest: their path, if it has moved.

    Raises ValueError for a recipe whose data have no texts.
    """
    if manifest is not None:
        config["data"]["path"] = str(manifest)
    splits = open_data(config, build(config["modality"], "modality"))
    train, held_out = splits["train"], splits["held_out"]
    if not (isinstance(train, CaptionedDataset) and isinstance(held_out, CaptionedDataset)):
        raise ValueError(f"the recipe {config['recipe']} has no section text")
    return train, held_out


def reword(data: CaptionedDataset, num: int, templates: Sequence[str]) -> list[str]:
    """Returns the texts of the examples that ``draw_recordings`` draws, in other words."""
    found = []
    for place, index in enumerate(choose(data, num)):
        turned = [templates[(place + each) % len(templates)] for each in range(len(templates))]
        filled = fill_templates(data.fields(index), turned)
        found.append(filled[0] if filled else data.caption_table.of_example(index)[0])
    return found


def collect_asked(
    pipeline: Pipeline, splits: Mapping[str, CaptionedDataset], parsed: argparse.Namespace
) -> Iterator[tuple[str, Samples]]:
    """Yields which texts, and samples for them: examples, the same through the autoencoder, then the model's.

    All samples of a split have the examples' labels, and their text as the label ``prompt``.
    """
    for texts, data in splits.items():
        real = draw_recordings(data, parsed.num)
        yield texts, real
        yield texts, through_autoencoder(real, pipeline)
        own = [str(label[LABEL]) for label in real.labels]
        yield from ((texts, asked(pipeline, row, own, real, parsed)) for row in parsed.rows)
    if parsed.wording:
        data = splits[HELD_OUT]
        other, real = reword(data, parsed.num, parsed.wording), draw_recordings(data, parsed.num)
        yield from ((OTHER_WORDS, asked(pipeline, row, other, real, parsed)) for row in parsed.rows)


def asked(
    pipeline: Pipeline, row: str, prompts: Sequence[str], examples: Samples, parsed: argparse.Namespace
) -> Samples:
    """Returns a model's samples for one text each, with the labels of the examples that have these texts."""
    return generate(pipeline, row, len(prompts), parsed.seed, prompts, examples.labels)

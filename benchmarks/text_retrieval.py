"""Measures how often a sample that was made for a text is nearer to it than to other texts.

    python benchmarks/text_retrieval.py MODEL [--rows teacher 1 2] [-n 400] [--data MANIFEST] [--wording TEMPLATE]

A scorer learns, from the training data alone, features of samples and of texts whose cosine is large for those that
belong together (InfoNCE with a learned temperature: van den Oord et al. 2018, arXiv 1807.03748, equation 4; Radford et
al. 2021, arXiv 2103.00020). It has the architecture of the recipe's feature extractor and weights of its own, or, with
``--frozen``, begins with what the model's own feature extractor computes before its last layer, which takes minutes for
videos instead of an hour. Texts come as the vectors of the model's text encoder. Each sample is then compared with its
text and with 19 others, which differ from it: top-1 is how often its own has the largest cosine, top-5 how often it is
among five. Chance is 0.05 and 0.25.

The module ``asked`` says which texts these are. Samples for other words are compared with the examples' own texts, the
only ones that the scorer has seen. The first rows are the examples themselves, and the same through the autoencoder.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as nnf
from asked import add_text_flags, asked_splits, collect_asked, open_text_model
from samples import BATCH_SIZE, Samples, fit, print_figures, say
from torch import Tensor, nn

from scm_media import weights
from scm_media.build import build
from scm_media.data.captions import CaptionedDataset
from scm_media.data.loader import batches
from scm_media.data.order import select
from scm_media.nn.classifier import LabelClassifier
from scm_media.pipeline import Pipeline
from scm_media.prompts import LABEL, PromptBank

NUM_TEXTS = 20
COLUMNS = {
    "texts": "texts",
    "evaluations": "evaluations",
    "top1": "top-1",
    "top1_error": "±",
    "top5": "top-5",
    "num": "samples",
}


class Frozen(nn.Module):
    """Computes what a feature extractor makes its features of: the inputs of the last linear layer of its trunk."""

    def __init__(self, network: LabelClassifier) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        # In a list, so that it is no second name of a weight that is saved.
        self._last = [layer for layer in network.trunk.modules() if isinstance(layer, nn.Linear)][-1:]

    @torch.no_grad()
    def features(self, sample: Tensor) -> Tensor:
        """Returns the inputs ``(B, width)`` for samples ``(B, C, *S)``."""
        kept: list[Tensor] = []
        handle = self._last[0].register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        self.network.features(sample)
        handle.remove()
        return kept[0]

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, whose statistics are those of the extractor's own training."""
        return super().train(False)


class Scorer(nn.Module):
    """Computes features of samples and of texts, of unit length, which are near where a text describes the sample.

    network: has ``features(sample)`` of ``width`` numbers; where it is frozen, a hidden layer follows them. text_width:
    of the encoder's vectors of texts.
    """

    def __init__(self, network: Any, width: int, text_width: int, shared: int = 128) -> None:
        super().__init__()
        hidden = (nn.BatchNorm1d(width, affine=False), nn.Linear(width, 256), nn.SiLU(), nn.Dropout(0.2))
        is_frozen = isinstance(network, Frozen)
        self.network = network
        self.of_sample = nn.Sequential(*hidden, nn.Linear(256, shared)) if is_frozen else nn.Linear(width, shared)
        self.of_text = nn.Sequential(nn.Linear(text_width, 256), nn.SiLU(), nn.Linear(256, shared))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def samples(self, sample: Tensor) -> Tensor:
        """Returns the features ``(B, 128)`` of samples ``(B, C, *S)``."""
        return self.project(self.network.features(sample))

    def project(self, features: Tensor) -> Tensor:
        """Returns the features ``(B, 128)`` of samples, given those ``(B, width)`` of the network."""
        return nnf.normalize(self.of_sample(features), dim=-1)

    def texts(self, pooled: Tensor) -> Tensor:
        """Returns the features ``(B, 128)`` of texts, given their vectors ``(B, p)``."""
        return nnf.normalize(self.of_text(pooled), dim=-1)

    def loss(self, samples: Tensor, pooled: Tensor, texts: Tensor) -> Tensor:
        """Returns the loss of a batch in both directions, from the features ``(B, 128)`` of its samples.

        pooled: the encoder's vectors of all texts. texts: the number of each sample's own, ``(B,)``.
        """
        same = (texts[:, None] == texts).float()
        scores = self.log_scale.exp().clamp(max=100) * samples @ self.texts(pooled[texts]).T
        wanted = same / same.sum(1, keepdim=True)
        return (nnf.cross_entropy(scores, wanted) + nnf.cross_entropy(scores.T, wanted)) / 2


def train_or_load(
    file: Path,
    network: Any,
    config: dict[str, Any],
    data: CaptionedDataset,
    bank: PromptBank,
    steps: int,
    seed: int = 1,
) -> Scorer:
    """Returns the scorer that a file holds, or one that is trained in so many steps and saved there.

    network: computes the features of samples; config: its configuration, which is saved beside the weights.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        width = network.features(data.batch([0, 1]).sample).shape[-1]
    pooled = bank.embeddings["pooled"].float()
    scorer = Scorer(network, width, pooled.shape[-1])
    if file.is_file():
        weights.load_into(scorer, weights.read(file).state, file)
        return scorer.eval()
    optimizer = torch.optim.AdamW([each for each in scorer.parameters() if each.requires_grad], 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    if isinstance(network, Frozen):
        drawn = _draw_features(network, data, steps, seed)
        losses = (scorer.loss(scorer.project(features), pooled, texts) for features, texts in drawn)
    else:
        read = ((batch.sample, batch.labels[LABEL]) for batch in batches(data, 2 * BATCH_SIZE, 0, steps, seed))
        losses = (scorer.loss(scorer.samples(sample), pooled, texts) for sample, texts in read)
    fit(losses, optimizer, schedule, "scorer", say)
    weights.save(file, scorer.state_dict(), {**config, "steps": steps})
    return scorer.eval()


def _draw_features(network: Frozen, data: CaptionedDataset, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields batches of features ``(B, width)``, which are computed once for each example, and the texts' numbers."""
    parts = []
    for first in range(0, len(data), BATCH_SIZE):
        parts.append(network.features(data.batch(range(first, min(first + BATCH_SIZE, len(data)))).sample))
        if first % (20 * BATCH_SIZE) == 0:
            say(f"features of {first} of {len(data)} examples")
    features, generator = torch.cat(parts), torch.Generator().manual_seed(seed)
    for step in range(steps):
        chosen = select(range(2 * BATCH_SIZE * step, 2 * BATCH_SIZE * (step + 1)), len(data), seed)
        indices = [index for _, index in chosen]
        yield features[indices], data.caption_table.draw(indices, [generator] * len(indices))


@torch.inference_mode()
def rank_own(scorer: Scorer, samples: Tensor, texts: Sequence[int], pooled: Tensor) -> Tensor:
    """Returns the rank ``(N,)`` of each sample's own text among ``NUM_TEXTS``, from 0; the others are drawn by seed."""
    generator = torch.Generator().manual_seed(0)
    different = sorted(set(texts))
    if len(different) < NUM_TEXTS:
        raise ValueError(f"{len(different)} different texts are too few: {NUM_TEXTS} are compared")
    features = torch.cat([scorer.samples(part) for part in samples.split(BATCH_SIZE)])
    of_text = {number: scorer.texts(pooled[number][None])[0] for number in different}
    ranks = []
    for feature, own in zip(features, texts, strict=True):
        others = [different[place] for place in torch.randperm(len(different), generator=generator).tolist()]
        others = [number for number in others if number != own][: NUM_TEXTS - 1]
        scores = torch.stack([of_text[number] for number in (own, *others)]) @ feature
        ranks.append(int((scores[1:] >= scores[0]).sum()))
    return torch.tensor(ranks)


def figures(texts: str, samples: Samples, ranks: Tensor) -> dict[str, Any]:
    """Returns a row of the table."""
    num, top1 = len(ranks), (ranks == 0).double().mean().item()
    return {
        "samples": samples.name,
        "texts": texts,
        "evaluations": samples.evaluations,
        "top1": top1,
        "top1_error": math.sqrt(top1 * (1 - top1) / num),
        "top5": (ranks < 5).double().mean().item(),
        "num": num,
    }


def measure(
    pipeline: Pipeline, scorer: Scorer, splits: Mapping[str, CaptionedDataset], parsed: argparse.Namespace
) -> list[dict[str, Any]]:
    """Returns all rows."""
    assert pipeline.text is not None
    bank, rows = pipeline.text.bank, []
    pooled, number = bank.embeddings["pooled"].float(), {text: place for place, text in enumerate(bank.prompts)}
    for texts, samples in collect_asked(pipeline, splits, parsed):
        own = [number[str(label[LABEL])] for label in samples.labels]
        rows.append(figures(texts, samples, rank_own(scorer, samples.samples, own, pooled)))
        say(f"{texts}, {samples.name}: top-1 {rows[-1]['top1']:.3f}")
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, trains the scorer where there is none, measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_text_flags(parser)
    parser.add_argument("--scorer", type=Path, default=Path("runs/judges/texts.safetensors"), metavar="FILE")
    parser.add_argument("--frozen", action="store_true", help="let the scorer begin with the model's feature extractor")
    parser.add_argument("--scorer-steps", type=int, default=1_500, metavar="N")
    parsed = parser.parse_args(arguments)
    pipeline, config, train, held_out = open_text_model(parser, parsed)
    assert pipeline.text is not None
    if train.caption_table.texts != pipeline.text.bank.prompts:
        parser.error(f"{parsed.model} carries other texts than its data have: give its run folder")
    if parsed.frozen:
        own, network = config["feature_extractor"]["network"], Frozen(pipeline.network("feature_extractor"))
    else:
        own = {**config["feature_extractor"]["network"], "labels": {"any": 2}}
        network = build(own, "feature_extractor")
    scorer = train_or_load(parsed.scorer, network, own, train, pipeline.text.bank, parsed.scorer_steps)
    rows = measure(pipeline, scorer, asked_splits(parsed, train, held_out), parsed)
    print_figures({"model": pipeline.name, "seed": parsed.seed, "rows": rows}, COLUMNS, parsed)


if __name__ == "__main__":
    main()

"""The samples, the classifier, the flags and the tables that benchmarks of a model's figures share.

Samples are recordings that training held out, the same through the autoencoder alone (the best that a model can
reach), samples of a model, or the files of a folder with their labels inside.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from modalities.audio import read_metadata
from modalities.audio.features import AudioClassifier
from scm_media import weights
from scm_media.build import build
from scm_media.data import Dataset
from scm_media.data.loader import batches
from scm_media.evaluation.rows import Row
from scm_media.modality import Modality
from scm_media.pipeline import ModelFolder, Pipeline
from scm_media.pipeline.labels import LabelSet
from scm_media.sources import open_data

BATCH_SIZE = 64


@dataclass(frozen=True)
class Samples:
    """Samples ``(N, C, *S)`` with their labels; evaluations: network calls for one sample, None for recordings."""

    name: str
    samples: Tensor
    labels: Sequence[Mapping[str, str | float]]
    evaluations: int | None = None

    def __len__(self) -> int:
        return len(self.samples)


def read_recipe(folder: ModelFolder) -> dict[str, Any]:
    """Returns the recipe that a model carries; raises ValueError where it has none."""
    config = folder.recipe()
    if config is None:
        raise ValueError(f"{folder.path} holds no recipe.yaml, so that its data are not known")
    return config


def with_label(config: dict[str, Any], label: str | None) -> dict[str, Any]:
    """Returns a recipe whose data have this column among their labels; its columns for templates lose it."""
    data = config["data"]
    if label is None or label in (data.get("labels") or [label]):
        return config
    fields = [field for field in data.get("fields") or [] if field != label]
    return {**config, "data": {**data, "labels": [*data["labels"], label], "fields": fields}}


def data_of(
    folder: ModelFolder, manifest: Path | None, label: str | None = None
) -> tuple[Dataset, Dataset, Path | None]:
    """Returns training data, held-out data and manifest of a model's recipe; manifest: its path, if it has moved.

    label: a column that is to be a label of the data, if it is none yet. Raises ValueError where the model has no
    recipe, or its data are not there.
    """
    data = dict(with_label(read_recipe(folder), label)["data"])
    if manifest is not None:
        data["path"] = str(manifest)
    config = {**read_recipe(folder), "data": data, "text": None}
    train, held_out = open_data(config, build(config["modality"], "modality")).values()
    path = data.get("path")
    return train, held_out, None if path is None else Path(path)


def choose(dataset: Dataset, num: int) -> list[int]:
    """Returns the numbers of at most ``num`` examples, by a fixed seed, since data list one class after the other."""
    return torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:num].tolist()


def draw_recordings(dataset: Dataset, num: int) -> Samples:
    """Returns at most ``num`` recordings, those of ``choose``."""
    order = choose(dataset, num)
    parts = [dataset.batch(order[first : first + BATCH_SIZE]) for first in range(0, len(order), BATCH_SIZE)]
    labels = [
        {
            name: dataset.label_names[name][int(value)] if dataset.label_names[name] else float(value)
            for name, value in zip(part.labels, values, strict=True)
        }
        for part in parts
        for values in zip(*(label.tolist() for label in part.labels.values()), strict=True)
    ]
    return Samples("recordings", torch.cat([part.sample for part in parts]), labels)


@torch.inference_mode()
def through_autoencoder(samples: Samples, pipeline: Pipeline) -> Samples:
    """Returns the samples, encoded and decoded."""
    autoencoder = pipeline.network("autoencoder")
    decoded = [
        pipeline.decode(autoencoder.encode(part.to(pipeline.device))) for part in samples.samples.split(BATCH_SIZE)
    ]
    return replace(samples, name=f"{samples.name}, through the autoencoder", samples=torch.cat(decoded))


def generate(
    pipeline: Pipeline,
    row: str,
    num: int,
    seed: int,
    prompts: Sequence[str] | None = None,
    labels: Sequence[Mapping[str, str | float]] | None = None,
) -> Samples:
    """Returns samples 0 to num − 1 of a seed; row: steps, "teacher" or "teacher:STEPS".

    prompts: a text for each. labels: what the samples are to show; None: the labels that they were made for.
    """
    parsed = Row.parse(row, pipeline)
    texts = {} if prompts is None else {"prompt": list(prompts)}
    made = pipeline(num, seed=seed, batch_size=BATCH_SIZE, **texts, **parsed.arguments)
    name = f"{parsed.sampler}, {parsed.steps} step{'s' if parsed.steps > 1 else ''}"
    shown = made.labels if labels is None else labels
    return Samples(f"teacher: {name}" if parsed.teacher else name, made.samples, shown, made.evaluations)


def read_folder(folder: Path, modality: Modality, labels: LabelSet) -> Samples:
    """Returns the sounds of a folder, with the labels that ``scm-media generate`` writes into files.

    Raises ValueError for a folder without sounds, and for a sound without a label.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in modality.suffixes)
    if not files:
        raise ValueError(f"{folder} holds no sounds ({', '.join(sorted(modality.suffixes))})")
    parsed = []
    for file in files:
        label = read_metadata(file).get("label")
        if label is None:
            raise ValueError(f"{file} has no label inside; scm-media generate writes one")
        parsed.append(labels.parse(label))
    samples = torch.stack([modality.transform(modality.read(file)) for file in files])
    return Samples(str(folder), samples, parsed)


class Judge:
    """A classifier of one label, trained on recordings alone and independent of the model."""

    def __init__(self, network: nn.Module, label: str, classes: Sequence[str]) -> None:
        self.network, self.label, self.classes = network.eval(), label, list(classes)

    @classmethod
    def train_or_load(
        cls, dataset: Dataset, label: str, file: Path, steps: int, seed: int = 1, say: Callable[[str], None] = print
    ) -> Judge:
        """Returns the judge that a file holds, or one that is trained in so many steps and saved there.

        Its initialisation, order of data and width differ from the model's own feature extractor. Raises ValueError
        where the file holds a judge of other classes.
        """
        classes = dataset.label_names[label]
        config = {
            "_target_": "modalities.audio.features.AudioClassifier",
            "channels": dataset.shape[0],
            "labels": {label: len(classes)},
            "sample_rate": dataset.modality.sample_rate,  # type: ignore[attr-defined]
            "width": 16,
        }
        torch.manual_seed(seed)
        network: AudioClassifier = build(config, "feature_extractor")
        if file.is_file():
            component = weights.read(file)
            if component.info.get("classes") != list(classes):
                raise ValueError(f"{file} holds a judge of {component.info.get('classes')}, not of {list(classes)}")
            weights.load_into(network, component.state, file)
            return cls(network, label, classes)
        _train(network, dataset, label, steps, seed, say)
        weights.save(file, network.state_dict(), config, {"classes": list(classes), "steps": steps})
        return cls(network, label, classes)

    @torch.inference_mode()
    def recognise(self, samples: Samples) -> Tensor:
        """Returns whether the judge recognises each sample's label, ``(N,)`` bool."""
        scores = torch.cat([self.network(part)[self.label] for part in samples.samples.split(BATCH_SIZE)])
        wanted = torch.tensor([self.classes.index(str(label[self.label])) for label in samples.labels])
        return scores.argmax(1) == wanted


def _train(
    network: AudioClassifier, dataset: Dataset, label: str, steps: int, seed: int, say: Callable[[str], None]
) -> None:
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    losses = (
        nnf.cross_entropy(network(batch.sample)[label], batch.labels[label], label_smoothing=0.05)
        for batch in batches(dataset, BATCH_SIZE, 0, steps, seed)
    )
    fit(losses, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps), f"judge of {label}", say)


def fit(
    losses: Iterable[Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    name: str,
    say: Callable[[str], None],
) -> None:
    """Takes a step for each loss, and tells every fiftieth; name: what is trained.

    Losses are computed when they are asked for, from the weights after the step before.
    """
    for step, loss in enumerate(losses, 1):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            say(f"{name}, step {step}: loss {loss.item():.3f}")


def say(text: str) -> None:
    """Prints progress on standard error."""
    print(text, file=sys.stderr, flush=True)


def format_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Returns rows as a Markdown table; columns: key to heading, floats have three decimals, None is a dash.

    Columns that no row has a value for are left out.
    """
    shown = {key: heading for key, heading in columns.items() if any(row[key] is not None for row in rows)}
    lines = ["| samples | " + " | ".join(shown.values()) + " |", "|---|" + "---|" * len(shown)]
    for row in rows:
        cells = (
            "–" if row[key] is None else f"{row[key]:.3f}" if isinstance(row[key], float) else str(row[key])
            for key in shown
        )
        lines.append(f"| {row['samples']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def add_flags(parser: argparse.ArgumentParser, rows: Sequence[str], num: int) -> None:
    """Adds the model and the flags that all figures have; rows, num: their defaults."""
    parser.add_argument("model", help="a run folder, a model folder or a bundled name")
    parser.add_argument("--rows", nargs="*", default=list(rows), metavar="ROW", help="as of evaluate")
    parser.add_argument("-n", "--num", type=int, default=num, metavar="N", help=f"samples a row; default: {num}")
    parser.add_argument("--data", type=Path, metavar="MANIFEST", help="the data's path; default: the recipe's")
    parser.add_argument("--seed", type=int, default=0, metavar="I")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="of the model")
    add_output_flags(parser)


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Adds ``--json`` and ``--out``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures there")


def add_listening_flags(parser: argparse.ArgumentParser, judge: str, judge_steps: int) -> None:
    """Adds the flags of benchmarks that listen to sounds; judge: the name of its default file."""
    parser.add_argument("--samples", type=Path, metavar="DIR", help="use these files instead of the model's samples")
    parser.add_argument("--judge", type=Path, default=Path(f"runs/judges/{judge}.safetensors"), metavar="FILE")
    parser.add_argument("--judge-steps", type=int, default=judge_steps, metavar="N", help="0: no judge")


def collect(pipeline: Pipeline, held_out: Dataset, parsed: argparse.Namespace) -> list[Samples]:
    """Returns recordings, the same through the autoencoder, and the model's samples or those of ``--samples``."""
    real = draw_recordings(held_out, parsed.num)
    sources = [real, through_autoencoder(real, pipeline)]
    if getattr(parsed, "samples", None) is not None:
        return [*sources, read_folder(parsed.samples, pipeline.modality, pipeline.labels)]
    return [*sources, *(generate(pipeline, row, parsed.num, parsed.seed) for row in parsed.rows)]


def print_figures(found: Mapping[str, Any], columns: Mapping[str, str], parsed: argparse.Namespace) -> None:
    """Prints the rows of figures as a table, or all as JSON, and writes the file of ``--out``."""
    print(json.dumps(found, ensure_ascii=False) if parsed.json else format_table(found["rows"], columns))
    if parsed.out is not None:
        weights.write_whole(parsed.out, f"{json.dumps(found, indent=2, ensure_ascii=False)}\n".encode())
        say(f"written to {parsed.out}")

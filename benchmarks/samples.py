"""Samples that a benchmark listens to, wherever they come from, and a classifier that tells their labels.

What figures are made of: recordings that training held out, the same through the autoencoder alone (what a model could
reach at best), clips that a model makes, and clips that lie in a folder with their labels inside the files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
import yaml
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

BATCH_SIZE = 64


@dataclass(frozen=True)
class Samples:
    """Sounds ``(N, C, T)`` with what each was made for; evaluations of a network a clip, None for recordings."""

    name: str
    samples: Tensor
    labels: Sequence[Mapping[str, str | float]]
    evaluations: int | None = None

    def __len__(self) -> int:
        return len(self.samples)


def data_of(folder: ModelFolder, manifest: Path | None) -> tuple[Dataset, Dataset, Path | None]:
    """Training data, held-out data and manifest of a model's recipe; manifest: where it lies now, if elsewhere.

    Raises ValueError where the model has no recipe, or its data are not there.
    """
    file = folder.path / "recipe.yaml"
    if not file.is_file():
        raise ValueError(f"{folder.path} holds no recipe.yaml, so that its data are not known")
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    if manifest is not None:
        config["data"]["path"] = str(manifest)
    modality = build(config["modality"], "modality")
    train, held_out = (build(config["data"], "data", modality=modality, split=split) for split in ("train", "held_out"))
    path = config["data"].get("path")
    return train, held_out, None if path is None else Path(path)


def recordings(dataset: Dataset, num: int) -> Samples:
    """At most so many recordings, drawn by a fixed seed: data list one class after the other."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:num].tolist()
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
def through_autoencoder(clips: Samples, pipeline: Pipeline) -> Samples:
    """The clips encoded and decoded."""
    autoencoder = pipeline.network("autoencoder")
    decoded = [
        pipeline.decode(autoencoder.encode(part.to(pipeline.device))) for part in clips.samples.split(BATCH_SIZE)
    ]
    return replace(clips, name=f"{clips.name}, through the autoencoder", samples=torch.cat(decoded))


def generated(pipeline: Pipeline, row: str, num: int, seed: int) -> Samples:
    """Samples 0 to num − 1 of a seed, made in the way of a row: steps, "teacher" or "teacher:STEPS"."""
    way = Row.parse(row, pipeline)
    made = pipeline(num, seed=seed, batch_size=BATCH_SIZE, **way.arguments)
    name = f"{way.sampler}, {way.steps} step{'s' if way.steps > 1 else ''}"
    return Samples(f"teacher: {name}" if way.teacher else name, made.samples, made.labels, made.evaluations)


def from_folder(folder: Path, modality: Modality, labels: LabelSet) -> Samples:
    """The sounds of a folder, whose labels stand in the files as ``scm-media generate`` writes them.

    Raises ValueError where there are none, and for one without a label.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in modality.suffixes)
    if not files:
        raise ValueError(f"{folder} holds no sounds ({', '.join(sorted(modality.suffixes))})")
    told = []
    for file in files:
        label = read_metadata(file).get("label")
        if label is None:
            raise ValueError(f"{file} has no label inside; scm-media generate writes one")
        told.append(labels.parse(label))
    samples = torch.stack([modality.transform(modality.read(file)) for file in files])
    return Samples(str(folder), samples, told)


class Judge:
    """A classifier of one label, trained on recordings alone and by nobody who made the model."""

    def __init__(self, network: nn.Module, label: str, classes: Sequence[str]) -> None:
        self.network, self.label, self.classes = network.eval(), label, list(classes)

    @classmethod
    def trained(
        cls, dataset: Dataset, label: str, file: Path, steps: int, seed: int = 1, say: Callable[[str], None] = print
    ) -> Judge:
        """The judge that a file keeps, or one trained in so many steps and kept there.

        Another initialisation, order and width than the model's own feature network have. Raises ValueError where the
        file keeps a judge of other classes.
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
                raise ValueError(f"{file} keeps a judge of {component.info.get('classes')}, not of {list(classes)}")
            weights.load_into(network, component.state, file)
            return cls(network, label, classes)
        _train(network, dataset, label, steps, seed, say)
        weights.save(file, network.state_dict(), config, {"classes": list(classes), "steps": steps})
        return cls(network, label, classes)

    @torch.inference_mode()
    def right(self, clips: Samples) -> Tensor:
        """Whether the judge hears each clip's label, ``(N,)`` bool."""
        scores = torch.cat([self.network(part)[self.label] for part in clips.samples.split(BATCH_SIZE)])
        wanted = torch.tensor([self.classes.index(str(label[self.label])) for label in clips.labels])
        return scores.argmax(1) == wanted


def _train(
    network: AudioClassifier, dataset: Dataset, label: str, steps: int, seed: int, say: Callable[[str], None]
) -> None:
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step, batch in enumerate(batches(dataset, BATCH_SIZE, 0, steps, seed)):
        scores = network(batch.sample)[label]
        loss = nnf.cross_entropy(scores, batch.labels[label], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            right = (scores.argmax(1) == batch.labels[label]).float().mean()
            say(f"judge of {label}, step {step + 1} of {steps}: {right:.3f} right")


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Rows as a Markdown table; columns: key to heading; shares with three places, what is None as a dash."""
    lines = ["| clips | " + " | ".join(columns.values()) + " |", "|---|" + "---|" * len(columns)]
    for row in rows:
        cells = (
            "–" if row[key] is None else f"{row[key]:.3f}" if isinstance(row[key], float) else str(row[key])
            for key in columns
        )
        lines.append(f"| {row['clips']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(figures: Mapping[str, Any], out: Path | None) -> None:
    """Keeps figures as JSON, where a file is named."""
    if out is not None:
        weights.write_whole(out, f"{json.dumps(figures, indent=2, ensure_ascii=False)}\n".encode())
        say(f"kept in {out}")

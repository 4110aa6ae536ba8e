"""One row of an evaluation: which sampler, how many steps, and the features of what it makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media import weights
from scm_media.evaluation.features import OWN, FeatureNetwork
from scm_media.evaluation.reference import accuracy, embed
from scm_media.pipeline import Pipeline

CHUNK = 250
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """A way of sampling: the student in some steps, or the teacher in as many of its solver's steps.

    guidance: the scale; None for the model's own.
    """

    sampler: str
    steps: int
    teacher: bool
    guidance: float | None = None

    @classmethod
    def parse(cls, text: str | int, pipeline: Pipeline, guidance: float | None = None) -> Row:
        """``2`` (student), ``"teacher"`` or ``"teacher:16"``; ValueError for anything else."""
        kind, _, number = str(text).partition(":")
        settings = pipeline.settings
        if kind == "teacher":
            number = number or str(settings.get("teacher_steps", 32))
            sampler = settings.get("teacher", "heun")
        else:
            sampler, number = "consistency", str(text)
        if not number.isdecimal() or int(number) < 1:
            raise ValueError(f"a row is a number of steps, teacher or teacher:STEPS, got {text!r}")
        return cls(sampler, int(number), kind == "teacher", guidance)

    @property
    def key(self) -> str:
        """A name for files."""
        scale = "" if self.guidance is None else f"-guidance-{self.guidance}"
        return f"{'teacher' if self.teacher else 'student'}-{self.sampler}-{self.steps}{scale}"

    @property
    def arguments(self) -> dict[str, Any]:
        """What a pipeline is asked for."""
        return {"steps": self.steps, "teacher": self.teacher, "guidance": self.guidance}


@dataclass(frozen=True)
class Measured:
    """Features ``(N, d)`` of the clips of a row, the share of labels told right ``(N,)``, evaluations a clip."""

    features: Tensor
    right: Tensor | None
    evaluations: int


def measure(
    pipeline: Pipeline,
    network: FeatureNetwork,
    row: Row,
    num_samples: int,
    batch_size: int,
    seed: int,
    work: Path | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Makes clips 0 … num_samples − 1 of a seed and embeds them by a network, in chunks that are kept in ``work``.

    An interrupted measurement goes on after its last chunk, and several processes may measure different rows.
    Chunks of another model, precision or seed are not taken for this one's.
    """
    folder = None if work is None else work / f"{row.key}-{_fingerprint(pipeline, network, row, seed)}"
    chunks = []
    for first in range(0, num_samples, CHUNK):
        num = min(CHUNK, num_samples - first)
        file = None if folder is None else folder / f"{first:07d}-{first + num:07d}.safetensors"
        if file is not None and file.is_file():
            component = weights.read(file)
            chunk = (component.state["features"], component.state.get("right"), component.info["evaluations"])
        else:
            chunk = _chunk(pipeline, row, first, num, batch_size, seed, network)
            if file is not None:
                features, right, _ = chunk
                state = {"features": features} if right is None else {"features": features, "right": right}
                weights.save(file, state, {"row": row.key}, {"evaluations": chunk[2]})
        chunks.append(chunk)
        if progress is not None:
            progress(row.key, first + num, num_samples)
    rights = [right for _, right, _ in chunks if right is not None]
    return Measured(torch.cat([chunk[0] for chunk in chunks]), torch.cat(rights) if rights else None, chunks[0][2])


def _chunk(
    pipeline: Pipeline, row: Row, first: int, num: int, batch_size: int, seed: int, network: FeatureNetwork
) -> tuple[Tensor, Tensor | None, int]:
    feature_extractor = pipeline.network("feature_extractor") if pipeline.folder.has("feature_extractor") else network
    features, rights = [], []
    for clips in pipeline.batches(num, first=first, seed=seed, batch_size=batch_size, **row.arguments):
        sample = clips.samples.to(pipeline.device)
        features.append(embed(network, sample))
        right = accuracy(feature_extractor, sample, pipeline.conditioning(clips.labels).labels)
        rights += [] if right is None else [right]
    return torch.cat(features), torch.cat(rights) if rights else None, clips.evaluations


def _fingerprint(pipeline: Pipeline, network: FeatureNetwork, row: Row, seed: int) -> str:
    """What a chunk depends on beside its clips: the networks and their weights, the sampler, precision and seed.

    Searched times count for the row of as many steps alone, so that a search leaves the teacher's hour valid.
    """
    digest = hashlib.sha256()
    networks = ["feature_extractor", *(["teacher", "guide"] if row.teacher else ["student"])]
    for name in ("autoencoder", *(name for name in networks if pipeline.folder.has(name))):
        # The tensors and not the file: the same network exported again is the same network.
        component = pipeline.folder.read(name)
        digest.update(json.dumps(component.config, sort_keys=True).encode())
        for key, tensor in sorted(component.state.items()):
            digest.update(key.encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    if pipeline.folder.action_bank_file.is_file():  # clips are drawn for these actions
        digest.update(pipeline.folder.action_bank_file.read_bytes())
    settings = {key: value for key, value in pipeline.settings.items() if key != "times" and value is not None}
    searched = None if row.teacher else (pipeline.settings.get("times") or {}).get(str(row.steps))
    parts = [settings, pipeline.precision, seed, *([] if searched is None else [searched])]
    parts += [] if network.name == OWN else [network.name]
    digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:12]

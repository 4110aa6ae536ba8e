"""One row of an evaluation: a sampler with its number of steps, and the features of its samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media import weights
from scm_media.evaluation.features import OWN_NETWORK, FeatureNetwork
from scm_media.evaluation.reference import embed, score_labels
from scm_media.pipeline import Pipeline, SamplingRequest
from scm_media.processes import Share, wait_until

CHUNK = 250
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """A sampler and its number of steps: the student's, or the teacher's solver.

    guidance: the scale; None for the model's own.
    """

    sampler: str
    steps: int
    teacher: bool
    guidance: float | None = None

    @classmethod
    def parse(cls, text: str | int, pipeline: Pipeline, guidance: float | None = None) -> Row:
        """Returns the row of ``2`` (student), ``"teacher"`` or ``"teacher:16"``; raises ValueError otherwise."""
        kind, _, number = str(text).partition(":")
        settings = pipeline.settings
        if kind == "teacher":
            number = number or str(settings.teacher_steps)
            sampler = settings.teacher
        else:
            sampler, number = "consistency", str(text)
        if not number.isdecimal() or int(number) < 1:
            raise ValueError(f"a row is a number of steps, teacher or teacher:STEPS, got {text!r}")
        return cls(sampler, int(number), kind == "teacher", guidance)

    @property
    def key(self) -> str:
        """Returns a name for files."""
        scale = "" if self.guidance is None else f"-guidance-{self.guidance}"
        return f"{'teacher' if self.teacher else 'student'}-{self.sampler}-{self.steps}{scale}"

    @property
    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of a pipeline's call."""
        return {"steps": self.steps, "teacher": self.teacher, "guidance": self.guidance}


@dataclass(frozen=True)
class Measured:
    """Features ``(N, d)`` of a row's samples, the fraction of labels recognised ``(N,)``, evaluations per sample."""

    features: Tensor
    correct: Tensor | None
    evaluations: int


@dataclass(frozen=True)
class Work:
    """Says where finished chunks of samples are kept, and which of them this process measures.

    folder: None keeps nothing; with one, an interrupted measurement continues after its last chunk, and several
    processes may measure different rows. share: this process's, where several measure each row together. Raises
    ValueError for several without a folder, which all of them see.
    """

    folder: Path | None = None
    share: Share = field(default_factory=Share)

    def __post_init__(self) -> None:
        if self.share.world > 1 and self.folder is None:
            raise ValueError("processes that measure a row together need a folder for its chunks: pass work")


def measure(
    pipeline: Pipeline,
    network: FeatureNetwork,
    row: Row,
    num_samples: int,
    batch_size: int,
    seed: int,
    work: Work,
    progress: Progress | None = None,
) -> Measured | None:
    """Samples indices 0 to num_samples − 1 of a seed and embeds them by a network, in chunks.

    Kept chunks of another model, precision or seed are not reused. Of processes that share the chunks the first one
    waits for the others and returns all; any other returns its own, None if it has none.
    """
    folder, share = work.folder, work.share
    if folder is not None:
        folder = folder / f"{row.key}-{_fingerprint(pipeline, network, row, seed)}"
    ranges = [range(first, min(first + CHUNK, num_samples)) for first in range(0, num_samples, CHUNK)]
    files = [folder and folder / f"{each.start:07d}-{each.stop:07d}.safetensors" for each in ranges]
    chunks: dict[int, Measured] = {}
    for number, (indices, file) in enumerate(zip(ranges, files, strict=True)):
        if not share.takes(number):
            continue
        if file is not None and file.is_file():
            chunks[number] = _read_chunk(file)
        else:
            chunks[number] = _measure_chunk(pipeline, row, indices, batch_size, seed, network)
            if file is not None:
                _write_chunk(file, row, chunks[number])
        if progress is not None:
            progress(row.key, indices.stop, num_samples)
    if share.rank == 0:
        for number, file in enumerate(files):
            if number not in chunks and file is not None:
                wait_until(file.is_file)
                chunks[number] = _read_chunk(file)
    return _join([chunks[number] for number in sorted(chunks)]) if chunks else None


def _read_chunk(file: Path) -> Measured:
    component = weights.read(file)
    return Measured(component.state["features"], component.state.get("right"), component.info["evaluations"])


def _write_chunk(file: Path, row: Row, chunk: Measured) -> None:
    state = {"features": chunk.features} | ({} if chunk.correct is None else {"right": chunk.correct})
    weights.save(file, state, {"row": row.key}, {"evaluations": chunk.evaluations})


def _measure_chunk(
    pipeline: Pipeline, row: Row, indices: range, batch_size: int, seed: int, network: FeatureNetwork
) -> Measured:
    feature_extractor = pipeline.network("feature_extractor") if pipeline.folder.has("feature_extractor") else network
    batches = []
    first, num = indices[0], len(indices)
    request = SamplingRequest(num=num, first=first, seed=seed, batch_size=batch_size, **row.arguments)
    for made in pipeline.batches(request):
        sample = made.samples.to(pipeline.device)
        correct = score_labels(feature_extractor, sample, pipeline.labels.conditioning(made.labels).labels)
        batches.append(Measured(embed(network, sample), correct, made.evaluations))
    return _join(batches)


def _join(parts: Sequence[Measured]) -> Measured:
    correct = [part.correct for part in parts if part.correct is not None]
    features = torch.cat([part.features for part in parts])
    return Measured(features, torch.cat(correct) if correct else None, parts[0].evaluations)


def _fingerprint(pipeline: Pipeline, network: FeatureNetwork, row: Row, seed: int) -> str:
    """Returns a digest of what a chunk depends on beside its indices: networks, weights, sampler, precision and seed.

    Searched times enter only the row with as many steps, so that a search leaves the teacher's chunks valid.
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
    if pipeline.folder.has("action_bank"):  # samples are drawn for these actions
        digest.update(weights.digest(pipeline.folder.read("action_bank")).encode())
    settings = {key: value for key, value in asdict(pipeline.settings).items() if key != "times" and value is not None}
    searched = None if row.teacher else (pipeline.settings.times or {}).get(str(row.steps))
    parts = [settings, pipeline.precision, seed, *([] if searched is None else [searched])]
    parts += [] if network.name == OWN_NETWORK else [network.name]
    digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:12]

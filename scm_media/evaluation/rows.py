"""One row of an evaluation: a sampler with its number of steps, and the features and statistics of its samples."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from scm_media import weights
from scm_media.evaluation.features import OWN_NETWORK, FeatureNetwork
from scm_media.evaluation.measured import Instruments, Measured
from scm_media.pipeline import Pipeline, SamplingRequest
from scm_media.processes import Share, wait_until
from scm_media.samplers import SAMPLERS

CHUNK = 250
STATISTIC = "statistic."
"""The prefix of statistics' names in a chunk's file."""
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
        """Returns the row of ``2`` (student), ``"teacher"``, ``"teacher:16"`` or ``"teacher:heun:16"``.

        A solver or a number of steps that is left out is the model's own. Raises ValueError for anything else, with the
        nearest solvers for an unknown one.
        """
        kind, *words = str(text).split(":")
        settings, sampler = pipeline.settings, "consistency"
        if kind == "teacher":
            sampler = settings.teacher
            if words and words[0] and not words[0].isdecimal():
                sampler = _known_solver(words.pop(0), text)
            words = words or [str(settings.teacher_steps)]
        else:
            words.insert(0, kind)
        if len(words) != 1 or not words[0].isdecimal() or int(words[0]) < 1:
            raise ValueError(
                f"a row is a number of steps, teacher, teacher:STEPS or teacher:SOLVER:STEPS, got {text!r}"
            )
        return cls(sampler, int(words[0]), kind == "teacher", guidance)

    @property
    def key(self) -> str:
        """Returns a name for files."""
        scale = "" if self.guidance is None else f"-guidance-{self.guidance}"
        return f"{'teacher' if self.teacher else 'student'}-{self.sampler}-{self.steps}{scale}"

    @property
    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of a pipeline's call."""
        solver = {"sampler": self.sampler} if self.teacher else {}
        return {"steps": self.steps, "teacher": self.teacher, "guidance": self.guidance, **solver}


def _known_solver(name: str, row: str | int) -> str:
    """Returns the name of a registered solver; raises ValueError, with the nearest ones, for another name."""
    try:
        SAMPLERS.find(name, f"the solver of row {row!r}")
    except ValueError as error:
        near = difflib.get_close_matches(name, list(SAMPLERS), n=3, cutoff=0.3)
        raise ValueError(f"{error} (nearest: {', '.join(near)})" if near else str(error)) from error
    return name


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
            raise ValueError("processes that measure a row together need a folder for its chunks: pass work=FOLDER")


def measure(
    pipeline: Pipeline,
    instruments: Instruments,
    row: Row,
    num_samples: int,
    batch_size: int,
    seed: int,
    work: Work,
    progress: Progress | None = None,
) -> Measured | None:
    """Samples indices 0 to num_samples − 1 of a seed and measures them, in chunks.

    Kept chunks of another model, precision or seed are not reused, nor those that lack what is measured for a curve. Of
    processes that share the chunks the first one waits for the others and returns all; any other returns its own, None
    if it has none.
    """
    folder, share = work.folder, work.share
    if folder is not None:
        folder = folder / f"{row.key}-{_fingerprint(pipeline, instruments.network, row, seed)}"
    ranges = [range(first, min(first + CHUNK, num_samples)) for first in range(0, num_samples, CHUNK)]
    files = [folder and folder / f"{each.start:07d}-{each.stop:07d}.safetensors" for each in ranges]
    chunks: dict[int, Measured] = {}
    for number, (indices, file) in enumerate(zip(ranges, files, strict=True)):
        if not share.takes(number):
            continue
        kept = None if file is None else _read_chunk(file, instruments)
        if kept is None:
            kept = _measure_chunk(pipeline, row, indices, batch_size, seed, instruments)
            if file is not None:
                _write_chunk(file, row, kept, instruments)
        chunks[number] = kept
        if progress is not None:
            progress(row.key, indices.stop, num_samples)
    if share.rank == 0:
        for number, file in enumerate(files):
            if number not in chunks and file is not None:
                chunks[number] = _await_chunk(file, instruments)
    return Measured.join([chunks[number] for number in sorted(chunks)]) if chunks else None


def _await_chunk(file: Path, instruments: Instruments) -> Measured:
    """Returns a chunk that another process measures, once it is there."""
    found: list[Measured] = []

    def read() -> bool:
        found.extend(each for each in [_read_chunk(file, instruments)] if each is not None)
        return bool(found)

    wait_until(read)
    return found[0]


def _read_chunk(file: Path, instruments: Instruments) -> Measured | None:
    """Returns a kept chunk; None where there is none, or where it lacks what the instruments measure."""
    if not file.is_file():
        return None
    component = weights.read(file)
    state, info = component.state, component.info
    statistics = {name: f"{STATISTIC}{name}" for name in instruments.statistics}
    if not statistics.keys() <= {name.removeprefix(STATISTIC) for name in state if name.startswith(STATISTIC)}:
        return None
    if instruments.second is not None and info.get("second") != instruments.second.name:
        return None
    return Measured(
        state["features"],
        state.get("right"),
        info["evaluations"],
        None if instruments.second is None else state["second"],
        {name: state[key] for name, key in statistics.items()},
    )


def _write_chunk(file: Path, row: Row, chunk: Measured, instruments: Instruments) -> None:
    state = {"features": chunk.features} | ({} if chunk.correct is None else {"right": chunk.correct})
    state |= {} if chunk.second is None else {"second": chunk.second}
    state |= {f"{STATISTIC}{name}": values for name, values in chunk.statistics.items()}
    second = {} if instruments.second is None else {"second": instruments.second.name}
    weights.save(file, state, {"row": row.key}, {"evaluations": chunk.evaluations, **second})


def _measure_chunk(
    pipeline: Pipeline, row: Row, indices: range, batch_size: int, seed: int, instruments: Instruments
) -> Measured:
    batches = []
    first, num = indices[0], len(indices)
    request = SamplingRequest(num=num, first=first, seed=seed, batch_size=batch_size, **row.arguments)
    for made in pipeline.batches(request):
        labels = pipeline.labels.conditioning(made.labels).labels
        batches.append(instruments.measure(pipeline, made.samples, labels, made.evaluations))
    return Measured.join(batches)


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
    if pipeline.prompts is not None:  # and with these texts
        digest.update(pipeline.prompts.fingerprint().encode())
    settings = {key: value for key, value in asdict(pipeline.settings).items() if key != "times" and value is not None}
    searched = None if row.teacher else (pipeline.settings.times or {}).get(str(row.steps))
    parts = [settings, pipeline.precision, seed, *([] if searched is None else [searched])]
    parts += [] if network.name == OWN_NETWORK else [network.name]
    digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:12]

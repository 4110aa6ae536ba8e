"""Steers a clip by actions: each window goes on from the last frames, as somebody who acts so would see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media.app.asking import MOST_TIMES_LARGER
from scm_media.pipeline import EditRequest, Pipeline, SamplingRequest
from scm_media.pipeline.actions import format_actions
from scm_media.pipeline.edit_inputs import read_source
from scm_media.pipeline.records import describe_sampling, format_labels
from scm_media.pipeline.windows import OVERLAP, find_axis_option
from scm_media.prompts import LABEL as PROMPT

MOST_VALUES = 1 << 25
"""A clip has at most so many values (128 MiB), since it is kept while its page is open."""


@dataclass(frozen=True)
class Scene:
    """This is a clip so far: frames ``(C, T, *S)``, the actions that led to them ``(T, k)``, and its seed.

    labels: those of all its windows. windows: how many were made, which is the index of the next one's noise.
    shown: the first frame of the newest window.
    """

    frames: Tensor
    actions: Tensor
    seed: int
    labels: Mapping[str, Any] = field(default_factory=dict)
    windows: int = 0
    shown: int = 0

    @property
    def newest(self) -> Tensor:
        """Returns the frames that the last step made."""
        return self.frames[:, self.shown :]


def can_steer(pipeline: Pipeline) -> bool:
    """Returns whether a model takes actions of frames that it can go on from."""
    return bool(pipeline.actions.names) and pipeline.folder.has("student") and _frames_option(pipeline) is not None


def begin(pipeline: Pipeline, seed: int = 0, label: Any = None, source: Path | None = None) -> Scene:
    """Returns the start of a scene: the frames of a file, or a window of the model's in which nothing is done.

    Raises ValueError for a model without actions, and for a file that it cannot take.
    """
    _check(pipeline)
    num_names = len(pipeline.actions.names)
    if source is not None:
        frames = read_source(pipeline.modality, source)[:, -window(pipeline) :]
        given = pipeline.labels.parse(label) if label else {}
        return Scene(frames, torch.zeros(frames.shape[1], num_names), seed, given)
    idle = torch.zeros(window(pipeline), num_names)
    made = pipeline(1, label=label, seed=seed, actions=idle)
    labels = {name: value for name, value in made.labels[0].items() if name != PROMPT}
    return Scene(made.samples[0], idle, seed, labels, windows=1)


def go_on(pipeline: Pipeline, scene: Scene, moves: Sequence[str], hold: int = 4, steps: int | None = None) -> Scene:
    """Returns the scene with ``hold`` frames more for each move, made in windows that know the frames before them.

    moves: ``"ahead"``, ``"ahead+left"`` or ``"none"``. The model always makes a whole window: what comes after the
    last move is made with the same action and left out. Raises ValueError for unknown actions and for too many.
    """
    _check(pipeline)
    length = window(pipeline)
    if hold < 1 or not 1 <= len(moves) * hold <= MOST_TIMES_LARGER * length:
        raise ValueError(
            f"one step makes 1 to {MOST_TIMES_LARGER * length} frames; got {len(moves)} moves of {hold} frames"
        )
    rows = pipeline.actions.parse(",".join(f"{move}*{hold}" for move in moves))
    num = scene.frames.shape[1]
    most = max(2 * window(pipeline), MOST_VALUES // scene.frames[:, 0].numel())
    if num + len(rows) > most:
        raise ValueError(f"the clip has {num} frames, and {most} are the most: save it and begin a new one")
    keep = min(num, max(1, round(length * OVERLAP)))
    wanted = max(length, keep + len(rows))
    after = rows[-1:].expand(wanted - keep - len(rows), -1)
    found = find_axis_option(pipeline.modality)
    assert found is not None
    name, option = found
    request = EditRequest(
        task="continue",
        source=scene.frames[:, -keep:],
        keep=keep / option.rate,
        sampling=SamplingRequest(
            label=dict(scene.labels) or None,
            seed=scene.seed,
            first=scene.windows,
            steps=steps,
            actions=torch.cat([scene.actions[-keep:], rows, after]),
            sizes={name: wanted / option.rate},
        ),
    )
    made = next(iter(pipeline.edit_batches(request))).samples[0, :, keep : keep + len(rows)]
    return replace(
        scene,
        frames=torch.cat([scene.frames, made], 1),
        actions=torch.cat([scene.actions, rows]),
        windows=scene.windows + 1,
        shown=num,
    )


def window(pipeline: Pipeline) -> int:
    """Returns how many frames the model makes at once."""
    return pipeline.modality.shape()[1]


def record(pipeline: Pipeline, name: str, scene: Scene) -> dict[str, Any]:
    """Returns the record of a scene for its file: model, seed, label and all actions. name: the model's."""
    how = describe_sampling(pipeline, name, SamplingRequest(seed=scene.seed))
    how |= {"task": "steer", "seed": scene.seed, "index": 0, "label": format_labels(scene.labels)}
    if text := format_actions(scene.actions, pipeline.actions.names):
        how["actions"] = text
    return how


def describe_moves(moves: Sequence[str]) -> str:
    """Returns moves in words, counted: ``ahead ×2, left``."""
    counted: list[tuple[str, int]] = []
    for move in moves:
        if counted and counted[-1][0] == move:
            counted[-1] = (move, counted[-1][1] + 1)
        else:
            counted.append((move, 1))
    return ", ".join(name if num == 1 else f"{name} ×{num}" for name, num in counted)


def check_moves(pipeline: Pipeline, text: str) -> list[str]:
    """Returns the moves of ``"ahead,ahead+left"``; raises ValueError for what the model does not know."""
    moves = [move.strip() for move in text.split(",") if move.strip()]
    for move in moves:
        if "*" in move:
            raise ValueError(f"a move is an action, or several with +; got {move[:40]!r}")
        pipeline.actions.parse(move)
    return moves


def _frames_option(pipeline: Pipeline) -> str | None:
    """Returns the name of the size option along the first axis of samples, which actions belong to; None without."""
    found = find_axis_option(pipeline.modality)
    along_frames = found is not None and found[1].axis == 1 - len(pipeline.modality.shape())
    return found[0] if found is not None and along_frames else None


def _check(pipeline: Pipeline) -> None:
    if not can_steer(pipeline):
        raise ValueError(
            f"{pipeline.name} takes no actions: train a model that does (recipe video/scenes-actions) and open its "
            "folder in the app"
        )

"""This tab steers a clip by keys, for models that take actions."""

from __future__ import annotations

import html
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from torch import Tensor

from scm_media.app import steering
from scm_media.app.asking import whole
from scm_media.app.context import App
from scm_media.app.controls import is_chosen, label_choices, label_names
from scm_media.app.edits import accepted_suffixes, open_source
from scm_media.app.errors import guarded
from scm_media.app.keypad import keypad, show_keys
from scm_media.app.media import delete_oldest, empty, facts, show, write_result
from scm_media.display import printable
from scm_media.pipeline import Pipeline

TITLE = "Steer"
HOLD = 4
"""A key holds its action for so many frames at first."""
MOST_WAITING = 32
"""At most so many moves wait for the model."""
WITHOUT = (
    "None of the app's models takes actions, so there is nothing to steer. A model that is trained on clips with the "
    "buttons of each frame does: scm-media train video/scenes-actions, then scm-media app "
    "runs/video/scenes-actions/main."
)
NOT_BEGUN = "there is no clip yet: press Begin first"
PLAYER = """
video { width: min(100%, 512px); image-rendering: pixelated; border-radius: 8px; display: block; margin: 0 auto; }
"""


@dataclass
class Steered:
    """This is what a page steers: its scene, and the moves that wait for the model."""

    model: str
    scene: steering.Scene
    waiting: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Whoever changes ``waiting`` holds this lock, since a key may come at any time."""

    def take(self) -> list[str]:
        """Returns the moves that wait, which then wait no longer."""
        with self.lock:
            moves, self.waiting = self.waiting, []
        return moves


def build(app: App) -> None:
    """Adds the tab's components and handlers to the blocks around it."""
    names = steered_models(app)
    if names:
        _Tab(app, names)
    else:
        gr.HTML(empty(WITHOUT), elem_id="scm-steer-without")


def steered_models(app: App) -> list[str]:
    """Returns the names of the models that take actions; one that cannot be opened is left out here."""
    found = []
    for name in app.models.names:
        try:
            if steering.can_steer(app.models.pipeline(name)):
                found.append(name)
        except (ValueError, OSError):
            continue
    return found


class _Tab:
    """This holds the components, by what they are for, and their handlers."""

    def __init__(self, app: App, names: list[str]) -> None:
        self.app, self.names = app, names
        first = app.models.pipeline(names[0])
        self.steered = gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=300):
                self.screen = gr.HTML(empty("Press Begin."), css_template=PLAYER, elem_id="scm-steer-screen")
                self.pad = keypad(first.actions.names, "scm-steer-pad")
                self.line = gr.HTML(
                    empty("Keys work while this tab is shown and no field is being typed in."), elem_id="scm-steer-line"
                )
                with gr.Row():
                    self.begin = gr.Button("Begin", variant="primary", min_width=100, elem_id="scm-steer-begin")
                    self.live = gr.Checkbox(True, label="Go on with each key", min_width=160, elem_id="scm-steer-live")
                with gr.Row():
                    self.go = gr.Button("Go on", min_width=100, elem_id="scm-steer-go")
                    self.forget = gr.Button("Forget moves", min_width=100, elem_id="scm-steer-forget")
            with gr.Column(scale=2, min_width=300):
                self.model = gr.Dropdown(names, value=names[0], label="Model", filterable=False)
                self.label = gr.Dropdown(elem_id="scm-steer-label", **_label(first))
                self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="scm-steer-seed")
                self.hold = gr.Slider(
                    1, 16, value=HOLD, step=1, label="Frames a key holds its action", elem_id="scm-steer-hold"
                )
                self.upload = gr.File(
                    label="Picture or clip to begin with, if any",
                    file_types=accepted_suffixes(first.modality),
                    height=140,
                    elem_id="scm-steer-file",
                )
                self.save = gr.Button("Save the whole clip", elem_id="scm-steer-save")
                self.saved = gr.HTML(elem_id="scm-steer-saved")
        self._connect()

    def _connect(self) -> None:
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        shown = [self.screen, self.line]
        self.model.input(guarded(self.on_model), self.model, [self.label, self.upload, self.pad], **quiet)
        self.begin.click(
            guarded(self.on_begin),
            [self.model, self.label, self.seed, self.upload],
            [self.steered, *shown, self.saved],
            api_visibility="private",
            show_progress_on=self.line,
            concurrency_id="make",
        )
        moved = self.pad.select(
            guarded(self.on_move),
            [self.steered, self.hold],
            self.line,
            queue=False,
            trigger_mode="multiple",
            **quiet,
        )
        moved.then(
            guarded(self.on_key),
            [self.steered, self.hold, self.live],
            shown,
            trigger_mode="multiple",
            concurrency_id="steer",
            **quiet,
        )
        self.go.click(guarded(self.on_go), [self.steered, self.hold], shown, concurrency_id="steer", **quiet)
        self.forget.click(guarded(self.on_forget), self.steered, self.line, queue=False, **quiet)
        self.save.click(
            guarded(self.on_save), self.steered, self.saved, api_visibility="private", show_progress_on=self.saved
        )

    def on_model(self, model: str) -> list[Any]:
        """Returns the updates for another model; the clip goes on with its own until Begin is pressed."""
        pipeline = self.app.models.pipeline(model)
        return [
            gr.update(**_label(pipeline)),
            gr.update(value=None, file_types=accepted_suffixes(pipeline.modality)),
            show_keys(pipeline.actions.names),
        ]

    def on_begin(self, model: str, label: str | None, seed: Any, file: str | None, request: gr.Request) -> list[Any]:
        """Returns the start of a scene."""
        begun = time.perf_counter()
        with self.app.models.lock(model):
            pipeline = self.app.models.pipeline(model)
            words, source = "", None
            if file is not None:
                source = self.app.claim(request, file)
                words = f"<p>{html.escape(printable(open_source(pipeline, source).words))}</p>"
            names = label_names(pipeline)
            given = {names[0]: str(label)} if names and is_chosen(pipeline, names[0], label) else None
            scene = steering.begin(pipeline, whole("seed", seed), given, source)
        steered = Steered(model, scene)
        return [steered, self._play(pipeline, scene.frames, request), self._line(steered, begun) + words, ""]

    def on_move(self, steered: Steered | None, hold: Any, event: gr.EventData) -> Any:
        """Takes a move in and returns what waits, in words."""
        if steered is None:
            return empty(NOT_BEGUN)
        pipeline = self.app.models.pipeline(steered.model)
        (move,) = steering.check_moves(pipeline, str(event.move)[:200])
        with steered.lock:
            if len(steered.waiting) >= MOST_WAITING:
                return empty(f"{MOST_WAITING} moves wait already.")
            steered.waiting.append(move)
            return empty(f"Next: {steering.describe_moves(steered.waiting)}, {whole('frames', hold)} frames each.")

    def on_key(self, steered: Steered | None, hold: Any, live: bool, request: gr.Request) -> list[Any]:
        """Returns the next window if one is to be made with each key."""
        if steered is None or not live:
            return [gr.skip(), gr.skip()]
        return self._go_on(steered, hold, request)

    def on_go(self, steered: Steered | None, hold: Any, request: gr.Request) -> list[Any]:
        """Returns the next window for all moves that wait."""
        if steered is None:
            raise ValueError(NOT_BEGUN)
        if not steered.waiting:
            raise ValueError('no move waits for "Go on": press a key or a button of the keypad')
        return self._go_on(steered, hold, request)

    def on_forget(self, steered: Steered | None) -> str:
        """Forgets the moves that wait."""
        moves = [] if steered is None else steered.take()
        return empty(f"{len(moves)} moves forgotten.")

    def on_save(self, steered: Steered | None, request: gr.Request) -> str:
        """Returns a card of the whole clip, with its actions inside the file."""
        if steered is None:
            raise ValueError(NOT_BEGUN)
        pipeline = self.app.models.pipeline(steered.model)
        scene = steered.scene
        told = steering.record(pipeline, steered.model, scene)
        folder = self.app.folder(request)
        result = write_result(pipeline, folder, scene.frames, told)
        delete_oldest(folder)
        return show([result], self.app.url, large=True)

    def _go_on(self, steered: Steered, hold: Any, request: gr.Request) -> list[Any]:
        begun = time.perf_counter()
        with self.app.models.lock(steered.model):
            moves = steered.take()
            if not moves:  # the moves before this one took it along
                return [gr.skip(), gr.skip()]
            pipeline = self.app.models.pipeline(steered.model)
            steered.scene = steering.go_on(pipeline, steered.scene, moves, whole("frames", hold))
        return [
            self._play(pipeline, steered.scene.newest, request),
            self._line(steered, begun, moves),
        ]

    def _play(self, pipeline: Pipeline, frames: Tensor, request: gr.Request) -> str:
        """Returns HTML that plays frames once; the file takes the place of the one before the last."""
        folder = self.app.folder(request) / "steered"
        folder.mkdir(exist_ok=True)
        for old in sorted(folder.iterdir(), key=lambda each: each.stat().st_mtime)[:-1]:
            old.unlink(missing_ok=True)
        file = folder / f"{time.time_ns()}{pipeline.modality.written_suffixes[0]}"
        pipeline.modality.write(file, frames, {})
        return _player(self.app.url(file))

    def _line(self, steered: Steered, begun: float, moves: list[str] | None = None) -> str:
        pairs = [
            ("frames", str(steered.scene.frames.shape[1])),
            ("last", steering.describe_moves(moves) if moves else "begun"),
            ("took", f"{1000 * (time.perf_counter() - begun):.0f} ms"),
            ("seed", str(steered.scene.seed)),
        ]
        if steered.scene.labels:
            pairs.append(("label", ", ".join(str(value) for value in steered.scene.labels.values())))
        return facts([(name, printable(value)) for name, value in pairs])


def _player(address: str) -> str:
    source = html.escape(address, quote=True)
    return (
        f'<video src="{source}" autoplay muted playsinline controls aria-label="the newest part of the clip"></video>'
    )


def _label(pipeline: Pipeline) -> dict[str, Any]:
    names = label_names(pipeline)
    if not names:
        return {"visible": False, "choices": [], "value": None, "label": "Label"}
    choices = label_choices(pipeline, names[0])
    return {"visible": True, "label": printable(names[0]), "choices": choices, "value": choices[0]}

"""This tab shows trainings: stages, time left, curves and the newest sheets, refreshed while it is open."""

from __future__ import annotations

import html
import shutil
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context

from scm_media.app.context import App
from scm_media.app.errors import guarded
from scm_media.app.media import empty
from scm_media.app.run_curves import draw_panels, group_figures
from scm_media.app.run_progress import (
    TRAINING,
    WAITING,
    RunProgress,
    StageProgress,
    find_runs,
    open_run,
    read_progress,
)
from scm_media.display import printable
from scm_media.training.forecast import duration

TITLE = "Runs"
SECONDS = 4.0
"""The page looks at a run again after so many seconds."""
AUTOMATIC = "the latest"
"""This choice stands for the stage that is trained, or was trained last."""
WITHOUT = (
    "Start the app with --runs and a folder of trainings to see them here: scm-media app --runs runs. Only folders "
    "below it are shown."
)
NONE_YET = "There is no run below this folder yet: scm-media train RECIPE begins one."
STYLE = """
table { width: 100%; border-collapse: collapse; font-size: .95rem; border: none !important; margin: 0; }
thead, tbody, tr { border: none !important; }
th, td { text-align: left; padding: 7px 14px 7px 0; border: none !important; white-space: nowrap;
  border-bottom: 1px solid var(--border-color-primary) !important; }
th { color: var(--body-text-color-subdued); font-weight: 400; font-size: .85rem; }
td.bar { width: 40%; min-width: 80px; }
progress { appearance: none; display: block; width: 100%; height: 8px; border: none; border-radius: 4px;
  overflow: hidden; background: var(--border-color-primary); }
progress::-webkit-progress-bar { background: var(--border-color-primary); }
progress::-webkit-progress-value { background: var(--color-accent); }
progress::-moz-progress-bar { background: var(--color-accent); }
.state { display: inline-block; padding: 1px 8px; border-radius: 999px; border: 1px solid currentColor;
  font-size: .8rem; }
.state.now { color: #15803d; font-weight: 600; } .state.stopped { color: #b45309; }
.state.waiting { color: var(--body-text-color-subdued); }
.dark .state.now { color: #4ade80; } .dark .state.stopped { color: #fbbf24; }
p { margin: 6px 0; }
.wide { overflow-x: auto; }
@media (max-width: 560px) { td.bar, th:nth-child(4) { display: none; } }
"""
PANELS = """
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 10px; }
.panels img { width: 100%; max-width: 520px; border-radius: 8px; border: 1px solid var(--border-color-primary);
  margin: 0; background: white; }
"""
SHEET = "figure { margin: 0; } img { max-width: 100%; border-radius: 8px; margin: 0; } figcaption { font-size: .9rem; }"


def build(app: App) -> None:
    """Adds the tab's components and handlers to the blocks around it."""
    if app.settings.runs is None:
        gr.HTML(empty(WITHOUT), elem_id="scm-runs-without")
    else:
        RunsTab(app, app.settings.runs)


class RunsTab:
    """This holds the components, by what they are for, and their handlers."""

    def __init__(self, app: App, root: Path) -> None:
        self.app, self.root = app, root
        names = find_runs(root)
        tab = Context.block
        self.seen = gr.State(None)
        with gr.Row():
            self.run = gr.Dropdown(
                names, value=names[0] if names else None, label="Run", scale=3, min_width=220, elem_id="scm-runs-run"
            )
            self.stage = gr.Dropdown([AUTOMATIC], value=AUTOMATIC, label="Stage of the curves", min_width=160)
            with gr.Column(min_width=160):
                self.everything = gr.Checkbox(False, label="All figures", elem_id="scm-runs-all")
                self.follow = gr.Checkbox(True, label=f"Refresh every {SECONDS:g} s", elem_id="scm-runs-follow")
        self.overview = gr.HTML(css_template=STYLE, elem_id="scm-runs-overview")
        self.curves = gr.HTML(css_template=PANELS, elem_id="scm-runs-curves")
        self.sheet = gr.HTML(css_template=SHEET, elem_id="scm-runs-sheet")
        self.timer = gr.Timer(SECONDS, active=False)
        self._connect(tab)

    def _connect(self, tab: Any) -> None:
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        inputs = [self.run, self.stage, self.everything, self.seen]
        outputs = [self.run, self.stage, self.overview, self.curves, self.sheet, self.seen]
        look, queued = guarded(self.on_look), quiet | {"concurrency_id": "runs"}
        gr.on([tab.select, self.follow.input], self.on_follow, self.follow, self.timer, queue=False, **quiet)
        tab.select(look, inputs, outputs, **queued)
        self.timer.tick(look, inputs, outputs, trigger_mode="once", **queued)
        gr.on(
            [self.run.input, self.stage.input, self.everything.input],
            look,
            inputs,
            outputs,
            trigger_mode="always_last",
            **queued,
        )

    def on_follow(self, follow: bool) -> gr.Timer:
        """Returns the timer, which ticks while the run is followed."""
        return gr.Timer(active=bool(follow))

    def on_look(self, run: str | None, stage: str, everything: bool, seen: Any, request: gr.Request) -> list[Any]:
        """Returns what a run has come to; only what has changed since the last look is sent."""
        names = find_runs(self.root)
        if not run or run not in names:
            if not names:
                return [gr.update(choices=[], value=None), gr.skip(), empty(NONE_YET), "", "", None]
            run = names[0]
        folder = open_run(self.root, run)
        try:
            progress = read_progress(folder)
        except ValueError as error:
            words = printable(str(error).replace(f"{self.root.resolve()}/", ""))  # the server's folders
            return [gr.update(choices=names, value=run), gr.skip(), empty(words), "", "", None]
        choices = [AUTOMATIC, *(each.name for each in progress.stages)]
        stage = stage if stage in choices else AUTOMATIC
        shown = _choose(progress, stage)
        drawn = _signature(run, shown, everything)
        sheet = None if shown is None else (run, shown.sheet)
        before = seen if isinstance(seen, tuple) else (None, None, None, None)
        return [
            gr.skip() if before[0] == (names, run) else gr.update(choices=names, value=run),
            gr.skip() if before[1] == (choices, stage) else gr.update(choices=choices, value=stage),
            show_overview(progress),
            gr.skip() if before[2] == drawn else _curves(shown, everything),
            gr.skip() if before[3] == sheet else self._show_sheet(shown, request),
            ((names, run), (choices, stage), drawn, sheet),
        ]

    def _show_sheet(self, stage: StageProgress | None, request: gr.Request) -> str:
        """Returns HTML of a copy of the newest sheet, since pages get files of their own folder alone."""
        if stage is None or stage.sheet is None:
            return ""
        file, step = stage.sheet
        folder = self.app.folder(request) / "sheets"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink(missing_ok=True)
        copied = folder / f"{stage.name}-{step}-{file.stat().st_mtime_ns}.png"
        shutil.copyfile(file, copied)
        words = html.escape(f"{stage.name}, samples after {step} steps")
        address = html.escape(self.app.url(copied), quote=True)
        return f'<figure><figcaption>{words}</figcaption><img src="{address}" alt="{words}"></figure>'


def show_overview(progress: RunProgress) -> str:
    """Returns HTML of a run's state and of a row for each stage."""
    rows = "".join(_row(stage) for stage in progress.stages)
    told = [printable(words) for words in (progress.forecast, _holder(progress)) if words]
    lines = "".join(f"<p>{html.escape(words)}</p>" for words in told)
    heads = "".join(f"<th>{name}</th>" for name in ("stage", "state", "steps", "", "time left", "speed"))
    state = f"<p>This run: {_badge(progress.state)}</p>"
    return f'{state}{lines}<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _holder(progress: RunProgress) -> str | None:
    return None if progress.holder is None else f"trained by {progress.holder}"


def _row(stage: StageProgress) -> str:
    unit = " files" if stage.name == "trajectories" else ""
    steps = f"{stage.done:,} of {stage.total:,}{unit}" if stage.total else ""
    left = "" if stage.seconds_left is None else duration(stage.seconds_left)
    if left and stage.state != TRAINING:
        left = f"{left} from step {stage.resumes:,} on"
    speed = "" if stage.samples_per_second is None else f"{stage.samples_per_second:.3g} samples/s"
    part = stage.done / stage.total if stage.total else 0.0
    bar = f'<progress max="1" value="{part:.4f}" aria-label="{html.escape(stage.name)}"></progress>'
    cells = [html.escape(stage.name), _badge(stage.state), steps, bar, left, speed]
    marked = ["", "", "", ' class="bar"', "", ""]
    row = "".join(f"<td{mark}>{cell}</td>" for mark, cell in zip(marked, cells, strict=True))
    return f"<tr>{row}</tr>"


def _badge(state: str) -> str:
    kind = {TRAINING: "now", WAITING: "waiting"}.get(state, state)
    return f'<span class="state {kind}">{state}</span>'


def _choose(progress: RunProgress, stage: str) -> StageProgress | None:
    """Returns the stage whose curves are shown: the chosen one, or the one in training, or the last with figures."""
    if stage != AUTOMATIC:
        return next((each for each in progress.stages if each.name == stage), None)
    active = [each for each in progress.stages if each.state == TRAINING]
    begun = [each for each in progress.stages if each.figures]
    return next(iter(active), None) or (begun[-1] if begun else None)


def _signature(run: str, stage: StageProgress | None, everything: bool) -> Any:
    if stage is None:
        return None
    lengths = {name: len(steps) for name, (steps, _) in stage.figures.items()}
    return run, stage.name, everything, lengths, stage.done


def _curves(stage: StageProgress | None, everything: bool) -> str:
    if stage is None or not stage.figures:
        return empty("No figures yet.")
    return draw_panels(group_figures(stage.figures, everything))

"""Renders clips of eleven ViZDoom scenarios into a folder with a manifest, for the recipes video/scenes and -actions.

    pip install vizdoom av
    python examples/render_scenes.py data/scenes
    scm-media check video/scenes data.path=data/scenes/manifest.jsonl

What is written: ``<scenario>/<episode>-<step>.mp4``, 64x64, 16 frames at 8.75 frames/s (every fourth of the game's 35
ticks a second), H.264 without chroma subsampling, and ``manifest.jsonl`` with path, scenario, episode, start (the
clip's first frame, in steps of four ticks from the episode's beginning), fps, actions: for each frame the buttons of
``BUTTONS`` that were held, 0 or 1, in the four ticks that led to it, and in words the place, the motion and both
together (caption). Episodes are what a clip shares with others
that look like it: data.group=episode holds out whole ones.

The picture is rendered at 256x192, its middle square averaged 3x3 to 64x64, so that nothing flickers. The player is a
random walker with habits: each way of moving that the scenario gives (ahead, sideways, turning, firing) is drawn anew
after a few frames, and whoever runs against a wall turns away. Samples in which less moves than ``LEAST_MOTION`` are
left out and counted, as are those that the end of an episode cut short. The same seed gives the same clips; a run that
was stopped goes on with the next scenario, and ``--workers`` renders several at a time.

Left out of ViZDoom's scenarios: simpler_basic looks like rocket_basic, freedoom2 like no class at all, freedoom1 hangs,
doom and doom2 have no game files, cig and multi need other players. Freedoom, whose textures and monsters are seen, is
under a BSD licence; ViZDoom is under MIT, its engine ZDoom under terms of its own, of which nothing is written here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rendering import check_settings, write_whole

SCENARIOS = (
    "basic",
    "deadly_corridor",
    "deathmatch",
    "defend_the_center",
    "defend_the_line",
    "health_gathering",
    "health_gathering_supreme",
    "my_way_home",
    "predict_position",
    "rocket_basic",
    "take_cover",
)
BUTTONS = ("MOVE_FORWARD", "MOVE_BACKWARD", "MOVE_LEFT", "MOVE_RIGHT", "TURN_LEFT", "TURN_RIGHT", "ATTACK")
"""The columns of actions; a scenario gives some of them, the others are never held."""

SKILL = {"deadly_corridor": 1}
"""The difficulty of scenarios in which the player would otherwise die before a clip is complete."""

PLACES = {
    "basic": "a room with one monster at the far wall",
    "deadly_corridor": "a corridor with monsters on both sides",
    "deathmatch": "an arena with monsters and weapons",
    "defend_the_center": "the middle of a round room with monsters",
    "defend_the_line": "a room with a line of monsters",
    "health_gathering": "a room with acid on the floor and medkits",
    "health_gathering_supreme": "a maze with acid on the floor and medkits",
    "my_way_home": "a maze of rooms",
    "predict_position": "a room with a running monster, and a rocket launcher",
    "rocket_basic": "a room with one monster, and a rocket launcher",
    "take_cover": "a room with monsters that throw fireballs",
}
"""What the scenarios show, after ViZDoom's documentation."""

MOTIONS = (
    "walking forward",
    "walking back",
    "stepping left",
    "stepping right",
    "turning left",
    "turning right",
    "firing",
)
"""Words for ``BUTTONS``."""

SIZE, SUPERSAMPLING = 64, 3
FRAMES, TICKS = 16, 4
RATE = Fraction(35, TICKS)
CLIPS_AN_EPISODE = 8
LEAST_MOTION = 1.0
"""The mean change of a value from one frame to the next, of 255, that a clip needs."""

FEWEST_UNITS = 4.0
"""Units of the map in one frame: a player who moves less although a button is held is stuck."""

WAYS = {
    "ahead": (("MOVE_FORWARD", 0.8), ("MOVE_BACKWARD", 0.05)),
    "sideways": (("MOVE_LEFT", 0.15), ("MOVE_RIGHT", 0.15)),
    "turning": (("TURN_LEFT", 0.25), ("TURN_RIGHT", 0.25)),
    "firing": (("ATTACK", 0.12),),
}
"""Groups of buttons of which at most one is held, with how often each is."""

ONLY_WAY = 0.45
"""The frequencies with which each side is held where a scenario has only sideways moves, or only turns."""

HELD = 5.0
"""The mean number of frames that a button is held."""


class Walker:
    """Chooses buttons that are held for a few frames each, by a generator."""

    def __init__(self, buttons: Sequence[str], generator: np.random.Generator) -> None:
        self.generator = generator
        self.ways = {
            name: [(button, uniform) for button, uniform in way if button in buttons] for name, way in WAYS.items()
        }
        self.ways = {name: way for name, way in self.ways.items() if way}
        moving = [name for name in self.ways if name != "firing"]
        if len(moving) == 1:
            self.ways[moving[0]] = [(button, ONLY_WAY) for button, _ in self.ways[moving[0]]]
        self.kept = dict.fromkeys(self.ways, 0)
        self.held: dict[str, str | None] = dict.fromkeys(self.ways)

    def act(self, stuck: bool) -> set[str]:
        """Returns the buttons of the next frame; stuck: the last ones did not move the player."""
        for name, way in self.ways.items():
            self.kept[name] -= 1
            if self.kept[name] <= 0 or (stuck and name != "turning"):
                self._draw(name, [uniform for _, uniform in way])
        if stuck and "turning" in self.ways and self.held["turning"] is None:
            self._draw("turning", [1 / len(self.ways["turning"])] * len(self.ways["turning"]))
        return {button for button in self.held.values() if button}

    def _draw(self, name: str, chances: list[float]) -> None:
        chosen = self.generator.choice(len(chances) + 1, p=[*chances, 1 - sum(chances)])
        self.held[name] = self.ways[name][chosen][0] if chosen < len(chances) else None
        self.kept[name] = 1 if name == "firing" else int(self.generator.geometric(1 / HELD))


class Scene:
    """Plays a scenario headless, one episode at a time."""

    def __init__(self, scenario: str) -> None:
        try:
            import vizdoom
        except ImportError as error:
            sys.exit(f"{error.name} is not installed: pip install vizdoom av")
        self.vizdoom, self.scenario = vizdoom, scenario
        self.game = vizdoom.DoomGame()
        self.game.load_config(os.path.join(vizdoom.scenarios_path, f"{scenario}.cfg"))
        offered = {button.name for button in self.game.get_available_buttons()}
        self.buttons = [name for name in BUTTONS if name in offered]
        self.game.set_available_buttons([getattr(vizdoom.Button, name) for name in self.buttons])
        # Else the engine leaves its settings where the command was typed.
        self.settings = tempfile.TemporaryDirectory()
        self.game.set_doom_config_path(os.path.join(self.settings.name, "vizdoom.ini"))
        self.game.set_window_visible(False)
        self.game.set_sound_enabled(False)
        self.game.set_render_hud(False)
        self.game.set_mode(vizdoom.Mode.PLAYER)
        self.game.set_screen_resolution(vizdoom.ScreenResolution.RES_256X192)
        self.game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        if scenario in SKILL:
            self.game.set_doom_skill(SKILL[scenario])
        self.game.init()

    def play(self, seed: int, episode: int, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns frames ``(N, SIZE, SIZE, 3)`` uint8 and the buttons that led to each, ``(N, len(BUTTONS))``."""
        own = [seed, SCENARIOS.index(self.scenario), episode]
        generator = np.random.default_rng(own)
        self.game.set_seed(int(np.random.SeedSequence(own).generate_state(1)[0] % 2**31))
        self.game.new_episode()
        walker, place, stuck = Walker(self.buttons, generator), self._place(), False
        frames, actions = [], []
        while len(frames) < num_steps:
            held = walker.act(stuck)
            self.game.make_action([name in held for name in self.buttons], TICKS)
            if self.game.is_episode_finished() or self.game.is_player_dead():
                break
            frames.append(shrink(self.game.get_state().screen_buffer))
            actions.append([name in held for name in BUTTONS])
            before, place = place, self._place()
            stuck = any(name.startswith("MOVE") for name in held) and np.hypot(*(place - before)) < FEWEST_UNITS
        shape = (0, SIZE, SIZE, 3), (0, len(BUTTONS))
        if not frames:
            return np.zeros(shape[0], np.uint8), np.zeros(shape[1], np.uint8)
        return np.stack(frames), np.array(actions, dtype=np.uint8)

    def _place(self) -> np.ndarray:
        variables = self.vizdoom.GameVariable
        return np.array([self.game.get_game_variable(v) for v in (variables.POSITION_X, variables.POSITION_Y)])

    def close(self) -> None:
        """Ends the game's process."""
        self.game.close()
        self.settings.cleanup()


def shrink(screen: np.ndarray) -> np.ndarray:
    """Returns the middle square of a picture ``(H, W, 3)`` averaged over 3x3 pixels, ``(SIZE, SIZE, 3)`` uint8."""
    side = SIZE * SUPERSAMPLING
    left = (screen.shape[1] - side) // 2
    square = screen[:side, left : left + side].reshape(SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING, 3)
    return square.mean((1, 3)).round().astype(np.uint8)


def motion(frames: np.ndarray) -> float:
    """Returns the mean change of a value of frames ``(T, H, W, 3)`` from one frame to the next."""
    return float(np.abs(np.diff(frames.astype(np.int16), axis=0)).mean())


def write_clip(path: Path, frames: np.ndarray, crf: int) -> None:
    """Writes frames ``(T, H, W, 3)`` uint8 as H.264 of full chroma, the first of them a key frame."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        stream.codec_context.thread_count = 1
        stream.options = {"crf": str(crf), "preset": "veryfast", "bf": "0"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv444p")))
        container.mux(stream.encode())


def render_scenario(scenario: str, folder: Path, num_clips: int, seed: int, crf: int) -> None:
    """Writes the clips of a scenario and, when all are there, the part of the manifest that lists them."""
    part = folder / ".parts" / f"{scenario}.json"
    if part.is_file():
        return
    for place in (folder / scenario, part.parent):
        place.mkdir(parents=True, exist_ok=True)
    scene = Scene(scenario)
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    episode = 0
    while len(rows) < num_clips:
        gaps = np.random.default_rng([seed, SCENARIOS.index(scenario), episode, 1]).integers(1, 9, CLIPS_AN_EPISODE)
        starts = np.cumsum(gaps) + FRAMES * np.arange(CLIPS_AN_EPISODE)
        frames, actions = scene.play(seed, episode, int(starts[-1]) + FRAMES)
        for start in starts[starts < len(frames)].tolist():
            clip = frames[start : start + FRAMES]
            if len(clip) < FRAMES:
                left_out["the episode ended"] += 1
            elif motion(clip) < LEAST_MOTION:
                left_out["nothing moves"] += 1
            elif len(rows) < num_clips:
                path = f"{scenario}/{episode:05d}-{start:03d}.mp4"
                write_clip(folder / path, clip, crf)
                rows.append(
                    {
                        "path": path,
                        "scenario": scenario,
                        "episode": f"{scenario}-{episode:05d}",
                        "start": start,
                        "fps": float(RATE),
                        "actions": actions[start : start + FRAMES].tolist(),
                        **describe(scenario, actions[start : start + FRAMES]),
                    }
                )
        episode += 1
        if episode >= 100 + 20 * num_clips:
            sys.exit(f"{scenario}: {episode} episodes gave {len(rows)} clips; left out: {dict(left_out)}")
    scene.close()
    write_whole(part, json.dumps({"rows": rows, "left_out": left_out}))


def describe(scenario: str, actions: np.ndarray) -> dict[str, str]:
    """Returns place, motion and caption of a clip in words; actions: ``(n, 7)``, the buttons held in each frame.

    The motion has what is held in at least half of the frames of each half of the clip, and firing where it is held in
    a quarter: "walking forward, then walking forward and turning left".
    """
    halves = []
    for half in np.array_split(np.asarray(actions, dtype=float), 2):
        least = np.array([0.5] * (len(BUTTONS) - 1) + [0.25])
        words = [MOTIONS[button] for button in np.flatnonzero(half.mean(0) >= least)]
        halves.append(" and ".join(words) or "standing still")
    motion = halves[0] if halves[0] == halves[1] else f"{halves[0]}, then {halves[1]}"
    return {"place": PLACES[scenario], "motion": motion, "caption": f"{motion}, in {PLACES[scenario]}"}


def render(folder: Path, scenarios: Sequence[str], num_clips: int, seed: int, crf: int, workers: int) -> Counter[str]:
    """Writes every scenario that is not there yet, then the manifest; returns the clips left out, by reason."""
    work = partial(render_scenario, folder=folder, num_clips=num_clips, seed=seed, crf=crf)
    # Games are processes of their own, which a forked interpreter would share.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(work, scenarios), 1):
            print(f"\r{done} of {len(scenarios)} scenarios", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    found = [json.loads((folder / ".parts" / f"{scenario}.json").read_text("utf-8")) for scenario in scenarios]
    write_whole(folder / "manifest.jsonl", "".join(json.dumps(row) + "\n" for part in found for row in part["rows"]))
    return sum((Counter(part["left_out"]) for part in found), Counter())


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, renders, and says what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to")
    parser.add_argument(
        "--clips", type=int, default=1_120, metavar="N", help="of each scenario; default: 1120, 12,320 in all"
    )
    parser.add_argument(
        "--scenarios", nargs="+", default=list(SCENARIOS), choices=SCENARIOS, metavar="NAME", help="default: all"
    )
    parser.add_argument("--crf", type=int, default=12, metavar="Q", help="of H.264, 0 (lossless) to 51; default: 12")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="scenarios at a time; default: 1")
    parser.add_argument("--seed", type=int, default=0, metavar="I", help="of the games and the player; default: 0")
    options = parser.parse_args(arguments)
    for name, low in (("clips", 1), ("crf", 0), ("workers", 1), ("seed", 0)):
        if getattr(options, name) < low:
            parser.error(f"--{name} must be at least {low}, got {getattr(options, name)}")
    settings = {name: getattr(options, name) for name in ("clips", "crf", "seed")} | {"buttons": list(BUTTONS)}
    check_settings(options.folder, settings)
    left_out = render(options.folder, options.scenarios, options.clips, options.seed, options.crf, options.workers)
    rows = [json.loads(line) for line in (options.folder / "manifest.jsonl").open(encoding="utf-8")]
    for scenario, count in Counter(row["scenario"] for row in rows).items():
        print(f"{count:6d} {scenario}")
    for reason, count in left_out.items():
        print(f"{count:6d} left out: {reason}")
    print(f"{len(rows)} clips, listed in {options.folder / 'manifest.jsonl'}")


if __name__ == "__main__":
    main()

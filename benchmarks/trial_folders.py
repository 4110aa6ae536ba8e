"""Makes three folders that no recipe was tuned on, for trials of ``scm-media recipes --for FOLDER --hours 1``.

    python benchmarks/trial_folders.py drums KITS FOLDER    # KITS: the unpacked Debian package hydrogen-drumkits
    python benchmarks/trial_folders.py solids FOLDER        # 2,000 pictures of lit solids, drawn by ray casting
    python benchmarks/trial_folders.py motions FOLDER       # 1,600 clips of four physical systems

Drums are sorted into folders by what their names say they are; the drum kits are by their authors, under the licences
of the package's copyright file. Solids and motions are drawn here, from a seed a file; motions need
gymnasium[classic-control].
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
from PIL import Image

INSTRUMENTS = {
    "hihat": r"hi-?_? ?hat|hh|\bhat|hat[ _-]|_hat",
    "kick": r"kick|bass_? ?drum|\bbd|kik|^bass|_bd",
    "snare": r"snare|(_|-|\b)sn\d?(_|\b)|sd|rim|stick|snr|sna",
    "tom": r"\btom|_tom|floor|(_|-)tm\d?_",
    "cymbal": r"crash|ride|cymbal|china|splash|cym|bell|(_|-)(rd|cb|bl|cr)\d?_",
    "clap": r"clap|hand|snap|finger",
    "conga": r"conga|bongo|djembe|timbal|drum",
    "shaker": r"shak|maraca|tamb|cabasa|guiro",
    "block": r"cowbell|agogo|block|clave|triang|click",
}
"""Folder and the pattern of names that go there; the first that fits wins, files that none fits are left out."""


def drums(kits: Path, folder: Path) -> Counter[str]:
    """Copies the drum sounds below ``kits`` into one folder an instrument and returns how many each has."""
    names: dict[Path, str] = {}
    for description in kits.rglob("drumkit.xml"):
        text = re.sub(r'xmlns="[^"]*"', "", description.read_text(errors="replace"))
        for instrument in ElementTree.fromstring(text).iter("instrument"):
            for file in instrument.iter("filename"):
                names[description.parent / (file.text or "")] = instrument.findtext("name") or ""
    count: Counter[str] = Counter()
    for file in sorted(kits.rglob("*")):
        if file.suffix.lower() not in (".wav", ".flac", ".aiff"):
            continue
        said = [f"-{file.stem}".lower().removeprefix(f"-{file.parent.name.lower()}"), names.get(file, "").lower()]
        found = [label for name in said for label, pattern in INSTRUMENTS.items() if re.search(pattern, name)]
        if not found:
            continue
        target = folder / found[0]
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target / f"{file.parent.name}-{file.name}".replace(" ", "_"))
        count[found[0]] += 1
    return count


def _sphere(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points, axis=-1) - 1.0


def _cube(points: np.ndarray) -> np.ndarray:
    outside = np.abs(points) - 0.8
    return np.linalg.norm(np.maximum(outside, 0), axis=-1) + np.minimum(outside.max(-1), 0)


def _cylinder(points: np.ndarray) -> np.ndarray:
    outside = np.stack([np.hypot(points[..., 0], points[..., 2]) - 0.75, np.abs(points[..., 1]) - 0.9], axis=-1)
    return np.linalg.norm(np.maximum(outside, 0), axis=-1) + np.minimum(outside.max(-1), 0)


def _torus(points: np.ndarray) -> np.ndarray:
    ring = np.hypot(points[..., 0], points[..., 2]) - 0.85
    return np.hypot(ring, points[..., 1]) - 0.35


SOLIDS = {"sphere": _sphere, "cube": _cube, "cylinder": _cylinder, "torus": _torus}
"""Name and signed distance to the surface for points ``(..., 3)``, in units of the solid's size."""


def _hue(hue: float, value: float = 1.0, saturation: float = 0.8) -> np.ndarray:
    ramp = np.clip(np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return value * (1 - saturation * (1 - ramp))


def solid(name: str, rng: np.random.Generator, size: int = 64) -> Image.Image:
    """Returns a picture of a turned, lit solid on a plain floor, ``size`` pixels each way, anti-aliased twofold."""
    pixels = 2 * size
    turn, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.9)
    around = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    lean = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    colour, ground = _hue(rng.uniform()), _hue(rng.uniform(), 0.9, 0.3)
    scale, shift = rng.uniform(0.9, 1.25), rng.uniform(-0.35, 0.35, 2)
    grid = (np.arange(pixels) + 0.5) / pixels * 4 - 2
    x, y = np.meshgrid(grid, -grid)
    eye = np.stack([x - shift[0], y - shift[1], np.full_like(x, 4.0)], axis=-1)
    ahead = np.array([0.0, 0.0, -1.0])
    light = np.array([-0.5, 0.7, 0.5]) / np.linalg.norm([-0.5, 0.7, 0.5])
    to_body = around.T @ lean.T

    def distance(points: np.ndarray) -> np.ndarray:
        return scale * SOLIDS[name](points @ to_body.T / scale)

    travelled = np.zeros_like(x)
    for _ in range(40):
        travelled += 0.9 * distance(eye + travelled[..., None] * ahead)
    points = eye + travelled[..., None] * ahead
    hit = np.abs(distance(points)) < 0.02
    step = 1e-3 * np.eye(3)
    normal = np.stack([distance(points + h) - distance(points - h) for h in step], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    bright = np.clip(normal @ light, 0, 1)
    gleam = np.clip(2 * bright * normal[..., 2] - light[2], 0, 1) ** 20
    body = colour * (0.25 + 0.75 * bright[..., None]) + 0.5 * gleam[..., None]
    backdrop = ground * (0.6 + 0.1 * (y[..., None] + 2))
    picture = np.where(hit[..., None], body, backdrop)
    picture = picture.reshape(size, 2, size, 2, 3).mean((1, 3))
    return Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))


def solids(folder: Path, num: int = 2000) -> Counter[str]:
    """Draws ``num`` pictures, one folder a solid, and returns how many each has."""
    count: Counter[str] = Counter()
    for index in range(num):
        name = list(SOLIDS)[index % len(SOLIDS)]
        (folder / name).mkdir(parents=True, exist_ok=True)
        solid(name, np.random.default_rng(index)).save(folder / name / f"{index:04d}.png")
        count[name] += 1
    return count


SYSTEMS = {"cartpole": "CartPole-v1", "pendulum": "Pendulum-v1", "acrobot": "Acrobot-v1", "car": "MountainCar-v0"}
"""Folder and gymnasium's name of a physical system that is drawn while random actions push it."""


def motions(folder: Path, num: int = 1600, frames: int = 16, size: int = 64) -> Counter[str]:
    """Films ``num`` clips at 15 frames a second, one folder a system, and returns how many each has."""
    import gymnasium

    count: Counter[str] = Counter()
    environments = {name: gymnasium.make(code, render_mode="rgb_array").unwrapped for name, code in SYSTEMS.items()}
    for index in range(num):
        name = list(SYSTEMS)[index % len(SYSTEMS)]
        environment, rng = environments[name], np.random.default_rng(index)
        environment.reset(seed=index)
        environment.action_space.seed(index)
        for _ in range(int(rng.integers(0, 12))):
            environment.step(environment.action_space.sample())
        target = folder / name / f"{index:04d}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(target), "w") as container:
            stream = container.add_stream("libx264", rate=15, options={"crf": "18"})
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
            action = environment.action_space.sample()
            for frame in range(frames):
                if frame % 4 == 0:
                    action = environment.action_space.sample()
                environment.step(action)
                image = Image.fromarray(environment.render())
                side = min(image.size)
                left, top = (image.width - side) // 2, (image.height - side) // 2
                image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BOX)
                for packet in stream.encode(av.VideoFrame.from_image(image)):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
        count[name] += 1
    return count


def main() -> None:
    """Makes the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["drums", "solids", "motions"])
    parser.add_argument("folders", type=Path, nargs="+", help="where to write; for drums the kits' folder first")
    request = parser.parse_args()
    *sources, folder = request.folders
    if folder.exists():
        sys.exit(f"error: {folder} exists: name a new folder")
    if request.kind == "drums" and not sources:
        sys.exit("error: drums need two folders: the unpacked drum kits and where to write")
    count = {
        "drums": lambda: drums(sources[0], folder),
        "solids": lambda: solids(folder),
        "motions": lambda: motions(folder),
    }
    print(", ".join(f"{name} {number}" for name, number in count[request.kind]().items()))


if __name__ == "__main__":
    main()

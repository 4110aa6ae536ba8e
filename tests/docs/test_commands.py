"""Runs the commands and the Python of README.md and docs/, or at least composes them: see ``blocks.py``."""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import math
import re
import shutil
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import scm_media
from modalities.video.writing import write_video
from scm_media import recipe
from scm_media.cli import COMMANDS
from scm_media.cli.arguments import _CheckingParser
from scm_media.pipeline import EditRequest, SamplingRequest
from tests.docs.blocks import REPOSITORY, SHELLS, TYPED, Block, blocks_run_by
from tests.docs.running import run_blocks

NUM_FILES = 10
"""Files of each class of the folders that pages call the reader's own."""


def write_pictures(folder: Path, size: tuple[int, int] = (80, 64)) -> None:
    """Writes circles and squares of two colours each."""
    generator = np.random.default_rng(0)
    for kind in ("circles", "squares"):
        (folder / kind).mkdir(parents=True)
        for number in range(NUM_FILES):
            background, colour = (tuple(generator.integers(0, 255, 3).tolist()) for _ in range(2))
            picture = Image.new("RGB", size, background)
            draw = ImageDraw.Draw(picture)
            (draw.ellipse if kind == "circles" else draw.rectangle)([20, 14, 50, 44], fill=colour)
            picture.save(folder / kind / f"{number}.png")


def write_sounds(folder: Path, names: Callable[[str, int], str] = "{0}/{1}.wav".format) -> None:
    """Writes low and high tones that fade, one second of 22.05 kHz."""
    times = np.arange(22_050) / 22_050
    for kind, frequency in (("kick", 80), ("hat", 3000)):
        for number in range(NUM_FILES):
            tone = np.sin(2 * math.pi * frequency * (1 + number / 20) * times) * np.exp(-6 * times)
            path = folder / names(kind, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(path), "wb") as file:
                file.setparams((1, 2, 22_050, 0, "NONE", "not compressed"))
                file.writeframes((tone * 2**14).astype("<i2").tobytes())


def clip(direction: int) -> torch.Tensor:
    """Returns 24 frames of a bright square that moves over noise."""
    frames = 0.1 * torch.randn(3, 24, 64, 64)
    for frame in range(24):
        left = 20 + direction * frame
        frames[:, frame, 24:40, left : left + 16] = 0.8
    return frames.clamp(-1, 1)


def write_clips(folder: Path) -> None:
    """Writes clips of a square that goes left or right, 24 frames of 8 a second."""
    for kind, direction in (("left", -1), ("right", 1)):
        (folder / kind).mkdir(parents=True)
        for number in range(NUM_FILES):
            write_video(folder / kind / f"{number}.mp4", clip(direction), 8.0, {}, 90)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Makes an empty folder the current one, and returns it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_of(page: str) -> None:
    """Writes what a page takes as given into the current folder."""
    if page == "docs/your-pictures.md":
        write_pictures(Path("pictures"))
    if page == "docs/your-sounds.md":
        write_sounds(Path("sounds"))
    if page == "README.md":
        write_sounds(Path("drums"))
    if page == "docs/data.md":
        write_sounds(Path("sounds"), "{0}-{1}.wav".format)
    if page == "docs/your-clips.md":
        write_clips(Path("clips"))
    if page in ("README.md", "docs/your-clips.md"):
        write_video(Path("clip.mp4"), clip(1), 8.75, {}, 90)
    if page == "docs/editing.md":
        Image.fromarray(np.full((28, 28), 90, dtype=np.uint8)).save("boot.png")


class SmallNetwork(torch.nn.Module):
    """Takes the place of a page's ``unet``: the raw network F_x(c_in x, c_noise) of EDM over latents of 16 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return self.layer(x) * torch.cos(c_noise)[:, None, None, None]


def given_names(page: str) -> dict[str, Any]:
    """Returns the names that the Python of a page takes as given."""
    if page in ("README.md", "docs/distil-your-own.md"):
        return {"unet": SmallNetwork(), "latents": [0.5 * torch.randn(2, 16, 32, 32) for _ in range(2)]}
    if page == "docs/distillation.md":
        teacher = scm_media.teachers.EDM(SmallNetwork(), sigma_data=0.5)
        points = {"t": torch.rand(4), "x_t": torch.randn(4, 16, 8, 8), "x0": torch.randn(4, 16, 8, 8)}
        return {"scm": scm_media, "teacher": teacher, "student": copy.deepcopy(teacher), "cond": None, **points}
    if page == "docs/editing.md":
        pipeline = scm_media.load("audio/notes", device="cpu")
        write_sounds(Path("notes"), "{0}-{1}.wav".format)
        shutil.copy("notes/hat-0.wav", "note.wav")
        few = {"SamplingRequest": lambda num, **given: SamplingRequest(num=2, **given), "EditRequest": EditRequest}
        return {"pipeline": pipeline, **few}  # two samples stand for a thousand
    return {}


PAGES = blocks_run_by("test_page")
SLOW_PAGES = blocks_run_by("test_slow_page")


PROMPT = re.compile(r"^\s*\$ |&&", re.MULTILINE)


def count_typed(blocks: list[Block]) -> int:
    """Returns how many commands and blocks of Python a reader types, by the prompts on the page."""
    return sum(len(PROMPT.findall(block.text)) if block.language in SHELLS else 1 for block in blocks)


def run_page(page: str, blocks: list[Block], patch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Returns what was run of a page with exit codes, beside the files and names that the page takes as given."""
    files_of(page)
    return run_blocks(blocks, patch, given_names(page)).codes


@pytest.mark.parametrize("page", PAGES)
def test_page(page, folder, monkeypatch):
    codes = run_page(page, PAGES[page], monkeypatch)
    assert [each for each in codes if each[1] != 0] == []
    assert len(codes) == count_typed(PAGES[page])


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW_PAGES)
def test_slow_page(page, folder, monkeypatch):
    codes = run_page(page, SLOW_PAGES[page], monkeypatch)
    assert [each for each in codes if each[1] != 0] == []
    assert len(codes) == count_typed(SLOW_PAGES[page])


def test_a_command_that_fails_ends_the_page_and_is_told(folder, monkeypatch):
    text = "$ scm-media recipes image/tiny > tiny.yaml\n$ scm-media check none.yaml\n$ scm-media recipes\n"
    block = Block("docs/none.md", 1, "console", text, "tested", "")
    ran = run_blocks([block], monkeypatch, {})
    assert [code for _, code in ran.codes] == [0, 1] and ran.codes[1][0] == "scm-media check none.yaml"
    assert count_typed([block]) == 3


ELSEWHERE = {"pip", "git", "cd", "apt-get", "dpkg-deb"}
"""Programs of a page that are none of ours."""

COMPOSING = {"check", "train", "encode", "bench"}
SIZES = {"--duration", "--frames", "--size"}
"""Flags that ``generate`` and ``edit`` take of their model."""

ABSENT = [block for block in TYPED if block.kind == "needs"]


@pytest.fixture
def parsed(monkeypatch):
    """Returns a function that parses the words of a command as the command would, and lists what it does not know."""

    class Parsed(Exception):
        pass

    parse = _CheckingParser.parse_known_args

    def stop(self: argparse.ArgumentParser, words: Any = None, namespace: Any = None) -> Any:
        if any(action.nargs == argparse.SUPPRESS for action in self._actions):  # first half of the intermixed way
            return parse(self, words, namespace)
        raise Parsed(*parse(self, words, namespace))

    monkeypatch.setattr(_CheckingParser, "parse_known_args", stop)

    def parse_words(words: tuple[str, ...]) -> argparse.Namespace:
        assert words[0] in COMMANDS, words
        sizes = [place for place, word in enumerate(words) if word in SIZES]
        kept = [word for place, word in enumerate(words) if place not in sizes and place - 1 not in sizes]
        command = importlib.import_module(f"scm_media.cli.{words[0]}")
        # generate and edit pass over what a model may take
        parse_all = command._parser().parse_known_args if words[0] in ("generate", "edit") else command.run
        with pytest.raises(Parsed) as caught:
            parse_all(kept[1:])
        namespace, unknown = caught.value.args
        assert unknown == [], words
        return namespace

    return parse_words


def check_script(words: tuple[str, ...]) -> None:
    """Asserts that a script is there and has the flags that a page gives it."""
    script = REPOSITORY / words[0]
    nodes = list(ast.walk(ast.parse(script.read_text(encoding="utf-8"))))
    for module in [node.module for node in nodes if isinstance(node, ast.ImportFrom)]:
        beside = script.parent / f"{str(module).rpartition('.')[2]}.py"  # flags that several scripts share
        nodes += ast.walk(ast.parse(beside.read_text(encoding="utf-8"))) if beside.is_file() else ()
    strings = {node.value for node in nodes if isinstance(node, ast.Constant)}
    own = words[: words.index("--")] if "--" in words else words
    assert [word for word in own[1:] if word.startswith("-") and word not in strings] == [], words


def stand_in(name: str) -> None:
    """Writes the recipe of a reader's own folder, which a page would have proposed before."""
    parent = {"drums": "audio", "sounds": "audio", "clips": "video", "motions": "video"}.get(Path(name).stem, "image")
    Path(name).write_text(f"defaults: [{parent}/folder, _self_]\ndata: {{root: {Path(name).stem}}}\n")


@pytest.mark.parametrize("block", [block for block in ABSENT if block.language in SHELLS], ids=str)
def test_composed(block, parsed, folder, monkeypatch):
    """Parses the words of a command as it would parse them, and composes its recipe with its overrides."""
    commands = block.commands()
    assert commands, "a block without a command shows nothing"
    for command in commands:
        program, *words = command.words
        if program == "python":
            check_script(tuple(words))
        elif program == "scm-media":
            parsed(tuple(words))
            if words[0] in COMPOSING:
                compose(words[1], words[2:])
        else:
            assert program in ELSEWHERE, command


def compose(name: str, overrides: list[str]) -> None:
    if name.endswith(".yaml"):
        stand_in(name)
    taken = [word for word in overrides if word.startswith("teacher_from=")]
    if taken:  # a model of ours in the place of the folder that a page made before
        overrides = [word for word in overrides if word not in taken] + ["teacher_from=image/fashion"]
    config = recipe.compose(name, overrides)
    assert config["teacher"]["max_steps"] >= 0


OVERRIDE = re.compile(r"`(\+{0,2}[a-z_]+(?:\.[a-z_]+)*=[^`\s…]+)`")
"""A setting within a sentence or a table, as a reader appends it to a command."""

FOLDERS = ("image/folder", "audio/folder", "video/folder")
REMEDIES = {
    "your-pictures": FOLDERS[:1],
    "your-sounds": FOLDERS[1:2],
    "your-clips": FOLDERS[2:],
    "troubleshooting": FOLDERS,
}
"""Pages whose tables name settings as remedies, and the recipes of which one has to take each."""


@pytest.mark.parametrize("page", REMEDIES)
def test_settings_that_tables_name_are_taken(page):
    found = set(OVERRIDE.findall((REPOSITORY / "docs" / f"{page}.md").read_text(encoding="utf-8")))
    assert len(found) >= 3
    assert {override for override in found if not any(takes(name, override) for name in REMEDIES[page])} == set()


def takes(name: str, override: str) -> bool:
    try:
        recipe.compose(name, ["++data.root=.", override])
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("block", [block for block in ABSENT if block.language == "python"], ids=str)
def test_python_that_is_not_run_compiles_and_its_imports_are_there(block):
    tree = ast.parse(block.text)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    space: dict[str, Any] = {}
    exec(compile(ast.Module(imports, []), str(block), "exec"), space)
    names = {alias.asname or alias.name.partition(".")[0] for node in imports for alias in node.names}
    assert names and names <= space.keys()
    assert compile(tree, str(block), "exec").co_names


def test_a_misspelled_flag_and_a_misspelled_key_are_noticed(parsed, folder):
    with pytest.raises(AssertionError):
        parsed(("generate", "image/fashion", "--stepps", "2"))
    with pytest.raises(ValueError, match="max_stepz"):
        compose("image/tiny", ["teacher.max_stepz=3"])
    with pytest.raises(AssertionError):
        check_script(("examples/few_steps.py", "image/fashion", "--outt", "x"))


def test_distilling_a_pipeline(folder, monkeypatch):
    from tests.adapters.pipelines import save_pipeline

    save_pipeline("image", folder / "ddpm-cats")
    write_pictures(folder / "cats", (32, 32))
    codes = run_blocks(blocks_run_by("test_distilling_a_pipeline")["docs/teachers.md"], monkeypatch, {}).codes
    assert [code for _, code in codes] == [0] * 4
    assert (folder / "two-steps" / "model_index.json").is_file()


def test_distilling_in_python(folder, monkeypatch):
    from tests.adapters.small import POOLED, TOKENS
    from tests.adapters.test_conversion import saved

    saved("SD3Transformer2DModel", folder / "stable-diffusion-3")
    given = {
        "torch": torch,
        "latents": torch.randn(2, 4, 8, 8),
        "text_embeddings": torch.randn(2, 5, TOKENS),
        "pooled_embeddings": torch.randn(2, POOLED),
    }
    names = run_blocks(blocks_run_by("test_distilling_in_python")["docs/teachers.md"], monkeypatch, given).names
    assert torch.isfinite(names["value"])
    assert (folder / "two-steps.safetensors").is_file()

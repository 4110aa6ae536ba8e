"""Adds a modality of another rank and a recipe by a package that is none of ours, while nothing of ours changes."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from tests.docs.blocks import TYPED

pytestmark = pytest.mark.slow
"""An environment is made and packages are installed into it."""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Writes a folder of CSV files, eight slow and eight fast waves, and returns it."""
    root = tmp_path_factory.mktemp("recordings")
    for name, periods in (("fast", 4), ("slow", 1)):
        (root / name).mkdir()
        for number in range(8):
            values = [math.sin(2 * math.pi * (periods * i / 32 + number / 8)) for i in range(32)]
            (root / name / f"{number}.csv").write_text("\n".join(f"{value:.5f}" for value in values))
    return root


def test_plugin_recipe_is_listed_beside_ours(installed_with_plugin):
    listing = installed_with_plugin.run("scm-media", "recipes")
    assert "traces/tiny" in listing
    assert "image/tiny" in listing


CONFORMANCE = """
import pathlib, torch
from scm_media.testing import check_autoencoder, check_modality
from scm_media_traces.modality import ScaledTraces, TraceModality

wave = torch.sin(torch.linspace(0, 6.28, 32))[None]
folder = pathlib.Path("conformance")
folder.mkdir()
check_modality(TraceModality(32), folder, wave)
autoencoder = ScaledTraces()
autoencoder.fit([wave[None]])
check_autoencoder(autoencoder, wave.expand(4, 1, 32))
"""
CHECKED = """
print(*sorted(path.name for path in folder.iterdir()), f"{autoencoder.std.item():.3f}")
folder.rename("conformance-of-another")
"""
RANDOM = """
import torch
from scm_media_traces.modality import TraceModality

TraceModality.transform = lambda self, sample, generator=None: sample * torch.rand(1)
"""


def test_plugin_passes_our_conformance_checks(installed_with_plugin):
    checked = installed_with_plugin.run("python", "-c", CONFORMANCE + CHECKED)
    assert checked.split() == ["broken.csv", "written.csv", "0.707"], (
        "the files that were checked, and a sine's deviation"
    )
    with pytest.raises(AssertionError, match=r"transform\(\) without a generator must not be random"):
        installed_with_plugin.run("python", "-c", RANDOM + CONFORMANCE)


def test_plugin_trains_two_steps_and_generates(installed_with_plugin, recordings):
    run_dir = installed_with_plugin.root / "run"
    overrides = (f"data.root={recordings}", f"run_dir={run_dir}", "device=cpu", "logger=none")
    installed_with_plugin.run("scm-media", "train", "traces/tiny", *overrides)
    for stage in ("teacher", "student"):
        steps = [json.loads(line) for line in (run_dir / stage / "metrics.jsonl").read_text().splitlines()]
        losses = [entry["loss"] for entry in steps if "loss" in entry]
        assert losses, f"no loss was written by the stage {stage}"
        assert all(math.isfinite(loss) for loss in losses)
        assert (run_dir / stage / "weights.safetensors").is_file()

    command = ("generate", run_dir, "-n", "2", "--label", "slow", "--device", "cpu", "--json")
    report = json.loads(installed_with_plugin.run("scm-media", *command, "--out", run_dir / "clips"))
    assert len(report["samples"]) == 2
    for clip in report["samples"]:
        path = installed_with_plugin.root / clip["path"]
        assert path.suffix == ".csv"
        numbers = [float(line) for line in path.read_text().splitlines() if not line.startswith("#")]
        assert len(numbers) == 32
        assert any(abs(number) > 1e-3 for number in numbers)


@pytest.mark.slow
def test_the_commands_of_the_page_run(installed_with_plugin, recordings):
    """Runs the commands of docs/adding-a-modality.md, whose package the fixture has installed already."""
    shutil.copytree(recordings, installed_with_plugin.root / "recordings")
    block = next(each for each in TYPED if each.what.endswith("::test_the_commands_of_the_page_run"))
    first, *rest = block.commands()
    assert first.words == ("pip", "install", "-e", "tests/packaging/plugin")
    for command in rest:
        more = ("device=cpu", "logger=none") if "train" in command.words else ()
        installed_with_plugin.run(*command.words, *more)
    assert len(list((installed_with_plugin.root / "traces").glob("*.csv"))) == 4

"""A stranger's recipe runs no code: what Hydra runs is named on the command line alone, however the file says it."""

from __future__ import annotations

import sys

import pytest

from scm_media import recipe, training
from scm_media.cli import main

CODE = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()
def run(*args, **kwargs):
    return None
class Callback:
    def __init__(self, **kwargs):
        pass
"""
EVIL = "{_target_: evil_code.Callback}"
INHERIT = "defaults: [image/tiny, _self_]\n"

ATTACKS = {
    "callbacks": {"mine.yaml": INHERIT + f"hydra: {{callbacks: {{x: {EVIL}}}}}\n"},
    "job logging": {
        "mine.yaml": INHERIT + "hydra: {job_logging: {version: 1, handlers: {x: {(): evil_code.run}}, "
        "root: {handlers: [x]}}}\n"
    },
    "hydra logging": {
        "mine.yaml": INHERIT + "hydra:\n  hydra_logging: {version: 1, handlers: {x: {(): evil_code.run}}}\n"
    },
    "launcher": {"mine.yaml": INHERIT + f"hydra: {{launcher: {EVIL}}}\n"},
    "sweeper": {"mine.yaml": INHERIT + f"hydra: {{sweeper: {EVIL}}}\n"},
    "search path": {"mine.yaml": INHERIT + "hydra: {searchpath: ['pkg://evil_code']}\n"},
    "environment": {"mine.yaml": INHERIT + "hydra: {job: {env_set: {LD_PRELOAD: x.so}}}\n"},
    "mode": {"mine.yaml": INHERIT + "hydra: {mode: MULTIRUN}\n"},
    "inherited": {
        "mine.yaml": "defaults: [common, _self_]\n",
        "common.yaml": INHERIT + f"hydra: {{callbacks: {{x: {EVIL}}}}}\n",
    },
    "a group": {
        "mine.yaml": "defaults: [image/tiny, override /trainer: fast, _self_]\n",
        "trainer/fast.yaml": f"# @package _global_\nhydra: {{callbacks: {{x: {EVIL}}}}}\n",
    },
    "a package in the header": {
        "mine.yaml": "defaults: [image/tiny, other, _self_]\n",
        "other.yaml": f"# @package hydra.callbacks\nx: {EVIL}\n",
    },
    "a package in the defaults": {
        "mine.yaml": "defaults: [image/tiny, other@hydra.callbacks, _self_]\n",
        "other.yaml": f"x: {EVIL}\n",
    },
    "a group's package": {
        "mine.yaml": "defaults: [image/tiny, {/more@hydra.callbacks: other}, _self_]\n",
        "more/other.yaml": f"x: {EVIL}\n",
    },
    "the whole key by a package": {
        "mine.yaml": "defaults: [image/tiny, other@hydra, _self_]\n",
        "other.yaml": f"callbacks: {{x: {EVIL}}}\n",
    },
    "a group of Hydra's": {
        "mine.yaml": "defaults: [image/tiny, override hydra/job_logging: own, _self_]\n",
        "hydra/job_logging/own.yaml": "version: 1\nhandlers: {x: {(): evil_code.run}}\n",
    },
    "a callback group": {
        "mine.yaml": "defaults: [image/tiny, override hydra/callbacks: own, _self_]\n",
        "hydra/callbacks/own.yaml": f"x: {EVIL}\n",
    },
    "a choice of Hydra's": {"mine.yaml": "defaults: [image/tiny, override hydra/job_logging: disabled, _self_]\n"},
    "an anchor": {
        "mine.yaml": f"defaults: [image/tiny, _self_]\nabout: &a {{data: x}}\nhydra: {{callbacks: {{x: {EVIL}}}}}\n"
    },
}
HARMLESS = {
    "a launcher beside the recipe": {"mine.yaml": INHERIT, "hydra/launcher/basic.yaml": "_target_: evil_code.run\n"},
    "logging beside the recipe": {
        "mine.yaml": INHERIT,
        "hydra/job_logging/none.yaml": "version: 1\nhandlers: {x: {(): evil_code.run}}\nroot: {handlers: [x]}\n",
        "hydra/config.yaml": f"callbacks: {{x: {EVIL}}}\n",
    },
}


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """The configurations that training was started with; ``evil_code`` can be imported and leaves a file if it is."""
    started: list[dict] = []
    (tmp_path / "evil_code.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "run", lambda config, *_: started.append(config))
    yield started
    sys.modules.pop("evil_code", None)
    assert not (tmp_path / "ran").exists()


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


WAYS = [[], ["-m"], ["hydra.mode=RUN"], ["+hydra.mode=MULTIRUN"], ["--cfg", "all"]]


@pytest.mark.parametrize("files", ATTACKS.values(), ids=ATTACKS.keys())
def test_what_hydra_runs_is_refused_in_files_with_and_without_a_sweep(configs, tmp_path, capsys, files):
    write(tmp_path, files)
    for way in WAYS:
        assert main(["train", "mine.yaml", *way]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "hydra" in said
    assert configs == []
    with pytest.raises(ValueError, match="hydra"):
        recipe.compose("mine.yaml")


@pytest.mark.parametrize("files", HARMLESS.values(), ids=HARMLESS.keys())
def test_groups_of_hydras_beside_a_recipe_are_not_seen(configs, tmp_path, files):
    write(tmp_path, files)
    assert main(["train", "mine.yaml", "-m", "seed=1,2"]) == 0
    assert [config["seed"] for config in configs] == [1, 2]


def test_the_refusal_says_what_to_do(configs, tmp_path):
    write(tmp_path, ATTACKS["callbacks"])
    with pytest.raises(ValueError, match=r"mine\.yaml sets hydra: .* taken from the command line alone; take them out"):
        recipe.compose("mine.yaml")
    write(tmp_path, ATTACKS["inherited"])
    with pytest.raises(ValueError, match=r"common\.yaml sets hydra: "):
        recipe.compose("mine.yaml")


def test_settings_that_come_from_an_installed_package_are_refused_too(configs, tmp_path, monkeypatch):
    from scm_media.recipe import source

    write(tmp_path, {"odd_configs/__init__.py": "", "odd_configs/odd.yaml": f"hydra: {{callbacks: {{x: {EVIL}}}}}\n"})
    packages = source.packages
    monkeypatch.setattr(source, "packages", lambda kind: (*packages(kind), "odd_configs"))
    write(tmp_path, {"mine.yaml": "defaults: [image/tiny, /odd@_global_, _self_]\n"})
    with pytest.raises(ValueError, match=r"mine\.yaml sets hydra\.callbacks\.x: "):
        recipe.compose("mine.yaml")


def test_hydras_settings_are_taken_from_the_command_line(configs, tmp_path):
    write(tmp_path, {"mine.yaml": INHERIT, "groups/hydra/sweeper/mine.yaml": "defaults: [basic]\nmax_batch_size: 1\n"})
    search = f"hydra.searchpath=[file://{tmp_path}/groups]"
    assert main(["train", "mine.yaml", "-m", "seed=1,2", "+hydra.job.env_set.A_B=c", search]) == 0
    assert main(["train", "mine.yaml", "-m", "seed=3", "hydra/sweeper=mine", search]) == 0
    assert [config["seed"] for config in configs] == [1, 2, 3]

"""Every shipped recipe composes, says what it needs, and stays short."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path

import pytest
import torch

from scm_media import recipe
from scm_media.build import build, resolve
from scm_media.nn.dual import Dropout
from scm_media.pipeline import ModelFolder
from scm_media.recipe.cost import count_parameters
from scm_media.training.trajectories import check_trajectories
from tests.named_parts import named_parts

SIZES = {"imagenet64": ("s", "m", "l", "xl"), "imagenet512": ("s", "m", "l", "xl", "xxl")}
PAPER = ("image/cifar10", *(f"image/{data}-{size}" for data, sizes in SIZES.items() for size in sizes))
"""Recipes of the sCM paper: their data are the user's to name, and their networks are built without storage."""
IMAGE = ("image/emoji", "image/fashion", "image/fashion-latent", "image/folder", "image/tiny", *PAPER)
AUDIO = ("audio/fullband", "audio/folder", "audio/notes", "audio/tiny", "audio/voices")
VIDEO = ("video/folder", "video/kinetics-like", "video/scenes", "video/scenes-actions", "video/tiny")
SHIPPED = (*IMAGE, *AUDIO, *VIDEO)
DISTIL = {"image/distil": "image/fashion", "audio/distil": "audio/notes", "video/distil": "video/scenes"}
"""Recipes whose networks are those of a model that they name, and the bundled model of each modality."""
ROOT = "++data.root=mine"


def test_they_are_all_there():
    assert set(SHIPPED) | DISTIL.keys() <= set(recipe.names())


@pytest.mark.parametrize(("name", "model"), DISTIL.items())
def test_bundled_models_are_distilled_by_the_recipe_of_their_modality(name, model):
    config = recipe.compose(name, [f"teacher_from={model}", ROOT])
    own = ModelFolder.open(model).description
    shape = build(config["modality"], "modality").shape()
    assert tuple(shape) == tuple(own.sample_shape) and config["flow"] == own.flow
    for target, role in named_parts(config):
        resolve(target, role)


@pytest.mark.parametrize("name", [*SHIPPED, *DISTIL])
def test_text_is_short_and_its_header_says_data_and_size(name):
    found = recipe.describe(name)
    assert len(found.text.splitlines()) <= 40
    header = "\n".join(found.header)
    for word in ("data:", "size:", "memory:", "time:"):
        assert word in header, f"{name} does not say {word}"


@pytest.mark.parametrize("name", SHIPPED)
def test_the_header_tells_the_true_number_of_parameters(name):
    million = count_parameters(recipe.compose(name, [ROOT])) / 1e6
    said = re.search(r"about ([\d.]+) M parameters a network", "\n".join(recipe.describe(name).header))
    assert said, "the header says: about X M parameters a network"
    assert float(said[1]) == pytest.approx(million, rel=0.1)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("objective", ["scd", "sct"])
def test_composes_for_both_objectives_and_names_only_what_may_be_built(name, objective):
    config = recipe.compose(name, [f"student.objective={objective}", ROOT])
    assert config["recipe"] == name
    assert config["student"]["objective"] == objective
    for target, role in named_parts(config):
        resolve(target, role)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_parts_can_be_built_and_fit_each_other(name):
    config = recipe.compose(name, [ROOT])
    modality = build(config["modality"], "modality")
    with torch.device("meta"):
        latent_shape = build(config["autoencoder"]["network"], "autoencoder").latent_shape(modality.shape())
        parts = {"in_channels": latent_shape[0], "labels": {"class": 4}}
        backbone, own = (
            build({**config["backbone"], **differing}, "backbone", **parts)
            for differing in ({}, config["student"]["backbone"])
        )
        flow = build(config["flow"], "flow")
        teacher = build(config["teacher"]["loss"], "loss", backbone=backbone, flow=flow)
        distilled = (
            build({**config["backbone"]}, "backbone", **parts) if config["student"]["objective"] == "scd" else None
        )
        student = build(config["student"]["loss"], "loss", backbone=own, teacher=distilled, flow=flow)
    optimizer = build(config["student"]["optimizer"], "optimizer", params=student.parameters())
    assert (
        build(config["teacher"]["optimizer"], "optimizer", params=teacher.parameters()).defaults["lr"]
        > optimizer.defaults["lr"]
    )
    assert optimizer.defaults["weight_decay"] == 0


@pytest.mark.parametrize("name", SHIPPED)
def test_the_overrides_of_a_header_choose_the_loss_that_it_says(name):
    for line in recipe.describe(name).header:
        for objective, given in re.findall(r"^(sC[DT]): (.*)", line):
            words = [word for word in given.split() if "=" in word]
            config = recipe.compose(name, [ROOT, *words])
            check_trajectories(config)
            assert config["student"]["loss"]["_target_"].endswith("ConsistencyLoss")
            assert config["student"]["objective"] == objective.lower()
            assert config["warm_start"] is None, "a tangent loses what a warm start gave"


def dropouts(network) -> list[float]:
    return [part.rate for part in network.modules() if isinstance(part, Dropout)]


@pytest.mark.parametrize("name", PAPER)
def test_settings_of_the_paper(name):
    """sCM, tables 4 and 5 and appendix G: rates a hundredth of the teacher's, dropout of the student's low levels."""
    config = recipe.compose(name, [ROOT])
    teacher, student = config["teacher"], config["student"]
    size, is_cifar = name.rpartition("-")[2], name == "image/cifar10"
    assert teacher["batch_size"] == student["batch_size"] == (512 if is_cifar else 2048)
    assert student["optimizer"]["lr"] == pytest.approx(teacher["optimizer"]["lr"] / 100)
    assert student["optimizer"]["betas"] == [0.9, 0.99]
    assert student["loss"]["tangent_warmup"] == 10_000
    assert student["loss"]["norm_constant"] == 0.1
    assert student["ema_std"] == 0.05
    proposals = [tuple(stage["loss"]["timesteps"][key] for key in ("mean", "std")) for stage in (teacher, student)]
    expected = {
        "image/imagenet64": [(-0.8, 1.6), (-1.0, 1.6)],
        "image/imagenet512": [(-0.4, 1.0), (-0.8, 1.6)],
        "image/cifar10": [(-1.2, 1.2), (-1.0, 1.4)],
    }
    assert proposals == expected[name.rpartition("-")[0] or name]
    if is_cifar:
        return
    rates = {"s": 1e-2, "m": 9e-3, "l": 8e-3, "xl": 7e-3, "xxl": 6.5e-3}
    assert teacher["optimizer"]["lr"] == rates[size] == pytest.approx(rates[config["backbone"]["size"]])
    assert config["backbone"]["dropout"] == (0.0 if size == "s" else 0.1)
    with torch.device("meta"):
        sct = {**config["backbone"], **student["backbone"], "dropout": 0.45}
        found = dropouts(build(sct, "backbone", in_channels=4))
    assert found.count(0.45) == 19, "levels of 16 and 8 places a side: 8 encoder, 2 middle and 9 decoder blocks"
    assert found.count(0.0) == len(found) - 19


TINY = [name for name in SHIPPED if name.endswith("/tiny")]


@pytest.mark.parametrize(
    "name", [*TINY, *(pytest.param(name, marks=pytest.mark.slow) for name in SHIPPED if name not in TINY)]
)
def test_any_recipe_takes_a_folder_of_ones_own(name):
    assert recipe.compose(name, ["data=folder", ROOT])["data"]["root"] == "mine"


@pytest.mark.parametrize("name", AUDIO)
def test_sounds_have_few_tokens_of_whole_patches(name):
    """The clip is whole patches, without padding; and what a patch holds fits the width, or the skip carries it."""
    config = recipe.compose(name, [ROOT])
    modality, backbone = build(config["modality"], "modality"), config["backbone"]
    with torch.device("meta"):
        channels, *places = build(config["autoencoder"]["network"], "autoencoder").latent_shape(modality.shape())
    assert all(size_option % step == 0 for size_option, step in zip(places, backbone["patch"], strict=True))
    tokens = math.prod(size_option // step for size_option, step in zip(places, backbone["patch"], strict=True))
    assert tokens <= (400 if name == "audio/fullband" else 180)
    assert backbone["skip"] or channels * math.prod(backbone["patch"]) <= backbone["width"]


def test_the_lengths_of_sounds_are_what_the_headers_say():
    shapes = {name: build(recipe.compose(name, [ROOT])["modality"], "modality").shape() for name in AUDIO}
    assert shapes["audio/notes"] == (1, 22_528)
    assert shapes["audio/voices"] == (1, 32_768)
    assert shapes["audio/fullband"] == (2, 393_216)
    assert 6 * 44_100 <= shapes["audio/fullband"][1] <= 12 * 44_100


@pytest.mark.parametrize("name", VIDEO)
def test_videos_are_whole_groups_of_frames_and_whole_patches(name):
    config = recipe.compose(name, [ROOT])
    shape = build(config["modality"], "modality").shape()
    network, patch = config["autoencoder"]["network"], config["backbone"]["patch"]
    assert (shape[1] - 1) % network["time_factor"] == 0, "the first frame alone, then groups"
    with torch.device("meta"):
        channels, *places = build(network, "autoencoder").latent_shape(shape)
    assert places[0] == 1 + (shape[1] - 1) // network["time_factor"]
    assert all(size_option % step == 0 for size_option, step in zip(places, patch, strict=True))
    assert channels * math.prod(patch) <= config["backbone"]["width"]


def test_the_lengths_of_videos_are_what_the_headers_say():
    shapes = {name: build(recipe.compose(name, [ROOT])["modality"], "modality").shape() for name in VIDEO}
    assert shapes["video/scenes"] == shapes["video/folder"] == (3, 16, 64, 64)
    assert shapes["video/kinetics-like"] == (3, 61, 256, 256)


def test_the_actions_of_scenes_are_the_buttons_that_are_rendered(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    buttons = importlib.import_module("render_scenes").BUTTONS
    config = recipe.compose("video/scenes-actions")
    assert config["data"]["actions"] == "actions"
    names = [name.upper().replace("-", "_") for name in config["data"]["action_names"]]
    moved = {"AHEAD": "MOVE_FORWARD", "BACK": "MOVE_BACKWARD", "LEFT": "MOVE_LEFT", "RIGHT": "MOVE_RIGHT"}
    assert tuple({**moved, "FIRE": "ATTACK"}.get(name, name) for name in names) == buttons
    build(config["modality"], "modality").check_actions()

"""Every shipped recipe composes, says what it needs, and stays short."""

from __future__ import annotations

import re

import pytest

from scm_media import recipe
from scm_media.build import build, resolve

SHIPPED = ("image/fashion", "image/fashion-latent", "image/tiny")


def targets(config) -> list[str]:
    if not isinstance(config, dict):
        return []
    inner = [target for value in config.values() for target in targets(value)]
    return [config["_target_"], *inner] if "_target_" in config else inner


def test_they_are_all_there():
    assert set(SHIPPED) <= set(recipe.names())


@pytest.mark.parametrize("name", SHIPPED)
def test_text_is_short_and_its_header_says_data_and_size(name):
    found = recipe.describe(name)
    assert len(found.text.splitlines()) <= 40
    header = "\n".join(found.header)
    for word in ("data:", "size:", "memory:", "time:"):
        assert word in header, f"{name} does not say {word}"


@pytest.mark.parametrize(
    ("name", "num_classes"), [("image/fashion", 10), ("image/fashion-latent", 10), ("image/tiny", 4)]
)
def test_the_header_tells_the_true_number_of_parameters(name, num_classes):
    config = recipe.compose(name)
    modality = build(config["modality"])
    in_channels = build(config["autoencoder"]["network"]).latent_shape(modality.shape())[0]
    backbone = build(config["backbone"], in_channels=in_channels, labels={"class": num_classes})
    million = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
    said = re.search(r"about ([\d.]+) M parameters a network", "\n".join(recipe.describe(name).header))
    assert said, "the header says: about X M parameters a network"
    assert float(said[1]) == pytest.approx(million, rel=0.1)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("objective", ["scd", "sct"])
def test_composes_for_both_objectives_and_names_only_what_may_be_built(name, objective):
    config = recipe.compose(name, [f"student.objective={objective}"])
    assert config["recipe"] == name
    assert config["student"]["objective"] == objective
    for target in targets(config):
        resolve(target)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_parts_can_be_built_and_fit_each_other(name):
    config = recipe.compose(name)
    modality = build(config["modality"])
    autoencoder = build(config["autoencoder"]["network"])
    latent_shape = autoencoder.latent_shape(modality.shape())
    backbone = build(config["backbone"], in_channels=latent_shape[0], labels={"class": 4})
    flow = build(config["flow"])
    teacher = build(config["teacher"]["loss"], backbone=backbone, flow=flow)
    student = build(config["student"]["loss"], backbone=backbone, teacher=None, flow=flow)
    optimizer = build(config["student"]["optimizer"], params=student.parameters())
    assert build(config["teacher"]["optimizer"], params=teacher.parameters()).defaults["lr"] > optimizer.defaults["lr"]
    assert optimizer.defaults["weight_decay"] == 0


def test_any_recipe_takes_a_folder_of_ones_own():
    for name in SHIPPED:
        assert recipe.compose(name, ["data=folder", "data.root=mine"])["data"]["root"] == "mine"

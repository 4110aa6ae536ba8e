"""``model.json``: written and read without loss, and checked when a description is made."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from scm_media.pipeline import ModelDescription, ModelFolder, SamplerSettings
from tests.pipeline.tiny import DESCRIPTION, write_tiny_model

FILE = Path("model.json")


def test_a_description_is_read_as_it_was_written():
    description = replace(DESCRIPTION, ema={"student": {"std": 0.1}}, actions=["left"], other={"later": [1]})
    written = json.loads(json.dumps(description.to_json()))
    assert ModelDescription.from_json(written, FILE) == description
    assert list(written)[:5] == ["format", "name", "modality", "flow", "sampler"]
    assert "other" not in written
    assert written["later"] == [1]


def test_keys_that_are_left_out_have_defaults():
    written = DESCRIPTION.to_json()
    required = ("format", "name", "modality", "flow", "labels", "label_counts", "sample_shape", "latent_shape")
    read = ModelDescription.from_json({key: written[key] for key in required} | {"sampler": {}}, FILE)
    assert read.sampler == SamplerSettings(steps=2, second_time=1.1, sigma_max=80.0, teacher_steps=32, teacher="heun")
    assert read.actions is read.mask is read.guidance_max is None
    with pytest.raises(ValueError, match=r"model\.json lacks sampler, labels; export the model again"):
        ModelDescription.from_json({key: written[key] for key in required if key != "labels"}, FILE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "1 to 200 characters"),
        ({"labels": {"class": ["a", "a"]}}, "names a class twice"),
        ({"label_counts": {"class": [1]}}, "must count the examples of 3 classes"),
        ({"label_combinations": ["0 0 1"]}, "must give a class of each label and a count"),
        ({"label_combinations": ["3 1"]}, "must give a class of each label and a count"),
        ({"label_combinations": ["2 0"]}, "must give a class of each label and a count"),
        ({"label_quantiles": {"class": [0.0, 1.0]}}, "is no label that is a number"),
        ({"labels": {"a": []}, "label_counts": {}, "label_quantiles": {"a": [1.0, 0.0]}}, "in rising order"),
        ({"latent_shape": [1]}, "must be channels and 1 to 5 sizes"),
        ({"guidance_max": "3"}, "guidance_max must be a number or null, got '3'"),
        ({"mask": 3}, "mask must be a mapping of keys or null"),
    ],
)
def test_a_description_is_checked_when_it_is_made(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(DESCRIPTION, **changes)


def test_sampler_settings_are_checked_when_they_are_made():
    for changes, message in (
        ({"steps": 0}, "sampler.steps must be at least 1, got 0"),
        ({"second_time": 2.0}, "sampler.second_time must be below 1.571"),
        ({"teacher": "euler"}, "sampler.teacher must be one of"),
        ({"times": {"two": [1.0]}}, "sampler.times must be steps to as many times"),
        ({"guidance_interval": [1.0]}, r"sampler.guidance_interval must be \[low, high\] in radians"),
    ):
        with pytest.raises(ValueError, match=message):
            SamplerSettings(**changes)
    assert SamplerSettings.from_mapping({"times": {2: [1.5, 0.5]}, "later": 1}).times == {"2": [1.5, 0.5]}


def test_a_change_is_made_to_the_file_as_it_stands(tmp_path):
    folder = ModelFolder.open(write_tiny_model(tmp_path / "model"))
    folder.redescribe(lambda written: replace(written, data="mine"))
    folder.redescribe(lambda written: replace(written, licence="MIT"))
    again = ModelFolder.open(folder.path).description
    assert (again.data, again.licence) == ("mine", "MIT")
    assert folder.description.data == "none"


def test_each_field_is_documented():
    source = inspect.getsource(ModelDescription)
    for field in fields(ModelDescription):
        declaration = source.index(f"    {field.name}: ")
        assert source[source.index("\n", declaration) :].lstrip().startswith('"""'), field.name

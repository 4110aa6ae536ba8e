"""A model in one file from a stranger: it is refused in words before it takes memory, and nothing of it is run."""

from __future__ import annotations

import json
import os
import struct

import pytest
import safetensors.torch
import torch

import scm_media
from scm_media import weights
from scm_media.pipeline import ModelFolder, model_file
from scm_media.pipeline.model_file import KEY, export_file
from tests.pipeline.tiny import write_tiny_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model in one file."""
    made = tmp_path_factory.mktemp("whole")
    return export_file(ModelFolder.open(write_tiny_model(made / "model")), made / "model.safetensors")


@pytest.fixture
def rewrite(whole, tmp_path):
    """Returns a function that writes the file with another header and more tensors, and returns its path."""

    def written(change=lambda header: None, more=None):
        header, names = weights.read_config(whole)
        change(header)
        made = tmp_path / "made.safetensors"
        tensors = {**weights.read_tensors(whole, names), **(more or {})}
        made.write_bytes(safetensors.torch.save(tensors, {"config": json.dumps(header)}))
        return made

    return written


@pytest.mark.parametrize("kept", [0, 4, 8, 200, -1])
def test_a_file_that_is_cut_short_is_refused(whole, tmp_path, kept):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"cut\.safetensors is no whole safetensors file .* it is cut short"):
        scm_media.load(cut)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.pop("model"), "its header lacks model"),
        (lambda header: header.update({KEY: 2}), "has format 2, this version reads 1; update scm-media"),
        (lambda header: header.update(code="import os"), r"keys of its header that no model has \('code'\)"),
        (lambda header: header.update(parts=[]), "parts and figures in its header must be mappings"),
        (lambda header: header.update(figures={"metrics.json": 3}), "parts and figures in its header must be mappings"),
        (lambda header: header.update(recipe={}), "recipe a text; export"),
        (lambda header: header["parts"]["student"].pop("digest"), "the part 'student' of its header is no config"),
        (lambda header: header["parts"]["student"].update(config=3), "the part 'student' of its header is no config"),
        (lambda header: header["parts"].update({"../x": {"config": {}, "info": {}, "digest": ""}}), r"\('\.\./x'\)"),
        (lambda header: header["parts"].pop("student"), r"tensors that no model has \('student/"),
        (lambda header: header["figures"].update({"metrics-../x.json": {}}), r"figures that no model has"),
        (lambda header: header.update(recipe="a" * 200_000), "its recipe has 200000 bytes"),
        (lambda header: header.update(recipe="\ud800"), "export the model again"),
        (lambda header: header["model"].update(format=1), "has format 1, this version reads 2"),
        (lambda header: header["model"].update(sample_shape=[1 << 40, 1]), "sample_shape must have at most"),
        (lambda header: header["model"]["modality"].update(_target_="os.system"), "os.system is not on the allow-list"),
    ],
)
def test_headers_that_no_export_writes_are_refused_by_name(rewrite, change, message):
    with pytest.raises(ValueError, match=message) as raised:
        scm_media.load(rewrite(change))
    assert "\n" not in str(raised.value)


def test_tensors_that_belong_to_no_part_are_named(rewrite):
    stray = {"student": torch.zeros(1), "model.diffusion_model.x": torch.zeros(1)}
    with pytest.raises(
        ValueError, match=r"tensors that no model has \('model\.diffusion_model\.x', 'student'\)"
    ) as raised:
        scm_media.load(rewrite(more=stray))
    assert "PART/NAME" in str(raised.value)


def test_a_tensor_that_a_part_did_not_have_changes_its_digest(rewrite):
    model = scm_media.load(rewrite(more={"student/more": torch.zeros(1)}), "cpu")
    with pytest.raises(ValueError, match="its student does not have the digest"):
        model(1)


def test_facts_that_were_changed_are_noticed(rewrite):
    made = rewrite(lambda header: header["parts"]["student"]["info"].update(step=7))
    with pytest.raises(ValueError, match="its student does not have the digest"):
        ModelFolder.open(made).read("student")


def test_a_network_that_its_tensors_do_not_describe_costs_nothing(whole, rewrite):
    student = ModelFolder.open(whole).read("student")
    config = {**student.config, "width": 1 << 20}
    digest = model_file._digest(weights.Component(student.state, config, student.info))  # as one who knows it would
    made = rewrite(lambda header: header["parts"]["student"].update(config=config, digest=digest))
    with pytest.raises(ValueError, match=r"its configuration (describes|asks for)"):
        scm_media.load(made, "cpu")(1)


def test_an_alias_bomb_in_the_recipe_is_refused_when_it_is_read(rewrite):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]" for last, name in zip("abcdefg", "bcdefgh", strict=True)
    ]
    file = rewrite(lambda header: header.update(recipe="\n".join(lines)))
    with pytest.raises(ValueError, match=r"the recipe in .*made\.safetensors stands for \d+ values"):
        ModelFolder.open(file).recipe()
    with pytest.raises(ValueError, match="holds no mapping of keys"):
        ModelFolder.open(rewrite(lambda header: header.update(recipe="[1]"))).recipe()


def test_headers_beyond_the_limit_and_pipes_are_refused_at_once(tmp_path):
    large = json.dumps({"__metadata__": {"config": "[" * (weights.MAX_HEADER + 1)}}).encode()
    file = tmp_path / "large.safetensors"
    file.write_bytes(struct.pack("<Q", len(large)) + large + b"0" * 100)
    with pytest.raises(ValueError, match="has a header of"):
        scm_media.load(file)
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(ValueError, match=r"there is no model .*pipe\.safetensors"):
        scm_media.load(tmp_path / "pipe.safetensors")

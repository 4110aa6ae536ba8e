"""Whatever stands in a description, a header or a recipe: it is used, or refused by one ValueError in one line."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import safetensors.torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scm_media import load, recipe, weights
from scm_media.networks import restore
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.card import format_card
from scm_media.pipeline.hub import find_folder
from scm_media.pipeline.model_file import export_file
from tests.pipeline.tiny import write_tiny_model

FOLDER = find_folder("image/fashion")
DESCRIPTION = json.loads((FOLDER / "model.json").read_text())
STUDENT = weights.read(FOLDER / "student.safetensors")
TARGETS = (
    *("scm_media.trigflow.TrigFlow", "scm_media.weights.write_whole", "os.system", "torch.optim.Adam", "x", ""),
    *("modalities.image.modality.ImageModality", "modalities.audio.writing.write_sound", "scm_media.nn.unet.UNet"),
    *("lightning_fabric.loggers.CSVLogger", "scm_media.data.shards.ShardsDataset", "scm_media.latents.cache._encode"),
)
PLACES = st.sampled_from(
    ["/etc/passwd", "../../x", "http://127.0.0.1:1/x", "file:///etc", "~", "\x1b[2J", "${oc.env:HOME}"]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    PLACES,
)
PARTS = st.builds(lambda target, key, value: {"_target_": target, key: value}, st.sampled_from(TARGETS),
                  st.sampled_from(["path", "root_dir", "size", "width"]), SCALARS)  # fmt: skip
VALUES = st.recursive(
    st.one_of(SCALARS, PARTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)
SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def paths_of(tree, path=()):
    """Yields the path of every value of a tree."""
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        yield (*path, key)
        if isinstance(tree[key], dict | list):
            yield from paths_of(tree[key], (*path, key))


def changed(tree, path, value):
    """Returns a copy of a tree with another value at a path."""
    made = json.loads(json.dumps(tree))
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return made


def held(act) -> None:
    """Holds an act to five seconds, and to nothing but a ValueError in one line."""
    began = time.monotonic()
    said = ""
    try:
        act()
    except ValueError as error:
        said = str(error)
    assert "\n" not in said and len(said) < 3000
    assert time.monotonic() - began < 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the weights of the bundled pictures."""
    made = tmp_path_factory.mktemp("model")
    for file in FOLDER.glob("*.safetensors"):
        shutil.copy(file, made)
    return made


@SETTINGS
@given(path=st.sampled_from(list(paths_of(DESCRIPTION))), value=VALUES)
def test_any_value_in_a_description(folder, path, value):
    (folder / "model.json").write_text(json.dumps(changed(DESCRIPTION, path, value)))
    held(lambda: load(folder, device="cpu")(1, seed=0))


@SETTINGS
@given(path=st.sampled_from(list(paths_of(STUDENT.config))), value=VALUES)
def test_any_value_in_the_configuration_of_a_network(path, value):
    component = weights.Component(STUDENT.state, changed(STUDENT.config, path, value), STUDENT.info)
    held(lambda: restore(component, "student", "student.safetensors"))


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """A model in one file, with everything that a header may hold."""
    made = tmp_path_factory.mktemp("file")
    folder = write_tiny_model(made / "model")
    (folder / "recipe.yaml").write_text("recipe: mine/tiny")
    (folder / "metrics-other.json").write_text('{"rows": []}')
    return export_file(ModelFolder.open(folder), made / "model.safetensors")


def use(file: Path) -> None:
    """Opens a model file, samples it, and reads its texts."""
    found = ModelFolder.open(file)
    load(file, device="cpu")(1, seed=0)
    found.recipe()
    format_card(found)


@SETTINGS
@given(data=st.data(), value=VALUES)
def test_any_value_in_the_header_of_a_model_file(file, data, value):
    header, names = weights.read_config(file)
    path = data.draw(st.sampled_from(list(paths_of(header))))
    made = file.with_name("changed.safetensors")
    tensors = weights.read_tensors(file, names)
    made.write_bytes(safetensors.torch.save(tensors, {"config": json.dumps(changed(header, path, value))}))
    held(lambda: use(made))


@SETTINGS
@given(
    section=st.sampled_from(
        ["", "data", "modality", "backbone", "student", "student.loss", "sampler", "logger", "hydra"]
    ),
    key=st.one_of(
        st.sampled_from(["run_dir", "size", "width", "_target_", "steps", "root_dir", "searchpath"]),
        st.text(max_size=5),
    ),
    value=VALUES,
)
@pytest.mark.slow
def test_any_value_in_a_recipe(tmp_path_factory, section, key, value):
    file = tmp_path_factory.mktemp("recipe") / "mine.yaml"
    tree: dict = {key: value}
    for part in reversed(section.split(".") if section else []):
        tree = {part: tree}
    file.write_text(json.dumps({"defaults": ["image/tiny", "_self_"], **tree}))
    held(lambda: recipe.compose(str(file)))


@SETTINGS
@given(content=st.binary(max_size=300))
def test_any_bytes_as_any_file_of_a_model(folder, content):
    copy = folder / "student.safetensors"
    (folder / "model.json").write_bytes(content)
    held(lambda: load(folder, device="cpu"))
    (folder / "model.json").write_text(json.dumps(DESCRIPTION))
    copy.write_bytes(content)
    held(lambda: load(folder, device="cpu")(1, seed=0))
    shutil.copy(FOLDER / "student.safetensors", copy)

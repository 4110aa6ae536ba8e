"""A stranger's model.json and weight files: each is refused in one line, quickly, and nothing is built or written."""

from __future__ import annotations

import json
import os
import resource
import time

import pytest
import torch

from scm_media import load, weights
from scm_media.networks import restore
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.hub import find_folder

SECONDS, BYTES = 5, 1 << 30


@pytest.fixture
def model(tmp_path):
    """Returns a function that makes a model folder, the bundled pictures' with keys of its description changed."""

    def make(**changes):
        description = json.loads((find_folder("image/fashion") / "model.json").read_text())
        for key, value in changes.items():
            section, _, name = key.rpartition("__")
            (description[section] if section else description)[name] = value
        (tmp_path / "model.json").write_text(json.dumps(description))
        return tmp_path

    return make


@pytest.fixture
def watched():
    """Holds a test to five seconds and a gigabyte."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - began < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < BYTES


def refused(folder, match):
    with pytest.raises(ValueError, match=match) as error:
        load(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_what_is_unchanged_loads(model):
    assert load(model()).name == "image/fashion"


@pytest.mark.parametrize("key", ["flow", "modality"])
@pytest.mark.parametrize(
    "target",
    [
        "lightning_fabric.loggers.CSVLogger",
        "lightning_fabric.loggers.TensorBoardLogger",
        "modalities.audio.writing.write_sound",
        "modalities.audio.containers.ContainerRecording",
        "modalities.video.containers.ContainerFootage",
        "modalities.audio.writing.read_metadata",
        "scm_media.latents.cache.write_shard",
        "scm_media.weights.write_whole",
        "scm_media.data.shards.ShardsDataset",
        "torch.optim.Adam",
        "builtins.exec",
    ],
)
def test_a_target_that_is_no_part_of_the_role_is_refused(model, key, target, tmp_path):
    victim = tmp_path / "victim.wav"
    victim.write_bytes(b"precious")
    refused(model(**{key: {"_target_": target, "path": str(victim), "root_dir": "reference://::data:,{}"}}),
            "expected|not registered|allow-list")  # fmt: skip
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("name", 3, "name must be text, got 3"),
        ("name", "", "a name of a model, label or class has 1 to 200 characters"),
        ("name", "n" * 10_000, "a name of a model, label or class has 1 to 200 characters"),
        ("modality", "image", "modality must be a mapping"),
        ("modality", None, "modality must be a mapping"),
        ("flow", [], "flow must be a mapping"),
        ("labels", ["class"], "labels must be a mapping with each value a list with each entry text"),
        ("labels", {"class": "cat"}, "labels must be a mapping"),
        ("labels", {"class": [1, 2]}, "labels must be a mapping"),
        ("labels", {"class": ["\U0001f600" * 300]}, "a name of a model, label or class has 1 to 200 characters"),
        ("label_counts", {"class": [1]}, "must count the examples of 10 classes"),
        ("label_counts", {"class": [0] * 10}, "must count the examples of 10 classes"),
        ("label_combinations", ["99 1"], "label_combinations must give a class of each label"),
        ("label_quantiles", {"class": [0.0, 1.0]}, "is no label that is a number"),
        ("sample_shape", [1, 32], "its modality makes samples of shape .1, 32, 32., but sample_shape is .1, 32."),
        ("sample_shape", [1, 1 << 20, 1 << 20], "at most 268435456 values"),
        ("latent_shape", [1, 0, 4], "each at least 1"),
        ("latent_shape", [1, -32, 32], "each at least 1"),
        ("latent_shape", [1.5, 32, 32], "latent_shape must be a list with each entry a whole number"),
        ("latent_shape", 32, "latent_shape must be a list"),
        ("latent_shape", [1] * 20, "1 to 5 sizes"),
        ("sampler", [], "sampler must be a mapping"),
        ("sampler__steps", 10**9, "sampler.steps must be at most 10000"),
        ("sampler__steps", 0, "sampler.steps must be at least 1"),
        ("sampler__steps", "2", "sampler.steps must be a whole number, got '2'"),
        ("sampler__steps", True, "sampler.steps must be a whole number, got true"),
        ("sampler__teacher_steps", 10**9, "sampler.teacher_steps must be at most 10000"),
        ("sampler__teacher", "euler", "sampler.teacher must be one of heun, dpm_solver"),
        ("sampler__second_time", 1e308, "sampler.second_time must be below 1.571"),
        ("sampler__sigma_max", -1, "sampler.sigma_max must be above 0"),
        ("sampler__times", {"two": [1.0]}, "sampler.times must be steps to as many times in radians"),
        ("sampler__times", {"2": "1.0"}, "sampler.times must be steps to as many times"),
        ("sampler__guidance", float("inf"), "sampler.guidance must be a finite number"),
        ("sampler__guidance_interval", [0.1], r"guidance_interval must be .low, high. in radians"),
        ("guidance_max", 10**400, "guidance_max must lie within"),
        ("format", 3, "format 3, this version reads 2"),
        ("format", 1, "format 1, this version reads 2: scm-media convert"),
        ("format", "1", "format must be a whole number"),
        ("modality__size", 10**9, "modality.size must be at most 65536"),
        ("flow__sigma_data", float("nan"), "sigma_data must be a finite number"),
        ("flow__sigma_data", "0.5", "sigma_data must be a number"),
    ],
)
def test_keys_of_a_wrong_type_or_out_of_bounds_are_named(model, watched, key, value, match):
    refused(model(**{key: value}), match)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "3", "null", '"model"', "{", "[" * 100_000, '{"name":' * 50_000, '{"a": ' + "9" * 10_000 + "}",
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)  # fmt: skip
def test_a_description_that_is_no_object_of_json_is_refused(tmp_path, watched, text):
    (tmp_path / "model.json").write_text(text, encoding="utf-8")
    refused(tmp_path, "model.json")


def test_pipes_devices_and_huge_files_are_refused(tmp_path, watched):
    file = tmp_path / "model.json"
    os.mkfifo(file)
    refused(tmp_path, "no regular file")
    file.unlink()
    file.symlink_to("/dev/zero")
    refused(tmp_path, "link out of the model's folder")
    file.unlink()
    with file.open("wb") as sparse:
        sparse.truncate(8 << 30)
    refused(tmp_path, "expected at most")


@pytest.mark.parametrize(
    "name", ["metrics.json", "metrics-other.json", "memorization.json", "recipe.yaml", "student.safetensors"]
)
def test_a_link_out_of_the_folder_is_refused(model, tmp_path_factory, name):
    secret = tmp_path_factory.mktemp("elsewhere") / name
    secret.write_text('{"password": "secret"}')
    folder = model()
    (folder / name).symlink_to(secret)
    opened = ModelFolder.open(folder)
    with pytest.raises(ValueError, match="link out of the model's folder"):
        [opened.metrics(), opened.second_opinions(), opened.memorization(), opened.recipe(), opened.read("student")]


def test_the_links_of_a_hub_snapshot_are_taken(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0a1b"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(find_folder("image/fashion").iterdir())):
        (blobs / str(number)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert load(snapshot)(1, seed=0).samples.shape == (1, 1, 32, 32)
    (snapshot / "memorization.json").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="link out of the model's folder"):
        ModelFolder.open(snapshot).memorization()


def test_an_alias_bomb_in_a_recipe_is_refused(model, watched):
    folder = model()
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    (folder / "recipe.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="by its aliases"):
        ModelFolder.open(folder).recipe()
    (folder / "recipe.yaml").write_text("a: &a [*a]\n")
    assert ModelFolder.open(folder).recipe()["a"]
    (folder / "recipe.yaml").write_text("!!python/object/apply:os.system ['true']\n")
    with pytest.raises(ValueError, match="not readable as YAML"):
        ModelFolder.open(folder).recipe()


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 1 << 40, "num_heads": 1},
        {"width": 200_000, "num_heads": 1},
        {"depth": 10**9},
        {"mlp_ratio": 10**9},
        {"in_channels": 10**9},
        {"labels": {"class": 10**12}},
        {"labels": {f"label{n}": 3 for n in range(10_000)}},
        {"patch": 10**6},
        {"rank": 10**6},
        {"num_heads": 0},
        {"width": -4},
        {"depth": -1},
        {"dropout": "high"},
        {"num_cond_channels": 10**9},
        {"text": {"tokens": 10**12}},
        {"text": {"pooled": 10**9}},
        {"text": {"words": 3}},
    ],
)
def test_a_network_that_its_tensors_do_not_describe_costs_nothing(watched, changes):
    student = find_folder("image/fashion") / "student.safetensors"
    component = weights.read(student)
    hostile = weights.Component(component.state, {**component.config, **changes}, component.info)
    with pytest.raises(ValueError, match=r"student\.safetensors|must|takes"):
        restore(hostile, "student", student)


def test_a_network_in_another_ones_place_is_refused():
    folder = find_folder("image/fashion")
    component = weights.read(folder / "student.safetensors")
    with pytest.raises(ValueError, match="is a backbone, expected an autoencoder"):
        restore(component, "autoencoder", folder / "student.safetensors")


def test_what_was_saved_is_restored_bit_for_bit():
    folder = find_folder("image/fashion")
    component = weights.read(folder / "student.safetensors")
    network = restore(component, "student", folder / "student.safetensors")
    state = network.state_dict()
    assert all(torch.equal(state[name], tensor.to(state[name].dtype)) for name, tensor in component.state.items())

"""A folder as the Hugging Face hub takes it, and back from there: no file is fetched that could be a pickle."""

from __future__ import annotations

import fnmatch
import json
import shutil
import sys
import types
from dataclasses import replace

import pytest
import torch
import yaml
from PIL import Image

import scm_media
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.card import format_card
from tests.pipeline.tiny import DESCRIPTION


def _front_matter(card: str) -> dict:
    _, matter, _ = card.split("---\n", 2)
    return yaml.safe_load(matter)


def test_the_card_has_front_matter_and_samples_of_fixed_noise(tiny_model, tmp_path):
    pipeline = scm_media.load(tiny_model, "cpu")
    one, two = (pipeline.save_pretrained(tmp_path / name) for name in ("one", "two"))
    card = (one / "README.md").read_text()
    assert _front_matter(card) == {
        "library_name": "scm-media",
        "license": "apache-2.0",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["consistency-model", "few-step-generation", "image"],
    }
    assert "![samples of fixed noise](samples.png)" in card
    with Image.open(one / "samples.png") as sheet:
        assert sheet.width > sheet.height > 100
    assert (one / "samples.png").read_bytes() == (two / "samples.png").read_bytes()


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("MIT", {"license": "mit"}),
        ("CC-BY-4.0", {"license": "cc-by-4.0"}),
        ("Apache-2.0, CC-BY-4.0", {"license": "other", "license_name": "Apache-2.0, CC-BY-4.0"}),
        (None, {}),
    ],
)
def test_licences_go_by_the_hubs_names(tmp_path, licence, expected):
    matter = _front_matter(format_card(ModelFolder(tmp_path, replace(DESCRIPTION, licence=licence))))
    assert {key: value for key, value in matter.items() if key.startswith("license")} == expected


def test_weights_nobody_touched_are_exported_as_they_are(tiny_model, tmp_path):
    half = scm_media.load(tiny_model, "cpu").save_pretrained(tmp_path / "half", dtype=torch.float16)
    again = scm_media.load(half, "cpu").save_pretrained(tmp_path / "again")
    assert (again / "student.safetensors").stat().st_size == (half / "student.safetensors").stat().st_size


def test_figures_in_other_features_and_of_copies_go_along(tiny_model, tmp_path):
    source = shutil.copytree(tiny_model, tmp_path / "source")
    row = {"sampler": "consistency", "steps": 2, "evaluations": 2, "frechet": 3.25, "seconds_per_sample": None}
    row |= {"precision": None, "recall": None, "accuracy": None}
    features = {"name": "efficientnet-lite0", "dimension": 128, "projected_from": 1280, "num_samples": 500}
    (source / "metrics-efficientnet-lite0.json").write_text(
        json.dumps({"features": features, "num_samples": 500, "rows": [row]})
    )
    nearest = {"sampler": "consistency", "steps": 2, "num_samples": 50, "num_train": 100, "num_held_out": 10}
    nearest |= {"median": 4.5, "median_held_out": 4.0, "fraction_below": 0.02, "nearer_than_held_out": 0.4}
    (source / "memorization.json").write_text(json.dumps({**nearest, "features": features}))
    target = scm_media.load(source, "cpu").save_pretrained(tmp_path / "out")
    card = (target / "README.md").read_text()
    assert (
        "128-dimensional features: efficientnet-lite0 (projected from 1280 dimensions by a fixed random matrix)" in card
    )
    assert "| consistency | 2 | 2 | 3.25 |" in card
    assert "nearer than all but 1 % of held-out samples: 2.00 %" in card
    assert (target / "metrics-efficientnet-lite0.json").is_file()
    assert (target / "memorization.json").is_file()


@pytest.fixture
def hub(tiny_model, tmp_path, monkeypatch):
    """huggingface_hub with one repository, which holds a pickle beside the model; what was asked of it."""
    repository = scm_media.load(tiny_model, "cpu").save_pretrained(tmp_path / "org" / "name")
    for name in ("pytorch_model.bin", "evil.pkl", "weights.pt", "setup.py"):
        (repository / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    asked = []

    def snapshot_download(name, revision=None, allow_patterns=()):
        asked.append((name, revision))
        if name != "org/name":
            raise OSError(f"404: {name}")
        target = tmp_path / "cache"
        for file in repository.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                target.mkdir(exist_ok=True)
                shutil.copy(file, target / file.name)
        return str(target)

    fake = types.ModuleType("huggingface_hub")
    fake.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return asked


def test_a_model_of_the_hub_draws_the_same_and_brings_no_pickle(hub, tiny_model, tmp_path):
    there = scm_media.load("hf://org/name@v1", "cpu")
    assert hub == [("org/name", "v1")]
    assert torch.equal(there(3).samples, scm_media.load(tiny_model, "cpu")(3).samples)
    assert {file.suffix for file in (tmp_path / "cache").iterdir()} == {".json", ".md", ".safetensors"}
    with pytest.raises(ValueError, match=r"hf://org/none could not be downloaded: 404: org/none"):
        scm_media.load("hf://org/none", "cpu")

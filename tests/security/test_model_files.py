"""Files beside a model's description: weights, statistics, rows, figures and links, as a stranger may make them."""

from __future__ import annotations

import json
import struct
import time

import pytest
import torch
import yaml

from scm_media import load, weights
from scm_media.cli import main
from scm_media.evaluation.reference import Reference
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.card import format_card
from tests.pipeline.tiny import write_tiny_model


def described(folder, **changes):
    file = folder / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def raw(file, header, content=b""):
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content)
    return file


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"', "NaN", "[" * 100_000, "9" * 5000])
@pytest.mark.parametrize("key", ["config", "info"])
def test_a_header_that_holds_no_mapping_is_refused(tmp_path, key, text):
    header = {"__metadata__": {"config": "{}", "info": "{}", key: text}}
    with pytest.raises(ValueError, match="has no configuration in its header"):
        weights.read(raw(tmp_path / "a.safetensors", header))


def test_a_header_of_hundreds_of_thousands_of_tensors_is_refused(tmp_path):
    nothing = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    header = {"__metadata__": {"config": "{}", "sha256": "0"}, **{f"a{n}": nothing for n in range(100_000)}}
    file = raw(tmp_path / "a.safetensors", header)
    began = time.monotonic()
    with pytest.raises(ValueError, match="has a header of"):
        weights.read(file)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("line", ["0 0", "0 " + "9" * 900])
def test_a_combination_that_nothing_can_be_drawn_of_is_refused(tmp_path, line):
    folder = described(write_tiny_model(tmp_path / "model"), label_combinations=[line])
    with pytest.raises(ValueError, match="label_combinations must give"):
        load(folder)


@pytest.mark.parametrize("shape", [[1, 1 << 14, 1 << 14], [1, 3, 5], [1, 16, 16, 1]])
def test_a_latent_shape_that_the_autoencoder_does_not_make_is_refused_before_noise_is_drawn(tmp_path, shape):
    folder = described(write_tiny_model(tmp_path / "model"), latent_shape=shape)
    with pytest.raises(ValueError, match=r"makes latents of shape \(1, 16, 16\), but latent_shape is"):
        load(folder, device="cpu")(1, seed=0)


@pytest.mark.parametrize(
    "state",
    [
        {"actions": torch.zeros(0, 0, 0)},
        {"actions": torch.zeros(3, 1, 0)},
        {"actions": torch.zeros(1)},
        {"actions": torch.full((2, 1, 4), float("nan"))},
        {"actions": torch.zeros(2, 3, 4)},
    ],
)
def test_recorded_rows_of_another_shape_are_refused(tmp_path, state):
    folder = described(write_tiny_model(tmp_path / "model"), actions=["ahead"])
    weights.save(folder / "action_bank.safetensors", state, {})
    with pytest.raises(ValueError, match=r"action_bank\.safetensors has|action_bank\.safetensors holds"):
        load(folder, device="cpu")(1, seed=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": torch.zeros(0)},
        {"mean": torch.zeros(4, 1)},
        {"covariance": torch.zeros(4, 3)},
        {"covariance": torch.full((4, 4), float("inf"))},
        {"neighbours": torch.zeros(4)},
        {"held_out_sizes": torch.zeros(3, dtype=torch.int64)},
        {"held_out_sizes": torch.zeros((), dtype=torch.int64)},
        {"held_out_sizes": torch.zeros(1, 1)},
    ],
)
def test_statistics_of_another_shape_are_refused(tmp_path, changes):
    state = {
        "mean": torch.zeros(4),
        "covariance": torch.eye(4),
        "neighbours": torch.zeros(2, 4),
        "held_out_sizes": torch.tensor([500]),
        "held_out_distances": torch.tensor([1.0], dtype=torch.float64),
    }
    info = dict.fromkeys(("num_train", "accuracy", "precision", "recall"), 1)
    weights.save(tmp_path / "reference.safetensors", state, {}, info)
    assert Reference.load(tmp_path / "reference.safetensors").held_out_distances == {500: 1.0}
    weights.save(tmp_path / "reference.safetensors", {**state, **changes}, {}, info)
    with pytest.raises(ValueError, match="holds no reference statistics"):
        Reference.load(tmp_path / "reference.safetensors")


def test_figures_that_are_texts_act_nowhere_in_a_card(tmp_path):
    evil = "<img src=x>\n# evil\x1b[2J"
    features = {"dimension": evil, "name": "x", "projected_from": evil}
    row = dict.fromkeys(("guidance", "precision", "recall", "accuracy", "seconds_per_sample"))
    row |= {"sampler": "x", "steps": evil, "evaluations": evil, "frechet": 1.0}
    near = {"features": features, "num_samples": evil, "sampler": "x", "steps": evil, "num_train": evil, "median": 1.0}
    near |= {"num_held_out": evil, "median_held_out": 1.0, "fraction_below": 0.0, "nearer_than_held_out": 0.5}
    folder = write_tiny_model(tmp_path / "model")
    described(folder, ema={"student": {"std": 0.1, "num_samples": evil}})
    (folder / "metrics.json").write_text(json.dumps({"rows": [row], "num_samples": evil, "features": features}))
    (folder / "memorization.json").write_text(json.dumps(near))
    card = format_card(ModelFolder.open(folder))
    assert "evil" in card
    assert not any(acting in card for acting in ("<img", "\n# evil", "\x1b"))


def test_nothing_is_written_through_a_link_beside_what_is_written(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(weights.os, "getpid", lambda: 7)
    (tmp_path / ".metrics.json.7.part").symlink_to(victim)
    weights.write_whole(tmp_path / "metrics.json", b"{}")
    assert victim.read_text() == "precious"
    assert (tmp_path / "metrics.json").read_bytes() == b"{}" and not (tmp_path / "metrics.json").is_symlink()


@pytest.mark.parametrize("link", ["evaluation", "evaluation/1-abc"])
def test_an_evaluation_keeps_nothing_through_a_link_out_of_the_model(tmp_path, capsys, link):
    folder, elsewhere = write_tiny_model(tmp_path / "model"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / link).parent.mkdir(exist_ok=True)
    (folder / link).symlink_to(elsewhere)
    assert main(["evaluate", str(folder), "-n", "4", "--device", "cpu"]) == 1
    assert "is a link out of the model's folder" in capsys.readouterr().err
    assert list(elsewhere.iterdir()) == []


def test_a_sheet_of_neighbours_is_not_written_through_a_link(tmp_path):
    victim = tmp_path / "victim.png"
    victim.write_text("precious")
    folder = write_tiny_model(tmp_path / "model")
    data = {"_target_": "scm_media.data.shapes.ShapesDataset"}
    modality = {"_target_": "modalities.image.modality.ImageModality", "size": 16, "channels": 1}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"data": {**data, "num": 40}, "modality": modality}))
    (folder / "memorization.png").symlink_to(victim)
    assert main(["evaluate", str(folder), "--memorization", "1", "-n", "2", "--device", "cpu"]) == 0
    assert victim.read_text() == "precious"

"""Texts, actions, a given part and a guidance scale as inputs of students that are exported as graphs."""

from __future__ import annotations

import json
import re

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import scm_media
from scm_media.cli import main
from scm_media.conditioning import Conditioning
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.graph_export import export_graphs
from tests.pipeline.graph_models import write_student, write_text_model
from tests.pipeline.graph_programs import WITHOUT_TORCH, export, run_alone, sample_by_the_example
from tests.pipeline.moves import write_moves_model
from tests.pipeline.tiny import BACKBONE, CLASSES, write_tiny_model


@pytest.mark.slow
def test_pictures_for_a_text_are_made_without_pytorch(tmp_path):
    texts = write_text_model(tmp_path / "model")
    (tmp_path / "chosen.txt").write_text(f"{texts[4]}\n{texts[2]}\n")
    words = [
        str(tmp_path / "model"),
        str(tmp_path / "onnx"),
        "--format",
        "onnx",
        "--texts",
        str(tmp_path / "chosen.txt"),
    ]
    assert main(["export", *words]) == 0
    manifest = json.loads((tmp_path / "onnx" / "manifest.json").read_text())
    shapes = {each["name"]: (each["dtype"], each["shape"][1:]) for each in manifest["network"]["inputs"][2:]}
    assert shapes == {"tokens": ("float32", [5, 4]), "token_mask": ("bool", [5]), "pooled": ("float32", [3])}
    assert manifest["texts"]["number"] == 2
    assert manifest["texts"]["encoder"] == {"name": "tiny-bert", "digest": "0", "max_tokens": 5}
    model = scm_media.load(tmp_path / "model", "cpu")
    expected = {text: model(2, prompt=text, seed=3).samples for text in (texts[2], texts[4])}
    assert (expected[texts[2]] - expected[texts[4]]).abs().max() > 0.1, "texts are of no consequence"
    for text, wanted in expected.items():
        files = sample_by_the_example(
            tmp_path / "onnx", "-n", 2, "--seed", 3, "--prompt", text, "--out", tmp_path / text
        )
        found = np.stack([np.asarray(Image.open(file)) for file in files])
        assert np.abs(found - (wanted[:, 0].numpy() + 1) * 127.5).max() < 0.51
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "onnx" / "README.md").read_text(), re.DOTALL)
    program = f"{WITHOUT_TORCH}{code}\nprint(samples.shape, inputs['token_mask'].sum())"
    first = json.loads((tmp_path / "onnx" / "texts.json").read_text())[0]
    assert run_alone(program, cwd=tmp_path / "onnx") == f"(1, 1, 16, 16) {1 + int(first.split()[1]) % 3}\n"


@pytest.mark.slow
def test_a_program_of_torch_takes_texts_or_none(tmp_path):
    texts = write_text_model(tmp_path / "model")
    manifest = export(tmp_path / "model", tmp_path / "torch", "torch")
    network = torch.export.load(tmp_path / "torch" / "network.pt2").module()
    model = scm_media.load(tmp_path / "model", "cpu")
    stored = np.load(tmp_path / "torch" / "texts.npz")
    noise, time = torch.randn(2, *manifest["latent_shape"]), torch.full((2,), 1.2)
    inputs = {"tokens": torch.zeros(2, 5, 4), "token_mask": torch.zeros(2, 5, dtype=torch.bool)}
    inputs["pooled"] = torch.zeros(2, 3)
    for name in inputs:  # the second sample has no text
        inputs[name][0, : len(stored[name][3])] = torch.from_numpy(stored[name][3])
    with torch.no_grad():
        found = network(noise, time, inputs)
        cond = model.conditioning([{"prompt": texts[3]}, {"prompt": ""}])
        expected = model.flow.denoise(noise, model.network("student")(noise / 0.5, time, cond), time)
    assert torch.allclose(found, expected, atol=1e-5)
    with pytest.raises(ValueError, match="1 of 1 texts to go along are not among the 6"):
        export_graphs(ModelFolder.open(tmp_path / "model"), tmp_path / "other", "torch", ["unheard of"])
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_actions_and_the_given_part_are_inputs(tmp_path, allowed):
    model = write_moves_model(tmp_path / "model")
    manifest = export(model, tmp_path / "torch", "torch")
    assert manifest["network"]["batch"] == "any"
    kinds = {entry["name"]: entry["kind"] for entry in manifest["network"]["inputs"]}
    assert list(kinds) == ["x_t", "t", "way", "actions", "given", "mask"]
    pipeline = scm_media.load(model, "cpu")
    shape = pipeline.latent_shape()
    x_t, t = 0.5 * torch.randn(2, *shape), torch.tensor([1.5, 0.4])
    label, actions = torch.tensor([1, -1]), torch.randn(2, 2, shape[1])
    given, mask = torch.randn(2, *shape), torch.zeros(2, 1, *shape[1:])
    mask[:, :, :2] = 1
    cond = pipeline.layout.assemble(Conditioning(labels={"way": label}), shape[1:], actions, given, mask)
    F = pipeline.network("student")(x_t / 0.5, t, cond)
    inputs = {"way": label, "actions": actions, "given": given, "mask": mask}
    found = torch.export.load(tmp_path / "torch" / "network.pt2").module()(x_t, t, inputs)
    torch.testing.assert_close(found, pipeline.flow.denoise(x_t, F, t))


@pytest.mark.slow
def test_a_guidance_scale_is_an_input_and_odd_names_of_labels_are_kept(tmp_path):
    model = write_tiny_model(tmp_path / "model", labels={"t": CLASSES, "a b": []}, label_counts={}, guidance_max=3.0)
    config = {**BACKBONE, "labels": {"t": 3, "a b": 0}, "label_units": {"a b": 2.0}, "guidance": True}
    write_student(model, config)
    manifest = export(model, tmp_path / "onnx")
    entries = manifest["network"]["inputs"][2:]
    assert [entry["name"] for entry in entries] == ["t_label", "a b", "guidance"]
    assert manifest["made_by"]["onnxruntime"] == onnxruntime.__version__
    assert (entries[1]["null"], entries[1]["range"], entries[2]["range"]) == ("nan", None, [1, 3.0])
    pipeline = scm_media.load(model, "cpu")
    x_t, t = torch.randn(2, 1, 16, 16), torch.tensor([1.0, 0.3])
    first, second, guidance = torch.tensor([2, -1]), torch.tensor([0.7, torch.nan]), torch.tensor([1.5, 2.5])
    cond = Conditioning(labels={"t": first, "a b": second}, guidance=guidance)
    expected = pipeline.flow.denoise(x_t, pipeline.network("student")(x_t / 0.5, t, cond), t)
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "network.onnx")
    assert session.get_inputs()[0].shape == session.get_outputs()[0].shape == ["batch", 1, 16, 16]
    feeds = {"x_t": x_t, "t": t, "t_label": first, "a b": second, "guidance": guidance}
    (found,) = session.run(["x0"], {name: value.numpy() for name, value in feeds.items()})
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-5)

"""Students as ONNX files and as programs of torch.export: their values, and what is refused."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scm_media
from scm_media.cli import main
from scm_media.conditioning import Conditioning
from scm_media.pipeline import graph_export
from tests.adapters.pipelines import save_pipeline
from tests.pipeline.graph_models import MEL, write_sound_model, write_with_decoder
from tests.pipeline.graph_programs import (
    EXAMPLE,
    WITHOUT_PACKAGE,
    WITHOUT_TORCH,
    export,
    run_alone,
    sample_by_the_example,
)
from tests.pipeline.tiny import CLASSES, write_tiny_model

COMPLEX = {"_target_": "modalities.audio.spectrogram.ComplexSpectrogram", "window": 64, "hop": 16}
VOCODER = {"_target_": "modalities.audio.vocoder.VocodedMel", **{key: MEL[key] for key in list(MEL)[1:5]}}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    own = {"data": "/home/me/pictures", "name": "/home/me/run"}
    write_tiny_model(folder / "model", student_label_dropout=0.0, label_dropout=0.1, **own)
    assert main(["export", str(folder / "model"), str(folder / "onnx"), "--format", "onnx"]) == 0
    return folder


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_numpy_and_onnxruntime_alone_make_the_pipelines_pictures(pictures, tmp_path, steps):
    files = sample_by_the_example(
        pictures / "onnx", "-n", 3, "--steps", steps, "--seed", 5, "--label", "class=Ankle boot", "--out", tmp_path
    )
    expected = scm_media.load(pictures / "model", "cpu")(3, label="Ankle boot", steps=steps, seed=5).samples
    found = np.stack([np.asarray(Image.open(file)) for file in files])
    assert found.std() > 20
    assert np.abs(found - (expected[:, 0].numpy() + 1) * 127.5).max() < 0.51


def test_the_manifest_and_the_card_say_how_to_sample(pictures):
    manifest = json.loads((pictures / "onnx" / "manifest.json").read_text())
    x_t, t, label = manifest["network"]["inputs"]
    assert (x_t["name"], x_t["shape"], t["name"]) == ("x_t", ["batch", 1, 16, 16], "t")
    assert (label["name"], label["classes"], label["null"], label["label_dropout"]) == ("class", CLASSES, -1, 0.0)
    assert manifest["network"]["batch"] == manifest["decoder"]["batch"] == "any"
    assert (manifest["sigma_data"], manifest["sample_shape"], manifest["default_steps"]) == (0.5, [1, 16, 16], 2)
    assert manifest["steps"]["2"] == pytest.approx([1.564546, 1.1]) and len(manifest["steps"]["4"]) == 4
    card = (pictures / "onnx" / "README.md").read_text()
    assert "1 Ankle boot, 2 T-shirt/top; -1 for no label, which it was never trained for |" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    program = f"{WITHOUT_TORCH}{code}\nprint(samples.shape, samples.std() > 0.1)"
    assert run_alone(program, cwd=pictures / "onnx") == "(1, 1, 16, 16) True\n"


@pytest.mark.parametrize("format", ["onnx", pytest.param("torch", marks=pytest.mark.slow)])
def test_files_have_no_paths_of_this_machine(pictures, tmp_path, format):
    folder = pictures / "onnx"
    if format == "torch":
        folder = tmp_path / "torch"
        export(pictures / "model", folder, "torch")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["data"], manifest["name"]) == ("pictures", "run")
    for file in folder.iterdir():
        contents = [file.read_bytes()]
        if file.suffix == ".pt2":
            with zipfile.ZipFile(file) as members:
                contents = [members.read(name) for name in members.namelist()]
        for content in contents:
            for word in ("transformer.py", "/home/me", str(Path(scm_media.__file__).parents[1])):
                assert word.encode() not in content


def test_a_sound_above_full_scale_is_made_quieter(tmp_path):
    write = runpy.run_path(str(EXAMPLE))["write"]
    made = write({"modality": "audio", "sample_rate": 4000}, np.array([[0.5, -1.5, 1.2]]), tmp_path / "loud")
    with wave.open(str(made)) as sound:
        assert np.frombuffer(sound.readframes(3), "<i2").tolist() == [10922, -32767, 26214]


@pytest.mark.slow
def test_a_sound_is_made_with_a_class_and_a_number(tmp_path):
    model = write_sound_model(tmp_path / "model")
    manifest = export(model, tmp_path / "onnx")
    assert manifest["sample_rate"] == 4000
    assert manifest["network"]["inputs"][3]["range"] == [0.25, 1.5]
    label = ["class=whale", "how loud=0.7"]
    files = sample_by_the_example(tmp_path / "onnx", "-n", 2, "--label", *label, "--out", tmp_path)
    expected = scm_media.load(model, "cpu")(2, label={"class": "whale", "how loud": 0.7}, seed=0).samples
    for file, wanted in zip(files, expected, strict=True):
        with wave.open(str(file)) as sound:
            assert (sound.getframerate(), sound.getnframes()) == (4000, 128)
            found = np.frombuffer(sound.readframes(128), "<i2") / 32767
        assert wanted.abs().max() > 0.05
        assert np.abs(found - wanted[0].numpy()).max() < 1e-3


@pytest.mark.parametrize("front", [{**COMPLEX, "phase": "advance", "phase_iterations": 2}, {**VOCODER, "width": 8}])
@pytest.mark.slow
def test_other_front_ends_of_sounds_are_decoded_in_onnx(tmp_path, front):
    manifest = export(write_sound_model(tmp_path / "model", front), tmp_path / "onnx")
    assert manifest["decoder"]["batch"] == "any"
    assert 0 < manifest["decoder"]["difference"] < 1e-3


@pytest.mark.slow
def test_a_network_of_diffusers_is_exported(tmp_path):
    pytest.importorskip("diffusers")
    save_pipeline("image", tmp_path / "pipeline")
    model = tmp_path / "model"
    assert main(["convert", str(tmp_path / "pipeline"), str(model)]) == 0
    shutil.copyfile(model / "teacher.safetensors", model / "student.safetensors")
    manifest = export(model, tmp_path / "onnx")
    assert [entry["name"] for entry in manifest["network"]["inputs"]] == ["x_t", "t"]
    assert (manifest["network"]["batch"], manifest["decoder"]["batch"]) == (32, "any")
    files = sample_by_the_example(tmp_path / "onnx", "-n", 2, "--out", tmp_path)
    expected = scm_media.load(model, "cpu")(2, seed=0).samples
    for file, wanted in zip(files, expected, strict=True):
        found = np.moveaxis(np.asarray(Image.open(file)), -1, 0)
        assert np.abs(found - (wanted.numpy() + 1) * 127.5).max() < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["image/fashion", "audio/notes", "video/scenes"])
def test_the_bundled_models_are_exported_whole(tmp_path, name):
    manifest = export(name, tmp_path / "onnx")
    files = sample_by_the_example(tmp_path / "onnx", "-n", 1, "--out", tmp_path)
    assert files[0].stat().st_size > 300
    assert manifest["network"]["difference"] < 1e-5
    assert manifest["decoder"]["difference"] < 1e-2


@pytest.mark.slow
def test_programs_of_torch_export_run_without_the_package(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    manifest = export(model, tmp_path / "torch", "torch")
    assert manifest["network"]["file"] == "network.pt2" and "opset" not in manifest["network"]
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "torch" / "README.md").read_text(), re.DOTALL)
    fixed = code.replace("np.random.standard_normal(shape)", "np.full(shape, 0.3)")
    run_alone(WITHOUT_PACKAGE + fixed + "\nnp.save('made.npy', samples)", cwd=tmp_path / "torch")
    pipeline = scm_media.load(model, "cpu")
    cond = Conditioning(labels={"class": torch.zeros(1, dtype=torch.int64)})
    noise = torch.full((1, 1, 16, 16), 0.3 * 0.5)
    made = scm_media.sample_consistency(pipeline.network("student"), pipeline.flow, lambda _: noise, steps=2, cond=cond)
    made = pipeline.decode(made)
    found = torch.from_numpy(np.load(tmp_path / "torch" / "made.npy"))
    torch.testing.assert_close(found, made, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_decoder_that_counts_its_batch_takes_one_sample(tmp_path, allowed):
    model = write_with_decoder(tmp_path / "model", "CountingAutoencoder")
    manifest = export(model, tmp_path / "onnx")
    assert (manifest["network"]["batch"], manifest["decoder"]["batch"]) == ("any", 1)
    files = sample_by_the_example(tmp_path / "onnx", "-n", 2, "--label", "class=circle", "--out", tmp_path)
    expected = scm_media.load(model, "cpu")(2, label="circle", seed=0).samples
    for file, wanted in zip(files, expected, strict=True):
        assert np.abs(np.asarray(Image.open(file)) - (wanted[0].numpy() + 1) * 127.5).max() < 0.51


@pytest.mark.parametrize(
    ("decoder", "format", "reason"),
    [
        pytest.param(
            "BesselAutoencoder",
            "onnx",
            "the decoder uses prims.bessel_j0, which has no counterpart in ONNX: export it",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "BranchingAutoencoder",
            "torch",
            "the decoder cannot be captured by torch.export",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_decoder_that_cannot_be_exported_is_left_out_in_words(tmp_path, allowed, capsys, decoder, format, reason):
    model = write_with_decoder(tmp_path / "model", decoder)
    target = tmp_path / "target"
    assert main(["export", str(model), str(target), "--format", format]) == 0
    assert f"the folder has no decoder: {reason}" in capsys.readouterr().err
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["decoder"] is None and manifest["decoder_left_out"].startswith(reason)
    network = manifest["network"]["file"]
    assert sorted(file.name for file in target.iterdir()) == ["README.md", "manifest.json", network]
    assert "**There is no decoder**" in (target / "README.md").read_text()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda found: found + 1e-3, "the student's network differs in onnxruntime from PyTorch by "),
        pytest.param(
            lambda found: found * torch.nan, "from PyTorch by nan of its largest value", marks=pytest.mark.slow
        ),
        pytest.param(
            lambda found: found[..., 1:],
            r"returns the shape \(1, 1, 16, 15\) where PyTorch has \(1, 1, 16, 16\)",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_values_that_differ_are_an_error_that_leaves_nothing(pictures, tmp_path, monkeypatch, damage, message):
    def write(program, path, *_):
        path.write_bytes(b"a file")

    def run(path, feeds, name):
        return damage(captured[-1].module(feeds["x_t"], feeds["t"], {"class": feeds["class"]}))

    def capture(*arguments):
        captured.append(original(*arguments))
        return captured[-1]

    captured, original = [], graph_export.Graph.capture
    monkeypatch.setattr(graph_export.Graph, "capture", capture)
    kind = graph_export.GraphFormat(".onnx", write, run, "onnxruntime")
    monkeypatch.setattr(graph_export, "FORMATS", {"onnx": kind})
    with pytest.raises(ValueError, match=message):
        export(pictures / "model", tmp_path / "new" / "target")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_operator_of_the_network_without_onnx_is_named(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.nn.functional.silu", torch.special.bessel_j0)
    target = tmp_path / "target"
    assert main(["export", str(pictures / "model"), str(target), "--format", "onnx"]) == 1
    said = capsys.readouterr().err
    assert "the student's network uses prims.bessel_j0, which has no counterpart in ONNX: export it by" in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_exists_is_refused_and_left_alone(pictures, tmp_path, capsys):
    (tmp_path / "mine").write_text("mine")
    for target in (tmp_path, tmp_path / "mine"):
        assert main(["export", str(pictures / "model"), str(target), "--format", "torch"]) == 1
        assert "exists: export to a folder that does not" in capsys.readouterr().err
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(pictures, tmp_path, monkeypatch, capsys, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", str(pictures / "model"), str(tmp_path / "x"), "--format", "onnx"]) == 1
    assert re.search(rf"needs the package {package} \(.*\): pip install 'scm-media\[onnx\]'", capsys.readouterr().err)

"""Students as ONNX files and as programs of torch.export: their values, and what is refused."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
import wave
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import scm_media
from scm_media.cli import main
from scm_media.conditioning import Conditioning
from scm_media.pipeline import ModelFolder, graph_export
from scm_media.pipeline.graph_export import export_graphs
from scm_media.prompts import PromptBank
from tests.adapters.pipelines import save_pipeline
from tests.pipeline.graph_models import MEL, write_sound_model, write_student, write_with_decoder
from tests.pipeline.moves import write_moves_model
from tests.pipeline.tiny import BACKBONE, CLASSES, write_tiny_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "sample_onnx.py"
BLOCKED = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is not to be imported here")
sys.meta_path.insert(0, Blocked())
"""
WITHOUT_PACKAGE = BLOCKED.format(blocked=("scm_media", "modalities"))
WITHOUT_TORCH = BLOCKED.format(blocked=("torch", "scm_media", "modalities", "onnx", "onnxscript"))
COMPLEX = {"_target_": "modalities.audio.spectrogram.ComplexSpectrogram", "window": 64, "hop": 16}
VOCODER = {"_target_": "modalities.audio.vocoder.VocodedMel", **{key: MEL[key] for key in list(MEL)[1:5]}}


def run_alone(program: str, *arguments: object, cwd: Path | None = None) -> str:
    """Runs a program in a process of its own and returns what it prints."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sample_by_the_example(folder: Path, *arguments: object) -> list[Path]:
    program = WITHOUT_TORCH + f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    return [Path(line) for line in run_alone(program, folder, *arguments).split("\n") if line]


def export(model: Path, target: Path, format: str = "onnx") -> dict:
    return export_graphs(ModelFolder.open(model), target, format)[1]


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


@pytest.mark.parametrize("format", ["onnx", "torch"])
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


def write_text_model(folder: Path) -> list[str]:
    """Writes a tiny model of texts with random weights and returns its texts."""
    texts = [f"text {number}" for number in range(6)]
    write_tiny_model(
        folder,
        labels={"class": CLASSES, "prompt": texts},
        label_counts={"class": [1] * len(CLASSES), "prompt": [1] * 6},
        label_combinations=[f"{number % len(CLASSES)} {number} 1" for number in range(6)],
        text={"encoder": "/home/me/tiny-bert", "max_tokens": 5, "labels": []},
    )
    write_student(folder, {**BACKBONE, "labels": {}, "text": {"tokens": 4, "pooled": 3}})
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(3)[None] < torch.tensor([1, 2, 3, 1, 2, 3, 1])[:, None]
    embeddings = {"tokens": torch.randn(7, 3, 4, generator=generator), "token_mask": mask}
    embeddings["pooled"] = torch.randn(7, 3, generator=generator)
    embeddings = {name: value if name == "token_mask" else value.half() for name, value in embeddings.items()}
    PromptBank(texts, embeddings, {"name": "tiny-bert", "digest": "0"}).save(folder / "prompts.safetensors")
    return texts


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
        ("BranchingAutoencoder", "torch", "the decoder cannot be captured by torch.export"),
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
        (lambda found: found * torch.nan, "from PyTorch by nan of its largest value"),
        (lambda found: found[..., 1:], r"returns the shape \(1, 1, 16, 15\) where PyTorch has \(1, 1, 16, 16\)"),
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

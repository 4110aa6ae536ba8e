"""The nodes of ComfyUI load, sample, edit and save models of the three modalities, within ComfyUI's own types."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image

import modalities.video
import scm_media
from scm_media.cli import main
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.model_file import export_file
from tests.integrations.comfyui_stub import NODES, Interrupted, execute, import_nodes, install
from tests.integrations.graphs import KINDS, READ, edited, sampled, saving
from tests.pipeline.tiny_media import write_tiny


def expected(files, kind, **arguments):
    return scm_media.load(files[kind], "cpu")(2, seed=3, steps=2, **arguments)


def as_images(samples):
    return ((samples + 1) / 2).clamp(0, 1)


def test_every_node_declares_what_comfyui_reads(comfy):
    nodes = comfy.nodes
    assert nodes.NODE_CLASS_MAPPINGS.keys() == nodes.NODE_DISPLAY_NAME_MAPPINGS.keys()
    assert len(set(nodes.NODE_DISPLAY_NAME_MAPPINGS.values())) == len(nodes.NODE_CLASS_MAPPINGS)
    known = {"IMAGE", "MASK", "AUDIO", "VIDEO", "INT", "FLOAT", "STRING", "SCM_MEDIA_MODEL", "SCM_MEDIA_SAMPLES"}
    for name, kind in nodes.NODE_CLASS_MAPPINGS.items():
        assert name.startswith("ScmMedia")
        assert callable(getattr(kind(), kind.FUNCTION))
        assert kind.CATEGORY == "scm-media" and kind.DESCRIPTION.endswith(".")
        assert set(kind.RETURN_TYPES) <= known
        declared = kind.INPUT_TYPES()
        for section in ("required", "optional"):
            for spelled, (typed, options) in declared.get(section, {}).items():
                assert isinstance(typed, list) or typed in known, spelled
                if typed in ("INT", "FLOAT"):
                    assert options["min"] <= options["default"] <= options["max"]
                if typed == "STRING":
                    assert isinstance(options["default"], str)
        if "seed" in declared["required"]:
            seed = declared["required"]["seed"][1]
            assert seed["control_after_generate"] is True and seed["max"] == 2**63 - 1


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_graph_loads_samples_and_saves_what_the_library_makes(comfy, files, kind):
    graph = sampled(kind, label="high\nlow")
    results = execute(comfy, graph)
    made = expected(files, kind, label=["high", "low"])
    shown = results["sample"][0]
    if kind == "image":
        assert torch.equal(shown, as_images(made.samples).movedim(1, -1))
    elif kind == "audio":
        assert shown["sample_rate"] == 8000
        assert torch.equal(shown["waveform"], made.samples)
    else:
        assert torch.equal(torch.stack(shown), as_images(made.samples).permute(0, 2, 3, 4, 1))
        video = results["sample"][2][1].get_components()
        assert video.frame_rate == 8 and torch.equal(video.images, shown[1])
    saved = results["save"]["ui"]["audio" if kind == "audio" else "images"]
    suffix = {"image": ".png", "audio": ".wav", "video": ".mp4"}[kind]
    assert [each["filename"] for each in saved] == [f"made_{number:05}_{suffix}" for number in (1, 2)]
    assert {(each["subfolder"], each["type"]) for each in saved} == {("mine", "output")}
    assert sorted(path.name for path in (comfy.output / "mine").iterdir()) == [each["filename"] for each in saved]
    record = READ[kind](comfy.output / "mine" / saved[1]["filename"])
    own = {key: record[key] for key in ("model", "recipe", "steps", "sampler", "seed", "index", "label")}
    assert own == {
        **{"model": f"{kind}.safetensors", "recipe": f"{kind}/tiny", "steps": 2, "sampler": "consistency"},
        **{"seed": 3, "index": 1, "label": "low"},
    }
    if kind == "image":
        texts = Image.open(comfy.output / "mine" / saved[1]["filename"]).text
        graph_in_file = {key: json.loads(texts[key]) for key in ("prompt", "workflow")}
    else:
        graph_in_file = record["comfyui"]
    assert graph_in_file == {"prompt": graph, "workflow": {"nodes": ["load", "sample", "save"]}}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_files_are_those_of_the_command_line(comfy, files, kind, tmp_path):
    comfy.args.disable_metadata = True
    saved = execute(comfy, sampled(kind))["save"]["ui"]["audio" if kind == "audio" else "images"]
    command = ["generate", str(files[kind]), "-n", "2", "--seed", "3", "--steps", "2", "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "cli")]) == 0
    modality = scm_media.load(files[kind], "cpu").modality
    for number, theirs in enumerate(sorted((tmp_path / "cli").iterdir())):
        ours = comfy.output / "mine" / saved[number]["filename"]
        assert torch.equal(modality.read(ours), modality.read(theirs))
        assert READ[kind](ours) == {}  # ComfyUI was started with --disable-metadata
        assert READ[kind](theirs)["model"] == files[kind].name


def test_saving_again_keeps_the_earlier_files_and_takes_the_format_that_is_asked_for(comfy):
    graph = sampled("audio", batch_size=1)
    execute(comfy, graph)
    graph["save"] = saving("sample", format="flac")
    shown = execute(comfy, graph)["save"]["ui"]["audio"]
    assert [each["filename"] for each in shown] == ["made_00002_.flac"]
    assert READ["audio"](comfy.output / "mine" / "made_00002_.flac")["seed"] == 3
    graph["save"] = saving("sample", format="png")
    with pytest.raises(ValueError, match=r"audio is written as \.wav, \.flac, \.ogg, \.mp3; got the format png"):
        execute(comfy, graph)


def test_a_clip_keeps_the_rate_that_was_asked_for(comfy):
    graph = sampled("video", fps=12.0, frames=7, batch_size=1)
    results = execute(comfy, graph)
    frames, _, (video,) = results["sample"]
    assert [tuple(each.shape) for each in frames] == [(7, 16, 24, 3)]
    assert video.get_components().frame_rate == 12
    file = comfy.output / "mine" / results["save"]["ui"]["images"][0]["filename"]
    assert results["save"]["ui"]["animated"] == (True,)
    assert READ["video"](file)["fps"] == 12
    assert modalities.video.VideoModality(frame_rate=None, size=16).read(file).shape[1] == 7


def test_the_teacher_and_guidance_are_options(comfy, files):
    graph = sampled("image", network="teacher", guidance=2.0, steps=3, at_once=1)
    shown = execute(comfy, graph)["sample"][0]
    made = scm_media.load(files["image"], "cpu")(2, seed=3, steps=3, teacher=True, guidance=2.0, batch_size=1)
    assert torch.equal(shown, as_images(made.samples).movedim(1, -1))
    assert comfy.progress == [(1, 2), (2, 2)]
    record = READ["image"](comfy.output / "mine" / "made_00001_.png")
    assert (record["sampler"], record["guidance"]) == ("teacher, heun", 2.0)


def test_nothing_is_run_again_until_its_inputs_or_the_models_file_change(comfy):
    graph = sampled("image", batch_size=1)
    execute(comfy, graph)
    execute(comfy, graph)
    assert comfy.executed == ["load", "sample", "save", "save"]
    graph["sample"]["inputs"]["seed"] = 4
    execute(comfy, graph)
    assert comfy.executed[4:] == ["sample", "save"]
    export_file(
        ModelFolder.open(write_tiny("image", comfy.root / "other", data="other")),
        comfy.models / "image.safetensors",
        overwrite=True,
    )
    execute(comfy, graph)
    assert comfy.executed[6:] == ["load", "sample", "save"]


def test_models_are_files_folders_and_the_bundled_ones(monkeypatch, tmp_path, files):
    extra = tmp_path / "extra"
    comfy = install(monkeypatch, tmp_path / "comfy", extra_models=extra)
    write_tiny("image", extra / "sub" / "folder")
    shutil.copy(files["audio"], comfy.models / "sound.safetensors")
    (comfy.models / "notes.txt").write_text("")
    (extra / "up").symlink_to(extra)
    load = comfy.nodes.NODE_CLASS_MAPPINGS["ScmMediaLoadModel"]
    (listed, _) = load.INPUT_TYPES()["required"]["model"]
    assert listed[:2] == ["sub/folder", "sound.safetensors"]
    assert "image/fashion" in listed[2:]
    for name, recipe in (
        ("sub/folder", "image/tiny"),
        ("sound.safetensors", "audio/tiny"),
        ("image/fashion", "image/fashion"),
    ):
        assert load().load(name)[0].pipeline.name == recipe
    with pytest.raises(
        ValueError, match=r"there is no model '\.\./x\.safetensors' in .*; there are: sub/folder, sound"
    ):
        load().load("../x.safetensors")


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (sampled("image", label="tall"), "the model knows no label 'tall'"),
        (sampled("image", label="low\nlow\nlow"), "got 3 labels for 2 samples"),
        (
            {**sampled("audio"), "sample": sampled("image")["sample"]},
            r"audio\.safetensors is a model of audio, and this",
        ),
        (sampled("image", size=17), r"latent sizes \(17, 17\) must be multiples of the patch"),
        (edited("image", images=["pictures", 0], mask=["masks", 0]), "got 3 masks for 2 pictures"),
        (edited("video", images=["pictures", 0], task="continue"), "of 16×16 pixels, the model takes 24×16"),
        (edited("audio", audio=["silence", 0], task="inpaint"), "inpaint needs to know what is made anew"),
        (edited("audio", audio=["silence", 0], task="continue", end=0.1), "a region goes with inpaint"),
        (edited("audio", audio=["empty", 0], task="continue"), r"an AUDIO is a waveform \(B, C, T\) and a sample_rate"),
        (edited("audio", audio=["silence", 0], task="inpaint", start=0.2, end=0.1), "0 ≤ FIRST < LAST"),
    ],
)
def test_errors_are_the_toolkits(comfy, graph, message):
    given = {
        "pictures": [("IMAGE", torch.zeros(2, 16, 16, 3))],
        "masks": [("MASK", torch.ones(3, 16, 16))],
        "silence": [("AUDIO", {"waveform": torch.zeros(1, 1, 2048), "sample_rate": 8000})],
        "empty": [("AUDIO", {"waveform": torch.zeros(1, 1, 0), "sample_rate": 8000})],
    }
    with pytest.raises(ValueError, match=message) as raised:
        execute(comfy, graph, given)
    assert "\n" not in str(raised.value)
    assert list(comfy.output.iterdir()) == []


def test_a_file_without_its_teacher_says_so(comfy, files):
    export_file(ModelFolder.open(files["image"]), comfy.models / "image.safetensors", overwrite=True)
    with pytest.raises(ValueError, match=r"holds no teacher \(it has: autoencoder, student\)"):
        execute(comfy, sampled("image", network="teacher"))


def test_a_user_who_cancels_is_heard(comfy):
    comfy.cancelled = True
    with pytest.raises(Interrupted):
        execute(comfy, sampled("image"))


def test_without_the_type_video_clips_come_as_frames(monkeypatch, tmp_path, files):
    comfy = install(monkeypatch, tmp_path, video=False)
    shutil.copy(files["video"], comfy.models / "video.safetensors")
    frames, _ = execute(comfy, sampled("video"))["sample"]
    assert len(frames) == 2
    assert comfy.nodes.NODE_CLASS_MAPPINGS["ScmMediaEditVideo"].RETURN_TYPES == ("IMAGE", "SCM_MEDIA_SAMPLES")


def test_a_missing_package_is_said_with_the_command_that_installs_it(comfy, monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "scm_media" else found(name))
    copied = shutil.copytree(NODES, tmp_path / "custom_nodes" / "scm-media")
    with pytest.raises(ImportError, match=r"-m pip install 'scm-media\[image,audio,video\]'"):
        import_nodes(monkeypatch, copied)


def test_the_folder_works_wherever_it_lies_and_brings_no_names_of_its_own(comfy, monkeypatch, tmp_path):
    copied = shutil.copytree(NODES, tmp_path / "custom.nodes" / "scm-media")
    before = set(sys.modules)
    nodes = import_nodes(monkeypatch, copied)
    assert nodes.NODE_CLASS_MAPPINGS.keys() == comfy.nodes.NODE_CLASS_MAPPINGS.keys()
    assert all(name.startswith(str(copied).replace(".", "_x_")) for name in set(sys.modules) - before)


def test_the_registry_gets_the_version_and_requirements_of_the_package():
    root = tomllib.loads((NODES.parents[1] / "pyproject.toml").read_text())["project"]
    own = tomllib.loads((NODES / "pyproject.toml").read_text())
    assert own["project"]["version"] == root["version"]
    assert own["project"]["dependencies"] == Path(NODES / "requirements.txt").read_text().split("\n")[:-1]
    assert own["project"]["dependencies"] == [f"scm-media[image,audio,video]>={root['version']}"]
    assert {"PublisherId", "DisplayName"} <= own["tool"]["comfy"].keys()
    assert "Repository" in own["project"]["urls"]

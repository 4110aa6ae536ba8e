"""Settings come back from files that scm-media made, and from no others."""

from __future__ import annotations

import json
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image, PngImagePlugin

from scm_media.app.asking import Asked, format_walk, parse_walk, plain
from scm_media.app.context import App
from scm_media.app.controls import Controls
from scm_media.app.generate_tab import check_exact
from scm_media.app.making import make
from scm_media.app.models import Models
from scm_media.app.restore import restore_settings
from scm_media.app.settings import BUNDLED, ServerSettings
from scm_media.cli import main


@pytest.fixture(scope="module")
def models() -> Models:
    return Models(BUNDLED, "cpu", "float32")


@pytest.mark.parametrize(
    ("model", "flags", "expected"),
    [
        (
            "image/fashion",
            ["--label", "Bag", "--steps", "1", "--seed", "12"],
            {"labels": {"class": "Bag"}, "steps": "1", "seed": 12, "prompt": None},
        ),
        (
            "image/emoji-text",
            ["--prompt", "blue heart", "--steps", "4"],
            {"prompt": "blue heart", "steps": "4", "seed": 0, "labels": {"category": "Smileys & Emotion"}},
        ),
        (
            "audio/notes",
            ["--label", "family=guitar pitch=60", "--duration", "0.5", "--seed", "3", "--steps", "1"],
            {"steps": "1", "seed": 3, "sizes": "duration=0.5"},
        ),
        (
            "video/scenes",
            ["--label", "deadly_corridor", "--seed", "4", "--steps", "1"],
            {"labels": {"scenario": "deadly_corridor"}, "steps": "1", "seed": 4},
        ),
    ],
)
def test_a_file_of_the_command_line_is_made_again(models: Models, tmp_path: Path, model, flags, expected) -> None:
    assert main(["generate", model, "--out", str(tmp_path / "made"), "--device", "cpu", *flags]) == 0
    (file,) = (tmp_path / "made").iterdir()
    asked, remark = restore_settings(models, file)
    assert asked.model == model and f"model {model}, seed {asked.seed}" in remark and "not taken" not in remark
    assert {key: getattr(asked, key) for key in expected} == expected
    if model == "audio/notes":
        assert {**asked.labels, "velocity": 0} == {"family": "guitar", "pitch": "60", "velocity": 0}
        assert 32 <= float(asked.labels["velocity"]) <= 127
    *_, made = make(models, tmp_path, asked, most=1)
    (result,) = made.results
    assert result.file.name == file.name
    modality = models.pipeline(model).modality
    again, first = modality.read(result.file), modality.read(file)
    assert again.shape == first.shape
    # one batch of one sample each: the same numbers, so the same file but for the order of its metadata
    assert float((again - first).abs().max()) == 0


def test_the_teacher_a_walk_and_another_sample_come_back(models: Models, tmp_path: Path) -> None:
    asked = Asked(model="image/fashion", steps="teacher", guidance=2.0, seed=5, first=3, walk=(9, 0.25))
    short = models.pipeline("image/fashion").settings
    assert short.teacher == "heun"
    request = asked.request(models.pipeline("image/fashion"), most=1)
    from scm_media.pipeline.records import describe_sampling

    record = describe_sampling(models.pipeline("image/fashion"), "image/fashion", request)
    file = write_png(tmp_path, {**record, "seed": 5, "index": 3, "label": "Coat"})
    found, _ = restore_settings(models, file)
    assert (found.steps, found.guidance, found.seed, found.first, found.walk) == ("teacher", 2.0, 5, 3, (9, 0.25))
    assert found.labels == {"class": "Coat"}


def test_what_another_teacher_was_asked_for_is_said(models: Models, tmp_path: Path, monkeypatch) -> None:
    record = {"model": "image/fashion", "seed": 1, "index": 0, "label": "Bag"}
    for steps, sampler, told in (
        (32, "heun", ""),
        (10, "heun", "; not taken: its 10 steps of the teacher"),
        (32, "dpm_solver", "; not taken: its sampler dpm_solver"),
    ):
        file = write_png(tmp_path, {**record, "steps": steps, "sampler": f"teacher, {sampler}"})
        asked, remark = restore_settings(models, file)
        assert asked.steps == "teacher"
        assert remark.partition("seed 1")[2] == told
    folder = type(models.pipeline("image/fashion").folder)
    monkeypatch.setattr(folder, "has", lambda self, name: name != "teacher")
    with pytest.raises(ValueError, match="cannot be used: its teacher made the file, which image/fashion is without"):
        restore_settings(models, file)


def test_numbers_come_back_with_all_their_digits(models: Models, tmp_path: Path) -> None:
    record = {"model": "image/fashion", "seed": 2**62 + 1, "index": 0, "label": "Bag", "walk": [9, 0.123456789]}
    asked, _ = restore_settings(models, write_png(tmp_path, record))
    assert asked.seed == 2**62 + 1
    assert parse_walk(format_walk(asked.walk)) == ("9", 0.123456789)
    assert [plain(value) for value in (60, 60.0, 0.1, 87.34567891)] == ["60", "60", "0.1", "87.34567891"]
    with pytest.raises(ValueError, match=f"the seed is {2**62 + 1}, and a browser keeps"):
        check_exact(asked)
    check_exact(Asked(model="image/fashion", seed=2**53 - 1))


def test_a_scale_beyond_the_slider_widens_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    app = App(ServerSettings(models=("image/fashion",), out=tmp_path, device="cpu"))
    try:
        with gr.Blocks(analytics_enabled=False):
            controls = Controls(app, live=False)
        for scale, ends in ((9.5, (0, 9.5)), (2.0, (0, 6.0)), (None, (0, 6.0))):
            guidance = controls.restore(Asked(model="image/fashion", steps="teacher", guidance=scale))[-1]
            assert (guidance["minimum"], guidance["maximum"]) == ends
    finally:
        app.close()


def test_what_has_no_control_is_said(models: Models, tmp_path: Path) -> None:
    file = write_png(
        tmp_path, {"model": "image/fashion", "seed": 1, "index": 0, "label": None, "negative": "a", "task": "inpaint"}
    )
    _, remark = restore_settings(models, file)
    assert remark.endswith(
        "not taken: it was an edit, and the file that it was given is not in it, its negative prompt"
    )


def test_a_run_is_found_by_its_recipe(models: Models, tmp_path: Path) -> None:
    file = write_png(tmp_path, {"model": "main", "recipe": "image/fashion", "seed": 1, "index": 0, "label": "Bag"})
    assert restore_settings(models, file)[0].model == "image/fashion"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "holds no settings of scm-media"),
        ({"model": "image/other", "seed": 1}, "was made by image/other, which is not open here"),
        ({"model": "image/fashion", "seed": "x"}, "cannot be used: seed must be a whole number, got x"),
        ({"model": "image/fashion", "seed": -4}, "cannot be used: seed must be a whole number from 0"),
        ({"model": "image/fashion", "seed": 1, "label": "<script>"}, "cannot be used: the model knows no label"),
        ({"model": "image/fashion", "seed": 1, "steps": 10**9}, "cannot be used"),
        ({"model": "image/fashion", "seed": 1, "walk": [1]}, "cannot be used"),
        ({"model": "image/fashion", "seed": 1, "guidance": {"a": 1}}, "cannot be used"),
    ],
)
def test_foreign_and_hostile_settings_are_refused_in_words(models: Models, tmp_path: Path, record, message) -> None:
    with pytest.raises(ValueError, match=message):
        restore_settings(models, write_png(tmp_path, record))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.png", b"not a picture", "x.png cannot be read as a PNG"),
        ("x.wav", b"RIFF....", "x.wav"),
        ("x.mp4", b"\0" * 100, "x.mp4 cannot be read as a video"),
        ("x.svg", b"<svg onload=alert(1)>", "is of a kind that the models here do not make; drop one of .png, .wav"),
        ("x.png", b"", "cannot be read as a PNG"),
    ],
)
def test_other_files_are_refused_in_words(models: Models, tmp_path: Path, name, content, message) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        restore_settings(models, tmp_path / name)
    assert str(tmp_path) not in str(caught.value)


def test_a_huge_picture_is_refused_before_it_is_decoded(models: Models, tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    Image.new("L", (1, 1)).save(file)
    content = bytearray(file.read_bytes())
    import struct
    import zlib

    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    file.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="cannot be read as a PNG"):
        restore_settings(models, file)


def write_png(folder: Path, record: dict) -> Path:
    """Writes a picture with these settings inside, as a stranger could."""
    info = PngImagePlugin.PngInfo()
    for key, value in record.items():
        info.add_text(f"scm_media:{key}", value if isinstance(value, str) else json.dumps(value))
    Image.new("L", (4, 4)).save(folder / "x.png", pnginfo=info)
    return folder / "x.png"

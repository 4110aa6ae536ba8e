"""Edits of the page become requests: ways follow from the model, files are described, masks are drawn."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from scm_media.app.asking import Asked
from scm_media.app.edit_making import make_edits
from scm_media.app.edits import Edit, describe_missing, drawn_mask, find_ways, open_source, to_picture
from scm_media.app.jobs import Cancelled
from scm_media.app.models import Models
from scm_media.app.waveforms import HEIGHT, WIDTH, draw_timeline, move_end, place_in, ticks
from scm_media.pipeline import SamplingRequest, load
from tests.pipeline.tiny_media import write_tiny

SAMPLING = SamplingRequest(steps=1, label="low")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: load(write_tiny(kind, folder / kind), "cpu") for kind in ("image", "audio", "video")}


def make(pipeline, file, sampling=SAMPLING, **fields):
    """Returns the first sample of an edit."""
    request = Edit(**fields).request(pipeline, file, sampling)
    return next(iter(pipeline.edit_batches(request))).samples[0]


@pytest.fixture
def picture(tmp_path):
    """Returns a wide picture in colour, whose red rises to the right."""
    red = np.tile(np.arange(32, dtype=np.uint8) * 8, (20, 1))
    file = tmp_path / "wide one.png"
    Image.fromarray(np.stack([red, red // 2, 255 - red], -1)).save(file)
    return file


@pytest.fixture
def sound(tmp_path, models):
    """Returns three quarters of a second of a tone."""
    wave = 0.5 * torch.sin(torch.arange(6000) * 0.2)[None]
    file = tmp_path / "tone.wav"
    models["audio"].modality.write(file, wave, {})
    return file


@pytest.fixture
def clip(tmp_path, models):
    """Returns seven frames that grow brighter."""
    frames = torch.linspace(-0.9, 0.9, 7)[None, :, None, None].expand(3, 7, 16, 24)
    file = tmp_path / "clip.mp4"
    models["video"].modality.write(file, frames, {})
    return file


def test_the_ways_of_a_model_follow_from_the_model(models, tmp_path):
    assert find_ways(models["image"]) == ["area"]
    assert find_ways(models["audio"]) == ["stretch", "continue", "prepend", "interpolate"]
    assert find_ways(models["video"]) == ["continue", "animate", "area", "stretch", "prepend", "interpolate"]
    assert describe_missing(models["image"]) == (
        "cannot make a stretch of time anew, continue a file, lead to a file, interpolate, set a picture in motion "
        "(its samples have no duration)"
    )
    assert describe_missing(models["audio"]) == (
        "cannot set a picture in motion (its samples have no frames) or make a drawn area anew (its samples are no "
        "pictures)"
    )
    assert describe_missing(models["video"]) == ""
    alone = write_tiny("image", tmp_path)
    (alone / "student.safetensors").unlink()
    teacher = load(alone, "cpu")
    assert find_ways(teacher) == []
    assert describe_missing(teacher).startswith("has no student")
    with pytest.raises(ValueError, match="image/tiny has no student, which makes edits"):
        Edit(way="area").request(teacher, alone, SAMPLING)


def test_a_drawn_area_is_made_anew_and_the_rest_is_kept(models, picture):
    source = open_source(models["image"], picture)
    assert source.words == "wide one.png: 32×20 pixels in the file; the model gets 16×16 pixels, in colour"
    drawing = np.zeros((160, 160, 4), np.uint8)
    drawing[40:80, 20:90, 3] = 255
    mask = drawn_mask([np.zeros_like(drawing), drawing], (16, 16))
    assert mask[4:8, 2:9].all()
    assert mask.sum() == 4 * 7
    made = make(models["image"], picture, way="area", mask=mask)
    kept = torch.from_numpy(~mask)
    assert torch.equal(made[:, kept], source.sample[:, kept])
    assert (made - source.sample)[:, ~kept].abs().min() > 0


def test_a_brush_marks_what_it_covers_by_a_quarter(models):
    layer = np.zeros((40, 40, 4), np.uint8)
    layer[:10, :3, 3] = 255  # 30 of the 100 parts of a pixel
    layer[:10, 10:12, 3] = 255  # 20 of them
    layer[10:20, :10, 3] = 120  # too faint
    layer[..., :3] = 255
    assert np.argwhere(drawn_mask([layer], (4, 4))).tolist() == [[0, 0]]
    assert not drawn_mask([], (4, 4)).any()


def test_edits_are_made_batch_by_batch_with_their_record_and_may_be_stopped(models, clip, tmp_path):
    opened = Models([str(models[kind].folder.path) for kind in ("audio", "video")], "cpu", "float32")
    asked, edit = Asked(model="video", num=5, seed=3, labels={"class": "high"}), Edit(way="continue", keep=2)
    steps = list(make_edits(opened, tmp_path, asked, edit, clip, most=8))
    assert [made.num for made in steps] == [5, 5]
    assert steps[-1].evaluations == models["video"].edit_steps
    results = steps[-1].results
    assert [result.record["index"] for result in results] == [0, 1, 2, 3, 4]
    told = models["video"].modality.read_metadata(results[4].file)
    assert (told["task"], told["input"], told["label"], told["steps"]) == ("continue", "clip.mp4", "high", 16)
    with pytest.raises(ValueError, match="must lie in 1 … 4 here, got 5"):
        next(make_edits(opened, tmp_path, asked, edit, clip, most=4))
    stop = threading.Event()
    making = make_edits(opened, tmp_path, asked, edit, clip, 8, stop, lambda done: stop.set() if done > 0.3 else None)
    with pytest.raises(Cancelled):
        list(making)


def test_guidance_without_a_label_is_left_out(models, clip, tmp_path):
    opened = Models([str(models["video"].folder.path)], "cpu", "float32")
    for labels, evaluations in (({}, 1), ({"class": "low"}, 2)):
        asked = Asked(model="video", steps="1", guidance=2.0, labels=labels)
        (made,) = make_edits(opened, tmp_path, asked, Edit(way="animate"), clip, most=1)
        assert made.evaluations == evaluations


def test_nothing_drawn_and_other_pictures_drawings_are_refused(models, picture):
    with pytest.raises(ValueError, match="nothing is drawn yet"):
        make(models["image"], picture, way="area")
    with pytest.raises(ValueError, match="belongs to another picture than this one of 16×16 pixels"):
        make(models["image"], picture, way="area", mask=np.ones((8, 8), bool))


def test_a_stretch_of_a_sound_is_made_anew_and_the_rest_is_kept(models, sound):
    pipeline = models["audio"]
    source = open_source(pipeline, sound)
    assert source.words == "tone.wav: mono, 8000 Hz, 0.75 s in the file; the model gets mono, 0.75 seconds, 8000 Hz"
    made = make(pipeline, sound, way="stretch", stretch=(0.25, 0.5))
    assert made.shape == source.sample.shape
    fade = 80  # 10 ms
    assert torch.equal(made[:, : 2000 - fade], source.sample[:, : 2000 - fade])
    assert torch.equal(made[:, 4000 + fade :], source.sample[:, 4000 + fade :])
    assert (made - source.sample)[:, 2000:4000].abs().mean() > 0.01
    with pytest.raises(ValueError, match="begins before it ends"):
        make(pipeline, sound, way="stretch", stretch=(0.5, 0.5))
    with pytest.raises(ValueError, match=r"5 seconds would be made anew, at most 4\.096 here"):
        make(pipeline, sound, way="stretch", stretch=(0, 5))
    with pytest.raises(
        ValueError, match=r"the stretch ends at 1 seconds, but the file at 0\.75: choose an earlier end"
    ):
        make(pipeline, sound, way="stretch", stretch=(0.5, 1))


def test_clips_are_continued_animated_and_drawn_on(models, clip, picture):
    pipeline = models["video"]
    source = open_source(pipeline, clip)
    assert source.words.startswith("clip.mp4: 24×16 pixels, 8 frames/s, 0.875 s in the file; the model gets 24×16 ")
    assert source.words.endswith("pixels, in colour, 7 frames, 8 frames/s")
    made = make(pipeline, clip, replace(SAMPLING, sizes={"frames": 6}), way="continue", keep=2)
    assert made.shape[1] == 6
    assert torch.equal(made[:, :2], source.sample[:, -2:])
    still = open_source(pipeline, picture)
    assert "the model gets 24×16 pixels, in colour, 1 frame," in still.words
    moving = make(pipeline, picture, way="animate")
    assert torch.equal(moving[:, 0], still.sample[:, 0])
    assert moving.shape[1] == 5
    mask = np.zeros((16, 24), bool)
    mask[:8, :12] = True
    drawn = make(pipeline, clip, way="area", mask=mask)
    assert torch.equal(drawn[..., 8:, :], source.sample[..., 8:, :])
    assert (drawn != source.sample)[..., :8, :12].float().mean() > 0.9
    ends = make(pipeline, clip, way="interpolate", keep=1)
    assert torch.equal(ends[:, [0, -1]], source.sample[:, [0, -1]])


def test_a_foreign_file_is_refused_in_words(models, tmp_path, sound):
    with pytest.raises(ValueError, match=r"tone\.wav is no file of image that can be read; .* \.jpeg, \.jpg"):
        open_source(models["image"], sound)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    with pytest.raises(ValueError, match=r"^text\.png"):
        open_source(models["image"], text)


def test_the_timeline_shows_the_stretch(models, sound, clip):
    audio, video = models["audio"].modality, models["video"].modality
    wave = models["audio"].modality.read_whole(sound)
    plain = np.asarray(draw_timeline(wave, audio.size_options["duration"], None))
    marked = np.asarray(draw_timeline(wave, audio.size_options["duration"], (0.25, 0.5)))
    assert plain.shape[:2] == (HEIGHT, WIDTH)
    changed = (plain != marked).any(-1)[:HEIGHT].any(0).nonzero()[0]
    assert changed.min() == pytest.approx(WIDTH / 3, abs=3)
    assert changed.max() == pytest.approx(2 * WIDTH / 3, abs=3)
    frames = np.asarray(draw_timeline(video.read_whole(clip), video.size_options["frames"], (0, 2)))
    middle = frames[len(frames) // 2, :, 0].astype(int)
    assert middle[-60] > middle[60] + 100, "the clip grows brighter"
    assert ticks(0.75) == [
        (0.0, "0"),
        (pytest.approx(0.2667, abs=1e-3), "0.2"),
        (pytest.approx(0.5333, abs=1e-3), "0.4"),
        (pytest.approx(0.8), "0.6"),
    ]
    assert ticks(0) == []
    assert place_in(0.5, 3.0) == 1.5
    assert place_in(-5, 3.0) == 0
    assert move_end((1.0, 2.0), 1.4) == (1.4, 2.0)
    assert move_end((1.0, 2.0), 1.6) == (1.0, 1.6)


def test_pictures_are_shown_in_colour(models, picture):
    shown = to_picture(open_source(models["image"], picture).sample)
    assert (shown.mode, shown.size) == ("RGB", (16, 16))
    assert to_picture(-torch.ones(1, 4, 6)).getextrema() == ((0, 0), (0, 0), (0, 0))

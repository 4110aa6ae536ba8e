"""Odd but good files are read, HDR is remarked on, and whatever a decoder raises is one counted file with its name."""

from __future__ import annotations

import os
import shutil
import struct
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

from modalities.pictures import reading
from modalities.video import VideoModality, containers, read_metadata, stills
from modalities.video.footage import VideoError
from modalities.video.reading import holds_frames, open_footage
from scm_media.cli import main
from scm_media.data import FolderDataset
from tests.modalities.video.files import numbered, numbers, write_folder, write_numbered, write_webp

MODALITY = {"num_frames": 6, "frame_rate": 10, "size": [32, 56], "window": "start"}


def write_hdr(path: Path, transfer: int) -> Path:
    """Ten bits in the colours of BT.2020, with a transfer function by FFmpeg's number."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 56, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, transfer, 9
        for number in range(8):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24").reformat(format="yuv420p10le")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def recipe_for(folder: Path, path: Path) -> Path:
    path.write_text(
        "defaults: [/base, /modality: video, /data: folder, /autoencoder: pixel, /backbone: transformer, _self_]\n"
        "recipe: mine\nmodality: {num_frames: 6, frame_rate: 10, size: 32}\nbackbone: {rank: 3}\n"
        f"data: {{root: {folder}, labels: none}}\n"
    )
    return path


@pytest.mark.parametrize("verify", [True, False])
def test_check_notes_hdr_with_a_count_a_file_and_a_remedy(tmp_path, capsys, monkeypatch, verify):
    monkeypatch.chdir(tmp_path)
    clips = tmp_path / "clips"
    clips.mkdir()
    for name, transfer in (("b.mp4", 16), ("a.mkv", 18), ("c.mov", 16), ("plain.mp4", 1), ("told.mkv", 14)):
        write_hdr(clips / name, transfer)
    recipe = recipe_for(clips, tmp_path / "mine.yaml")
    # One of the files is held out: without a look at all of them, only those that are shown are known.
    assert main(["check", str(recipe), f"data.verify={str(verify).lower()}"]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: HDR")]
    assert len(notes) == 1 and "PQ or HLG" in notes[0] and "colours are dull" in notes[0] and "ffmpeg -i IN" in notes[0]
    assert "plain" not in notes[0] and "told" not in notes[0]
    if verify:
        assert f"in 3 files, first {clips / 'a.mkv'}" in notes[0]


def test_check_says_nothing_of_hdr_where_there_is_none(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        write_numbered(tmp_path / f"{name}.mp4", 8)
    assert main(["check", str(recipe_for(tmp_path, tmp_path / "mine.yaml"))]) == 0
    assert "HDR" not in capsys.readouterr().out


def test_names_and_texts_of_any_kind_do_not_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = write_numbered(tmp_path / "a.mp4", 8)
    modality = VideoModality(**MODALITY)
    # An address to FFmpeg, a pattern of numbered files to FFmpeg, and a name that is no UTF-8.
    for name in ("12:30.mp4", "a%03d.mp4", "file:a.mp4", os.fsdecode(b"\xff\xe4.mp4")):
        shutil.copy(given, name)
        modality.validate(Path(name))
        assert numbers(modality.read(Path(name))) == list(range(8))
        assert read_metadata(Path(name)) == {}


def test_a_title_that_is_no_utf8_is_no_reason_to_refuse_a_video(tmp_path):
    plain = write_numbered(tmp_path / "a.avi", 8)
    with av.open(str(plain)) as given, av.open(str(tmp_path / "b.avi"), "w") as made:
        made.metadata["title"] = "Qwertz"
        copy = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.size:
                packet.stream = copy
                made.mux(packet)
    content = (tmp_path / "b.avi").read_bytes()
    assert b"Qwertz" in content
    (tmp_path / "b.avi").write_bytes(content.replace(b"Qwertz", "Grüße!".encode("latin-1")))
    modality = VideoModality(**MODALITY)
    modality.validate(tmp_path / "b.avi")
    assert numbers(modality.read(tmp_path / "b.avi")) == list(range(8))
    assert read_metadata(tmp_path / "b.avi") == {}


def test_a_codec_that_nobody_knows_is_named(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 8, codec=("mpeg4", "yuv420p", {}))
    path.write_bytes(path.read_bytes().replace(b"mp4v", b"wxyz").replace(b"esds", b"free"))
    with pytest.raises(ValueError, match=r"a\.mp4 has a codec that FFmpeg does not know: convert it") as caught:
        VideoModality(**MODALITY).validate(path)
    assert caught.value.reason == "unknown codec"


RAISED = (
    AttributeError("'NoneType' object has no attribute 'x'"),
    TypeError("bad operand"),
    KeyError("tag"),
    IndexError("list index out of range"),
    struct.error("argument out of range"),
    OverflowError("too large"),
    ZeroDivisionError(),
    RecursionError("maximum depth"),
    MemoryError(),
    AssertionError("two\nlines"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
)
DECODERS = {
    "a.mp4": [(containers.ContainerFootage, "_decode"), (containers, "open_container"), (containers, "orientation_of")],
    "a.gif": [(containers.ContainerFootage, "_seek"), (containers.ContainerFootage, "_last_packets")],
    "a.webp": [(stills.Image, "open")],
    "frames": [(reading, "_load"), (reading, "orientation_of"), (stills, "_open"), (stills.StillFrame, "pixels")],
    "b.mp4": [(containers.DecodedFrame, "pixels")],
}


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", DECODERS)
def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch, name, error):
    path = tmp_path / name
    if name == "frames":
        write_folder(path, 8)
    elif name == "a.webp":
        write_webp(path, 8, [100] * 8)
    else:
        write_numbered(path, 8)
    modality = VideoModality(**MODALITY)
    modality.validate(path)

    def fail(*given, **named):
        raise error

    for owner, function in DECODERS[name]:
        monkeypatch.setattr(containers, "_measured", {})
        stills._cached_ends.cache_clear()
        monkeypatch.setattr(owner, function, fail)
        for use in (modality.validate, modality.read, modality.read_transformed):
            with pytest.raises(VideoError) as caught:
                use(path)
            assert str(path) in str(caught.value) and "\n" not in str(caught.value) and caught.value.reason
            assert type(error).__name__ in str(caught.value) or str(error).split()[0] in str(caught.value)
        monkeypatch.undo()


def test_one_file_of_which_a_decoder_raises_anything_is_counted(tmp_path, monkeypatch):
    for number in range(3):
        write_numbered(tmp_path / f"{number}.mp4", 8)
    whole = containers.open_container

    def fails_once(file):
        if file.name == "1.mp4":
            raise AttributeError("'NoneType' object has no attribute 'name'")
        return whole(file)

    monkeypatch.setattr(containers, "open_container", fails_once)
    dataset = FolderDataset(VideoModality(**MODALITY), tmp_path, labels="none")
    assert dataset.rejects == {"undecodable": 1}
    assert dataset.rejected[0][0].endswith("1.mp4") and "no attribute" in dataset.rejected[0][1]
    assert len(dataset) == 1  # and one held out


def test_a_folder_that_cannot_be_listed_is_no_video(tmp_path, monkeypatch):
    write_folder(tmp_path / "frames", 3)
    assert holds_frames(tmp_path / "frames")

    def fail(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", fail)
    assert not holds_frames(tmp_path / "frames")
    with (
        pytest.raises(VideoError, match=r"frames cannot be decoded: Permission denied"),
        open_footage(tmp_path / "frames", 10),
    ):
        pass


def test_transparent_frames_get_a_background_on_which_they_are_seen(tmp_path):
    for number, colour in enumerate(("black", "navy", "white")):
        frames = [Image.new("RGBA", (32, 32), (0, 0, 0, 0)) for _ in range(16)]
        for place, frame in enumerate(frames):
            frame.paste(colour, (place, 8, place + 12, 20))
        how = {"save_all": True, "append_images": frames[1:], "duration": 100, "lossless": True}
        frames[0].save(tmp_path / f"{number}.webp", **how)
    found, seen = VideoModality.suggest_config(sorted(tmp_path.glob("*.webp")))
    assert found["background"] == 1.0 and "3 are partly transparent, and shown on white" in seen
    found, seen = VideoModality.suggest_config([tmp_path / "2.webp"])
    assert "background" not in found and "1 are partly transparent, and shown on black" in seen

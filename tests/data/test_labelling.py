"""Labels from a user's own function and from what a modality measures, in folders, manifests and shards."""

from __future__ import annotations

import json

import pytest
import torch
import webdataset
from PIL import Image

from modalities.audio import AudioModality
from modalities.image import ImageModality
from scm_media import recipe
from scm_media.build import build
from scm_media.cli import main
from scm_media.data import FolderDataset, ManifestDataset, ShardsDataset, batches
from tests.modalities.audio.files import sixteen, tone, wav

OWN = '''
from scm_media import part


@part("label_function")
def from_name(path, row=None):
    """kick-03-fast.png: kind, number and speed; those without a speed are no examples."""
    kind, number, *speed = path.stem.split("-")
    if kind == "noise":
        raise ValueError("noise is of no kind")
    if not speed:
        return None
    told = {"kind": kind, "number": int(number)}
    return told if row is None else {**told, "author": row["caption"].upper()}
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's, allowed by name."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "my_labels.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.setenv("SCM_MEDIA_ALLOW", "my_labels")
    return {"_target_": "my_labels.from_name", "_partial_": True}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data" / "loud").mkdir(parents=True)
    for number in range(12):
        kind = "kick" if number % 3 else "snare"
        Image.new("L", (8, 8), 10 * number).save(tmp_path / "data" / "loud" / f"{kind}-{number:02d}-fast.png")
    return tmp_path / "data"


def number_of(example):
    return round((float(example.sample.mean()) + 1) * 12.75)


def open_folder(root, function, **options):
    return FolderDataset(ImageModality(size=8), root, held_out=0.1, label_function=function, **options)


def test_a_folders_files_are_labelled_by_their_names(root, own):
    dataset = build(
        {
            "_target_": "scm_media.data.FolderDataset",
            "root": str(root),
            "label_function": own,
            "scalars": ["number"],
            "held_out": 0.1,
        },
        "data",
        modality=ImageModality(size=8),
        split="train",
    )
    assert dataset.label_names == {"class": ("loud",), "kind": ("kick", "snare"), "number": ()}
    assert sum(dataset.label_counts["kind"]) == len(dataset) == 11
    for place in range(11):
        number = number_of(dataset[place])
        assert dataset[place].labels == {"class": 0, "kind": int(number % 3 == 0), "number": float(number)}
    batch = next(batches(dataset, 4, 0, 1, seed=0))
    assert batch.labels["number"].dtype == torch.float32
    assert dataset.fingerprint() != open_folder(root, None).fingerprint()


def test_rows_of_a_manifest_are_given_too(root, own, tmp_path):
    rows = [{"path": path.name, "caption": f"by {path.stem[:4]}"} for path in sorted((root / "loud").iterdir())]
    manifest = root / "loud" / "list.jsonl"
    manifest.write_text("\n".join(json.dumps(row) for row in rows))
    dataset = ManifestDataset(
        ImageModality(size=8),
        manifest,
        scalars=["number"],
        classes={"kind": ["snare", "kick"]},
        label_function=build(own, "label_function"),
    )
    assert dataset.label_names == {"kind": ("snare", "kick"), "number": (), "author": ("BY KICK", "BY SNAR")}
    assert all(dataset[place].labels["kind"] == int(number_of(dataset[place]) % 3 > 0) for place in range(len(dataset)))


def test_what_the_function_leaves_out_or_refuses_is_counted(root, own):
    for name in ("kick-99.png", "noise-01-slow.png"):
        Image.new("L", (8, 8)).save(root / "loud" / name)
    dataset = open_folder(root, build(own, "label_function"))
    assert dataset.rejects == {"left out by data.label_function": 1, "refused by data.label_function": 1}
    assert dict(dataset.rejected)[str(root / "loud" / "noise-01-slow.png")].endswith(": noise is of no kind")


def test_a_label_that_some_files_lack_or_that_is_no_number_is_counted(root):
    def function(path):
        number = int(path.stem.split("-")[1])
        return {"number": "many" if number == 5 else number} | ({} if number == 7 else {"kind": "drum"})

    dataset = open_folder(root, function, scalars=["number"])
    assert dataset.rejects == {"scalar label that is no number": 1, "missing label": 1}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda path: path.no_such_thing, r"<lambda> failed for .*kick-01-fast\.png \(AttributeError: .*no_such_thing"),
        (lambda path: [1], r"<lambda> gave \[1\] for .*; expected a mapping"),
        (lambda path: {"class": "x"}, r"data\.label_function gives class, which is a label already"),
        ("my_labels.from_name", r"data\.label_function must be \{_target_: .*got 'my_labels\.from_name'"),
    ],
)
def test_a_function_that_is_wrong_is_named_with_the_file(root, function, words):
    with pytest.raises(ValueError, match=words):
        open_folder(root, function)


def test_scalars_that_nobody_gives_are_named(root, own):
    with pytest.raises(ValueError, match=r"name pitch, which is no label; labels: class, kind, number"):
        open_folder(root, build(own, "label_function"), scalars=["pitch"])
    with pytest.raises(ValueError, match=r"name pitch, which is no label; labels: class$"):
        open_folder(root, None, scalars=["pitch"])


def test_a_function_that_is_not_allowed_is_refused(own, monkeypatch, root):
    monkeypatch.setenv("SCM_MEDIA_ALLOW", "")
    with pytest.raises(ValueError, match=r"my_labels\.from_name is not on the allow-list.*SCM_MEDIA_ALLOW=my_labels"):
        build(
            {"_target_": "scm_media.data.FolderDataset", "root": str(root), "label_function": own},
            "data",
            modality=ImageModality(size=8),
        )


def test_the_command_line_takes_it(root, own, tmp_path, capsys):
    overrides = [
        f"data.root={root}",
        "data.label_function={_target_: my_labels.from_name, _partial_: true}",
        "data.scalars=[number]",
        f"run_dir={tmp_path / 'run'}",
    ]
    assert recipe.compose("image/folder", overrides)["data"]["label_function"] == own
    assert main(["check", "image/folder", *overrides]) == 0
    said = capsys.readouterr().out
    assert "label kind: 2 classes: kick " in said
    assert "label number: a number" in said


@pytest.fixture
def sounds(tmp_path):
    (tmp_path / "sounds").mkdir()
    for number in range(1, 9):
        (tmp_path / "sounds" / f"{number}.wav").write_bytes(wav(sixteen(tone(8000, number / 10)), 8000))
    return tmp_path / "sounds"


def test_what_the_modality_measures_is_a_label(sounds):
    modality = AudioModality(sample_rate=8000, duration=0.5)
    dataset = FolderDataset(modality, sounds, labels="none", measures=["seconds"])
    assert dataset.label_names == {"seconds": ()}
    for place in range(len(dataset)):
        number = int(dataset[place].source.rpartition("/")[2].split(".")[0])
        assert dataset[place].labels == {"seconds": min(number, 5) / 10}


def test_members_of_shards_are_cropped_masked_and_measured_like_files(sounds):
    with webdataset.TarWriter(str(sounds / "a.tar")) as tar:
        for path in sorted(sounds.glob("*.wav")):
            tar.write({"__key__": path.stem, "wav": path.read_bytes(), "cls": int(path.stem) % 2})
        tar.write({"__key__": "9", "wav": b"no such thing" * 10, "cls": 0})
    modality = AudioModality(sample_rate=8000, duration=0.5, padding="masked")
    from_files = FolderDataset(modality, sounds, labels="none", measures=["seconds"])
    from_tar = ShardsDataset(modality, "a.tar", sounds, labels={"class": "cls"}, measures=["seconds"])
    assert from_tar.label_names == {"class": ("0", "1"), "seconds": ()}
    assert from_tar.rejects == {"not audio": 1}
    assert from_tar.rejected[0][1].startswith("not audio: a.tar#9.wav cannot be decoded as a sound")
    names = {from_files[place].source.rpartition("/")[2]: place for place in range(len(from_files))}
    compared = 0
    for place in range(len(from_tar)):
        member = from_tar[place].source.rpartition("#")[2]
        if member in names:
            one = from_tar.batch([place], [torch.Generator().manual_seed(3)])
            other = from_files.batch([names[member]], [torch.Generator().manual_seed(3)])
            assert torch.equal(one.sample, other.sample)
            assert torch.equal(one.padding_mask, other.padding_mask)
            assert torch.equal(one.labels["seconds"], other.labels["seconds"])
            compared += 1
    assert compared >= 6


def test_measures_that_there_are_not_are_named(root, sounds):
    with pytest.raises(ValueError, match=r"data\.measures=\['seconds'\]: nothing is measured of image"):
        FolderDataset(ImageModality(size=8), root, measures=["seconds"])
    with pytest.raises(ValueError, match=r"data\.measures: audio measures seconds, not pitch"):
        FolderDataset(AudioModality(), sounds, labels="none", measures=["pitch"])
    with pytest.raises(ValueError, match=r"data\.measures gives seconds, which is a label already"):
        FolderDataset(
            AudioModality(), sounds, labels="none", label_function=lambda path: {"seconds": 1}, measures=["seconds"]
        )


def test_pictures_are_read_as_before(root):
    modality = ImageModality(size=6, fit="crop", random_crop=True, flip=True)
    dataset = FolderDataset(modality, root)
    own = [torch.Generator().manual_seed(seed) for seed in range(4)]
    batch = dataset.batch(range(4), own)
    for place, seed in enumerate(range(4)):
        expected = modality.transform(modality.read(dataset[place].source), torch.Generator().manual_seed(seed))
        assert torch.equal(batch.sample[place], expected)
    assert batch.padding_mask is None
    assert batch.conditioning(lambda mask: mask).padding_mask is None

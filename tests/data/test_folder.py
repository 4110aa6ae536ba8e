"""Folders of pictures: classes from sub-folders, rejects counted by reason."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from modalities.image import ImageModality
from scm_media.data import FolderDataset, batches


def picture(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), level).save(path)


@pytest.fixture
def root(tmp_path):
    for name, start, num in (("cats", 0, 30), ("dogs", 100, 20)):
        for number in range(num):
            picture(tmp_path / "data" / name / f"{number}.png", start + number)
    return tmp_path / "data"


def open_folder(root, **options):
    return FolderDataset(modality=ImageModality(size=8), root=root, **options)


def levels(dataset):
    return [round((float(dataset[place].sample.mean()) + 1) * 127.5) for place in range(len(dataset))]


def test_classes_are_the_names_of_sub_folders(root):
    dataset = open_folder(root, held_out=0.1)
    assert dataset.label_names == {"class": ("cats", "dogs")}
    assert len(dataset) == 45
    assert sum(dataset.label_counts["class"]) == 45
    for place, level in enumerate(levels(dataset)):
        assert dataset[place].labels == {"class": int(level >= 100)}
    assert dataset.rejects == {}


def test_splits_cover_everything_once_and_do_not_move_with_the_folder(root, tmp_path):
    train, held_out = (open_folder(root, split=split, held_out=0.1) for split in ("train", "held_out"))
    assert len(held_out) == 5
    assert sorted(levels(train) + levels(held_out)) == [*range(30), *range(100, 120)]
    assert train.label_names == held_out.label_names
    expected = levels(held_out)
    moved = root.rename(tmp_path / "elsewhere")
    assert levels(open_folder(moved, split="held_out", held_out=0.1)) == expected


def test_rejects_are_counted_by_reason_and_listed(root):
    (root / "cats" / "torn.png").write_bytes((root / "cats" / "1.png").read_bytes()[:40])
    (root / "cats" / "text.jpg").write_text("no picture")
    (root / "cats" / "notes.txt").write_text("of another kind")
    (root / "cats" / ".DS_Store").write_bytes(b"")
    (root / "birds").mkdir()
    picture(root / "alone.png", 9)
    dataset = open_folder(root)
    assert dataset.rejects == {
        "undecodable": 2,
        "of another kind": 1,
        "hidden": 1,
        "in no class folder (data.labels=none takes them)": 1,
        "empty class folder": 1,
    }
    assert dataset.label_names == {"class": ("cats", "dogs")}
    sources = dict(dataset.rejected)
    assert len(sources) == 6
    assert sources[str(root / "birds")] == "empty class folder"
    assert sources[str(root / "cats" / "torn.png")].startswith("undecodable: torn.png")


def test_a_class_without_a_readable_file_is_none(root):
    (root / "birds").mkdir()
    (root / "birds" / "torn.png").write_bytes(b"")
    dataset = open_folder(root)
    assert dataset.label_names == {"class": ("cats", "dogs")}
    assert dataset.rejects == {"undecodable": 1}


def test_without_labels_every_picture_counts(root):
    picture(root / "alone.PNG", 9)
    dataset = open_folder(root, labels="none", held_out=0.1)
    assert dataset.label_names == {}
    assert len(dataset) == 46
    assert dataset.batch([0, 1]).labels == {}


def test_a_file_that_was_not_looked_at_is_left_out_when_it_is_met(root, capsys):
    dataset = open_folder(root, verify=False)
    target = dataset[3].source
    with open(target, "wb") as file:
        file.write(b"gone bad")
    num = sum(len(batch.sample) for batch in batches(dataset, len(dataset), 0, 2, seed=0))
    assert num == 2 * len(dataset)
    assert dataset.rejects == {"unreadable since the data was opened": 1}
    assert dataset.rejected[0][0] == target
    assert capsys.readouterr().err.count(target) == 1


def test_a_repaired_file_is_taken_again(root):
    modality = ImageModality(size=8)
    (root / "cats" / "new.png").write_bytes(b"half")
    assert FolderDataset(modality=modality, root=root).rejects == {"undecodable": 1}
    picture(root / "cats" / "new.png", 40)
    assert FolderDataset(modality=modality, root=root).rejects == {}


def test_both_splits_read_each_file_once(root):
    class Counting(ImageModality):
        num_read = 0

        def validate(self, file):
            self.num_read += not isinstance(file, Path)  # a path is opened, and comes again as an open file
            return super().validate(file)

    modality = Counting(size=8)
    for split in ("train", "held_out"):
        FolderDataset(modality=modality, root=root, split=split)
    assert modality.num_read == 50


def test_augmented_batches_are_reproducible(root):
    ramp = torch.arange(64, dtype=torch.uint8).reshape(8, 8).numpy()
    Image.fromarray(ramp).save(root / "cats" / "0.png")
    dataset = FolderDataset(modality=ImageModality(size=8, flip=True), root=root)
    first, second = (list(batches(dataset, 7, 2, 10, seed=0, num_workers=num)) for num in (0, 2))
    assert all(torch.equal(a.sample, b.sample) for a, b in zip(first, second, strict=True))


def test_links_to_itself_end(root):
    (root / "cats" / "again").symlink_to(root, target_is_directory=True)
    assert len(open_folder(root, held_out=0.1)) == 45


@pytest.mark.parametrize("content", ["nothing", "torn", "outside", "one"])
def test_folders_of_no_use_are_refused_with_the_reason(tmp_path, content):
    root = tmp_path / "data"
    root.mkdir()
    said = "it is empty"
    if content == "torn":
        (root / "a").mkdir()
        (root / "a" / "torn.png").write_bytes(b"")
        said = "1 undecodable"
    if content == "outside":
        picture(root / "alone.png", 3)
        said = "labels=none"
    if content == "one":
        picture(root / "a" / "alone.png", 3)
        said = "one usable file"
    with pytest.raises(ValueError, match=f"{root}.*{said}"):
        open_folder(root)


def test_roots_that_are_no_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data\.root=.*missing is no folder"):
        open_folder(tmp_path / "missing")
    (tmp_path / "file.png").write_bytes(b"")
    with pytest.raises(ValueError, match="a file, not a folder"):
        open_folder(tmp_path / "file.png")


@pytest.mark.parametrize("options", [{"labels": "names"}, {"held_out": 0.0}, {"held_out": 1.0}, {"split": "test"}])
def test_impossible_options_are_refused_by_key(root, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        open_folder(root, **options)


def refusing(monkeypatch, error, *names):
    """Folders of these names cannot be listed."""
    real = os.scandir

    def scandir(path="."):
        if os.path.basename(path) in names:
            raise error(errno.EACCES if error is PermissionError else errno.ENOENT, "not for you", os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


@pytest.mark.parametrize("error", [PermissionError, FileNotFoundError])
@pytest.mark.parametrize("labels", ["subfolder", "none"])
def test_folders_that_cannot_be_listed_are_counted(root, monkeypatch, error, labels):
    picture(root / "birds" / "1.png", 3)
    picture(root / "cats" / "inner" / "1.png", 4)
    refusing(monkeypatch, error, "birds", "inner")
    dataset = open_folder(root, labels=labels)
    assert dataset.rejects == {"unreadable folder": 2}
    assert sorted(dataset.rejected) == [
        (str(root / "birds"), "unreadable folder: not for you"),
        (str(root / "cats" / "inner"), "unreadable folder: not for you"),
    ]
    assert len(dataset) + len(open_folder(root, labels=labels, split="held_out")) == 50


def test_a_root_that_cannot_be_listed_is_said_to_be(root, monkeypatch):
    refusing(monkeypatch, PermissionError, "data")
    with pytest.raises(ValueError, match=r"data can be used: 1 unreadable folder \(first: .*data\)"):
        open_folder(root)


def test_a_folder_that_the_modality_cannot_look_into_is_counted(root, monkeypatch):
    class Holding(ImageModality):
        def is_sample_dir(self, folder):
            return not any(folder.iterdir())

    picture(root / "cats" / "inner" / "1.png", 4)
    refusing(monkeypatch, PermissionError, "inner")
    dataset = FolderDataset(modality=Holding(size=8), root=root)
    assert dataset.rejects == {"unreadable folder": 1}


def test_compared_folders_count_those_that_cannot_be_listed(root, monkeypatch):
    from scm_media.evaluation.folders import _embed_folder

    class Mean:
        def features(self, sample):
            return sample.flatten(1)[:, :2]

    picture(root / "cats" / "inner" / "1.png", 4)
    (root / "cats" / "torn.png").write_bytes(b"torn")
    refusing(monkeypatch, PermissionError, "inner")
    features, rejects = _embed_folder(root, ImageModality(size=8), Mean(), 8, "cpu", None)
    assert len(features) == 50
    assert rejects["unreadable folder: not for you"] == 1
    assert sum(rejects.values()) == 2

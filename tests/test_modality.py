"""The base classes of modalities and datasets: their defaults, and what is refused of classes without them."""

from __future__ import annotations

import io
import pickle
import sys

import pytest
import torch
from PIL import Image

from modalities.image import ImageModality
from modalities.video import VideoModality
from scm_media import Dataset, Example, Modality, SizeOption
from scm_media.build import build
from scm_media.data import FolderDataset, ManifestDataset
from tests.data.test_shards import append, open_shards


class Digits(Modality):
    """Files of four digits; nothing but what a modality must have."""

    name, suffixes = "digits", frozenset({".b", ".a"})

    def __init__(self):
        self.num_read = 0

    def shape(self, **sizes):
        return (1, 4)

    def read(self, path):
        self.num_read += 1
        try:
            return torch.tensor([[float(digit) / 10 for digit in path.read_text()]])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def transform(self, sample, generator=None):
        return sample[:, :4] + (0 if generator is None else torch.rand((), generator=generator))

    def write(self, path, sample, metadata):
        return None

    def preview(self, samples, captions=(), columns=None):
        return Image.new("L", (1, 1))


def opened(content: bytes, name: str) -> io.BytesIO:
    file = io.BytesIO(content)
    file.name = name
    return file


def test_a_modality_of_five_methods_has_all_others(tmp_path):
    modality, path = Digits(), tmp_path / "1.a"
    path.write_text("12345")
    expected = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    for file in (path, opened(b"12345", "some.tar#1.a")):
        sample, mask = modality.read_transformed(file)
        assert torch.equal(sample, expected) and mask is None
    drawn = modality.read_transformed(path, torch.Generator().manual_seed(1))[0]
    assert torch.equal(drawn, expected + torch.rand((), generator=torch.Generator().manual_seed(1)))
    with pytest.raises(ValueError, match="could not convert"):
        modality.validate(opened(b"12x4", "x.a"))
    assert (modality.measure(path), modality.bucket(path), modality.is_sample_dir(tmp_path)) == ({}, 0, False)
    assert (modality.suggest_config([path]), modality.data_warnings([expected])) == (({}, ""), [])
    assert (modality.buckets, modality.augments, modality.takes_segments) == (None, False, False)
    assert (modality.pipeline_tag, modality.feature_networks, modality.size_options) == (None, {}, {})
    assert modality.written_suffixes == [".a", ".b"]
    batch = torch.stack([expected, 2 * expected])
    assert torch.equal(modality.transform_batch(batch), batch)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    assert torch.equal(modality.transform_batch(batch, generators)[0], drawn)
    assert (modality.statistic_units, modality.statistics(batch)) == ({}, {})
    mask = torch.tensor([[[1.0, 0, 0, 1]]])
    assert modality.blend(batch[:1], -batch[:1], mask).flatten().tolist() == pytest.approx([0.1, -0.2, -0.3, 0.4])
    with pytest.raises(ValueError, match=r"digits does not tell whether a sample begins where its file does"):
        modality.check_actions()


def test_a_file_to_edit_is_read_whole_along_the_axis_of_a_size(tmp_path):
    modality, path = Digits(), tmp_path / "1.a"
    path.write_text("123456")
    assert modality.read_whole(path).shape == (1, 4)
    modality.size_options = {"length": SizeOption(4, "digits", "how many", axis=-1)}
    assert modality.read_whole(path).shape == (1, 6)


def test_files_and_shards_are_datasets_of_such_a_modality(tmp_path):
    (tmp_path / "one.tar").write_bytes(b"")
    for number in range(8):
        (tmp_path / f"{number}.a").write_text(f"{number}234")
    (tmp_path / "bad.a").write_text("none")
    modality = Digits()
    train = FolderDataset(modality, tmp_path, labels="none", held_out=0.25)
    assert (len(train), train.rejects["undecodable"]) == (6, 1)
    FolderDataset(modality, tmp_path, labels="none", held_out=0.25, split="held_out")
    assert modality.num_read == 9, "both splits look at a file once"
    assert FolderDataset(Digits(), tmp_path, labels="none").modality.num_read == 9, "another modality looks itself"
    assert "inspections" not in pickle.loads(pickle.dumps(modality)).__dict__, "workers look at no file"


def test_members_of_a_shard_are_read_by_such_a_modality(tmp_path):
    append(tmp_path / "one.tar", {f"{number}.a": f"{number}234".encode() for number in range(4)})
    dataset = open_shards(tmp_path, shards="one.tar", modality=Digits(), held_out=0.25)
    assert sorted(round(10 * float(dataset[index].sample[0, 0])) for index in range(3)) in (
        [[place for place in range(4) if place != left] for left in range(4)]
    )


def test_a_manifest_may_list_folders_that_are_one_sample(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for frame in range(4):
            Image.new("L", (16, 16), 60 * frame).save(tmp_path / name / f"{frame}.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("path\na\nb\nc\nempty\n")
    dataset = ManifestDataset(VideoModality(num_frames=4, size=16, channels=1, window="start"), tmp_path / "list.csv")
    assert len(dataset) == 2
    assert dataset.rejects == {"folder that is not one sample": 1}
    assert dataset[0].sample.mean((0, 2, 3)).tolist() == pytest.approx([-1, -0.53, -0.06, 0.41], abs=0.01)
    pictures = ManifestDataset(ImageModality(size=8), tmp_path / "list.csv", verify=False)
    with pytest.raises(ValueError, match="cannot be read"):
        pictures[0]


class Counting(Dataset):
    """Three examples; nothing but what a dataset must have."""

    shape = (1, 2)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return Example(torch.full((1, 2), float(index)))


def test_a_dataset_of_two_methods_has_all_others():
    dataset = Counting()
    assert dataset.batch([2, 0]).sample[:, 0, 0].tolist() == [2, 0]
    assert dataset.fingerprint() is None and dataset.versions().shape == (0, 2)
    assert (dataset.label_names, dataset.label_combinations, dataset.label_quantiles) == ({}, {}, {})
    assert (dataset.buckets, dataset.action_names, dataset.rejects, dataset.rejected) == (None, (), {}, ())
    dataset.count_skipped([("file", "torn")])
    dataset.action_names = ("left",)
    with pytest.raises(ValueError, match=r"Counting has actions \(left\) but no method action_bank"):
        dataset.action_bank()


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "own_media.py").write_text(
        "import scm_media\n"
        "@scm_media.part('modality')\nclass Loose:\n    name = 'loose'\n"
        "@scm_media.part('modality')\nclass Half(scm_media.Modality):\n    def shape(self): return (1, 2)\n"
        "@scm_media.part('data')\nclass Rows:\n    def __len__(self): return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SCM_MEDIA_ALLOW", "own_media")
    yield
    sys.modules.pop("own_media", None)


@pytest.mark.parametrize(
    ("role", "name", "said"),
    [
        ("modality", "Loose", r"Loose does not derive from scm_media\.Modality.*class Loose\(scm_media\.Modality\)"),
        ("modality", "Half", "has no preview, read, transform, write, which a modality needs"),
        ("data", "Rows", r"Rows does not derive from scm_media\.Dataset"),
    ],
)
def test_classes_without_the_base_class_are_refused_with_the_remedy(plugin, role, name, said):
    with pytest.raises(ValueError, match=rf"own_media\.{name} ?{said.removeprefix(name).strip()}"):
        build({"_target_": f"own_media.{name}"}, role)

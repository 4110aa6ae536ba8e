"""Fashion-MNIST's idx files: found, read, refused when damaged."""

from __future__ import annotations

import gzip

import pytest
import torch

from modalities.image import ImageModality
from scm_media.data import FashionMNISTDataset
from scm_media.data.idx import FASHION_CLASSES, read_idx


def idx(tensor):
    header = bytes([0, 0, 8, tensor.ndim]) + b"".join(side.to_bytes(4, "big") for side in tensor.shape)
    return header + bytes(tensor.flatten().tolist())


def write(folder, num, prefix="train", seed=0):
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = torch.randint(256, (num, 28, 28), generator=generator, dtype=torch.uint8)
    classes = (torch.arange(num) % 10).to(torch.uint8)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(pictures))
    (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(classes)))
    return pictures


@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
def test_pictures_are_padded_with_black_and_keep_their_values(tmp_path, below):
    pictures = write(tmp_path / below, 23)
    dataset = FashionMNISTDataset(modality=ImageModality(size=32, fit="pad"), root=tmp_path)
    assert len(dataset) == 23
    assert dataset.shape == (1, 32, 32)
    assert dataset.label_counts == {"class": (3, 3, 3, 2, 2, 2, 2, 2, 2, 2)}
    batch = dataset.batch([22, 0, 7])
    assert batch.labels["class"].tolist() == [2, 0, 7]
    inner = ((batch.sample[:, 0, 2:30, 2:30] + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(inner, pictures[[22, 0, 7]])
    frame = torch.ones(32, 32, dtype=torch.bool)
    frame[2:30, 2:30] = False
    assert torch.equal(batch.sample[:, 0][:, frame], torch.full((3, int(frame.sum())), -1.0))
    assert torch.equal(dataset[7].sample, batch.sample[2])
    assert dataset[7].labels == {"class": 7}


def test_held_out_pictures_are_the_test_files(tmp_path):
    write(tmp_path, 5)
    pictures = write(tmp_path, 4, "t10k", seed=1)
    dataset = FashionMNISTDataset(modality=ImageModality(size=28), root=tmp_path, split="held_out")
    assert len(dataset) == 4
    assert torch.allclose(dataset[3].sample[0], pictures[3] / 127.5 - 1)
    with pytest.raises(ValueError, match="held_out"):
        FashionMNISTDataset(modality=ImageModality(), root=tmp_path, split="validation")


def test_labels_can_be_left_out(tmp_path):
    write(tmp_path, 5)
    whole, without = (FashionMNISTDataset(ImageModality(size=28), tmp_path, labels) for labels in ("class", "none"))
    assert dict(without.label_names) == dict(without.batch([1, 3]).labels) == dict(without[2].labels) == {}
    assert torch.equal(without[2].sample, whole[2].sample)
    assert without.fingerprint() != whole.fingerprint()
    with pytest.raises(ValueError, match=r'data.labels must be "class" or "none", got \'subfolder\''):
        FashionMNISTDataset(ImageModality(size=28), tmp_path, "subfolder")


def test_missing_files_tell_where_to_get_them(tmp_path):
    with pytest.raises(ValueError, match=r"apt-get install dataset-fashion-mnist.*torchvision.*data\.root"):
        FashionMNISTDataset(modality=ImageModality(), root=tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (idx(torch.zeros(3, 4, 4, dtype=torch.uint8))[:-1], "47 bytes of data, expected 48"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x00", "no idx file of bytes"),
        (b"", "no idx file of bytes"),
        (b"\x00\x00\x08\x03\x00", "truncated"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, content, said):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}.*{said}"):
        read_idx(path)
    zipped = tmp_path / "train-images-idx3-ubyte.gz"
    zipped.write_bytes(gzip.compress(content + bytes(500))[:-20])
    with pytest.raises(ValueError, match="cannot be read as an idx file"):
        read_idx(zipped)


def test_labels_that_do_not_fit_are_refused(tmp_path):
    write(tmp_path, 6)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(torch.arange(5, dtype=torch.uint8))))
    with pytest.raises(ValueError, match="6 pictures"):
        FashionMNISTDataset(modality=ImageModality(), root=tmp_path)
    labels.write_bytes(gzip.compress(idx(torch.full((6,), 11, dtype=torch.uint8))))
    with pytest.raises(ValueError, match="class 11, expected 0 to 9"):
        FashionMNISTDataset(modality=ImageModality(), root=tmp_path)


@pytest.mark.slow
def test_the_real_files_are_found_and_balanced():
    train = FashionMNISTDataset(modality=ImageModality())
    test = FashionMNISTDataset(modality=ImageModality(), split="held_out")
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.label_names == {"class": FASHION_CLASSES}
    assert train.label_counts == {"class": (6_000,) * 10}
    pixels = train.batch(range(0, 60_000, 30)).sample[..., 2:30, 2:30]
    # The published mean and deviation of Fashion-MNIST in [0, 1].
    assert abs(float(pixels.mean() + 1) / 2 - 0.2860) < 0.01
    assert abs(float(pixels.std()) / 2 - 0.3530) < 0.01


def test_a_file_that_unpacks_to_gigabytes_is_refused_before_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr("scm_media.data.idx.MAX_BYTES", 1 << 16)
    bomb = tmp_path / "train-images-idx3-ubyte.gz"
    bomb.write_bytes(gzip.compress(b"\x00\x00\x08\x01" + bytes(1 << 20)))
    with pytest.raises(ValueError, match="unpacks to more than 65536 bytes"):
        read_idx(bomb)

"""Fashion-MNIST from its idx files, held in memory as bytes."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from scm_media.data.dataset import Dataset, check_split, count_classes
from scm_media.data.examples import Batch, Example
from scm_media.modality import Modality
from scm_media.parts import part

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""The folder of Debian's package dataset-fashion-mnist."""

MAX_BYTES = 1 << 28
"""The size of an unpacked file at most; those of Fashion-MNIST have up to 47 MB."""

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_REMEDY = (
    "`apt-get install dataset-fashion-mnist` puts them where they are found by themselves; elsewhere "
    "`python -c \"from torchvision.datasets import FashionMNIST; FashionMNIST('data', download=True)\"` "
    "and then data.root=data"
)
_PREFIXES = {"train": "train", "held_out": "t10k"}


def read_idx(path: Path) -> Tensor:
    """Returns the bytes of an idx file, gzipped or not, as a uint8 tensor of the dimensions in its header.

    Raises ValueError for a file that is truncated, of another kind, or holds no bytes.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as an idx file: {error}") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} unpacks to more than {MAX_BYTES} bytes, so it is no file of Fashion-MNIST")
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is no idx file of bytes: it begins with {content[:4].hex(' ')}, expected 00 00 08")
    num_dimensions = content[3]
    start = 4 + 4 * num_dimensions
    shape = [int.from_bytes(content[first : first + 4], "big") for first in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise ValueError(
            f"{path} holds {len(content) - start} bytes of data, expected {math.prod(shape)} for {shape}; "
            "the file is truncated or damaged: fetch it again"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)


def _find(root: str | Path | None, name: str) -> Path:
    """Returns the idx file of this name, gzipped or not, in the folder or where torchvision puts it below."""
    start = DEBIAN_FOLDER if root is None else Path(root).expanduser()
    for folder in (start, start / "FashionMNIST" / "raw", start / "raw"):
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    raise ValueError(f"no Fashion-MNIST file {name} or {name}.gz in {start} (data.root): {_REMEDY}")


@part("data")
class FashionMNISTDataset(Dataset):
    """60,000 grey pictures 28×28 of ten kinds of clothes, label "class"; held out: the 10,000 test pictures.

    labels: "class", or "none" for networks that take no label. Raises ValueError for any other.
    """

    def __init__(
        self, modality: Modality, root: str | Path | None = None, labels: str = "class", split: str = "train"
    ) -> None:
        check_split(split)
        if labels not in ("class", "none"):
            raise ValueError(f'data.labels must be "class" or "none", got {labels!r}')
        self.modality = modality
        prefix = _PREFIXES[split]
        pictures = _find(root, f"{prefix}-images-idx3-ubyte")
        self._pixels = read_idx(pictures)
        if self._pixels.ndim != 3 or len(self._pixels) == 0:
            raise ValueError(
                f"{pictures} holds no pictures: dimensions {list(self._pixels.shape)}, expected (N, 28, 28)"
            )
        self._pixels = self._pixels[:, None]
        self._classes = self._read_classes(_find(root, f"{prefix}-labels-idx1-ubyte"))
        self._source, self._labelled = pictures, labels == "class"
        if self._labelled:
            self.label_names = {"class": FASHION_CLASSES}
            self.label_counts = {"class": count_classes(self._classes, len(FASHION_CLASSES))}
        self.shape = modality.shape()

    def _read_classes(self, path: Path) -> Tensor:
        classes = read_idx(path).long()
        if classes.shape != self._pixels.shape[:1]:
            raise ValueError(
                f"{path} holds labels {list(classes.shape)} for {len(self._pixels)} pictures: fetch both files again"
            )
        if classes.max() >= len(FASHION_CLASSES):
            raise ValueError(f"{path} holds class {int(classes.max())}, expected 0 to {len(FASHION_CLASSES) - 1}")
        return classes

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> Example:
        batch = self.batch([index])
        labels: dict[str, int | float] = {name: int(values[0]) for name, values in batch.labels.items()}
        return Example(batch.sample[0], labels, f"{self._source}#{index}")

    def fields(self, index: int) -> dict[str, str]:
        return {name: names[int(self._classes[index])] for name, names in self.label_names.items()}

    def batch(self, indices: Sequence[int], generators: Sequence[torch.Generator] | None = None) -> Batch:
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        samples = self._pixels[chosen].float().div_(127.5).sub_(1.0)
        labels = {"class": self._classes[chosen]} if self._labelled else {}
        return Batch(self.modality.transform_batch(samples, generators), labels)

    def fingerprint(self) -> str:
        """Returns a digest of pixels and of the classes that are used."""
        digest = hashlib.blake2b(self._pixels.numpy().tobytes(), digest_size=16)
        if self._labelled:
            digest.update(self._classes.numpy().tobytes())
        return digest.hexdigest()

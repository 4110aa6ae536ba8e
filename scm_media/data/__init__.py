"""Datasets, the order in which their examples are seen, and batches of them."""

from scm_media.data.dataset import Dataset
from scm_media.data.examples import Batch, Example, collate
from scm_media.data.folder import FolderDataset
from scm_media.data.idx import FashionMNISTDataset
from scm_media.data.loader import batches, read_ranges, worker_errors
from scm_media.data.manifest import ManifestDataset
from scm_media.data.shapes import ShapesDataset
from scm_media.data.shards import ShardsDataset
from scm_media.data.synthetic import SyntheticDataset

__all__ = [
    "Batch",
    "Dataset",
    "Example",
    "FashionMNISTDataset",
    "FolderDataset",
    "ManifestDataset",
    "ShapesDataset",
    "ShardsDataset",
    "SyntheticDataset",
    "batches",
    "collate",
    "read_ranges",
    "worker_errors",
]

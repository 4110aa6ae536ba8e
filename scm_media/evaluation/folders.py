"""The comparison of a folder of files with another, or with what a model keeps of its training data."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scm_media.data.entries import Entry
from scm_media.data.folder import UNREADABLE, walk
from scm_media.evaluation.features import FeatureNetwork
from scm_media.evaluation.frechet import Moments, frechet_distance, too_few
from scm_media.evaluation.kernel import kernel_distance
from scm_media.evaluation.neighbours import precision_recall
from scm_media.evaluation.reference import Reference, embed
from scm_media.modality import Modality


def evaluate_folders(
    samples_dir: str | Path,
    reference_dir: str | Path,
    modality: Modality,
    network: FeatureNetwork,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Returns Fréchet and kernel distance, precision and recall of one folder's files against another's.

    Samples are transformed to the modality's ``shape()``. Files that cannot be read are counted in ``rejects`` by
    folder and reason. ``too_few`` is True where a folder has no more files than the features have dimensions: the
    Fréchet distance then says little. Raises ValueError where a folder has fewer than five files that can be read.
    """
    sides = {"samples": Path(samples_dir), "reference": Path(reference_dir)}
    features, rejects = {}, {}
    for side, folder in sides.items():
        features[side], rejects[side] = _embed_folder(folder, modality, network, batch_size, device, progress)
    samples, reference = (Moments.of(features[side]) for side in sides)
    num = min(map(len, features.values()))
    precision, recall = precision_recall(features["reference"][:num], features["samples"][:num])
    return {
        "features": network.describe(features["samples"].shape[1], num),
        "shape": list(modality.shape()),
        "num_samples": len(features["samples"]),
        "num_reference": len(features["reference"]),
        "too_few": too_few(features["samples"].shape[1], *map(len, features.values())),
        "rejects": rejects,
        "frechet": frechet_distance(samples.mean, samples.covariance, reference.mean, reference.covariance),
        "kernel": kernel_distance(features["samples"], features["reference"]),
        "precision": precision,
        "recall": recall,
    }


def evaluate_folder(
    samples_dir: str | Path,
    modality: Modality,
    network: FeatureNetwork,
    reference: Reference,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Returns Fréchet distance, precision and recall of a folder's files against a model's training data.

    reference: the statistics of the data in the features of the network. ``frechet_held_out`` is the Fréchet distance
    of ``num_held_out`` held-out samples: as many as files, or the nearest number that was measured. Otherwise as
    ``evaluate_folders``.
    """
    features, rejects = _embed_folder(Path(samples_dir), modality, network, batch_size, device, progress)
    precision, recall = reference.precision_recall(features)
    return {
        "features": network.describe(features.shape[1], min(len(features), len(reference.neighbours))),
        "shape": list(modality.shape()),
        "num_samples": len(features),
        "num_reference": reference.num_train,
        "too_few": too_few(features.shape[1], len(features), reference.num_train),
        "rejects": {"samples": rejects},
        "frechet": reference.frechet(features),
        "frechet_held_out": reference.held_out_distance(len(features)),
        "num_held_out": reference.nearest_held_out(len(features)),
        "precision": precision,
        "recall": recall,
    }


def _embed_folder(
    folder: Path,
    modality: Modality,
    network: FeatureNetwork,
    batch_size: int,
    device: torch.device | str,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[Tensor, dict[str, int]]:
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give one that holds {', '.join(sorted(modality.suffixes))} files")
    rejects: Counter[str] = Counter()

    def unreadable(folder: Path, problem: str) -> None:
        rejects[f"{UNREADABLE}: {problem}"] += 1

    files = sorted(file for file in walk(folder, modality, unreadable) if _is_sample(file, modality))
    features, batch = [], []
    for done, file in enumerate(files, 1):
        try:
            batch.append(Entry(file, file.name).read_transformed(modality, None)[0])
        except ValueError as error:
            rejects[str(error).replace(str(file), "").strip(" :")] += 1
        if batch and (len(batch) == batch_size or done == len(files)):
            features.append(embed(network, torch.stack(batch).to(device)))
            batch = []
        if progress is not None:
            progress(str(folder), done, len(files))
    num = sum(map(len, features))
    if num < 5:
        raise ValueError(
            f"{folder} has {num} usable files of {len(files)} ({dict(rejects) or 'none rejected'}), expected at least 5"
            f" with the suffixes {', '.join(sorted(modality.suffixes))}"
        )
    order = torch.randperm(num, generator=torch.Generator().manual_seed(0))  # the first files may be of one class
    return torch.cat(features)[order], dict(rejects)


def _is_sample(path: Path, modality: Modality) -> bool:
    if os.path.isdir(path):  # ``walk`` yields a folder that is one sample, or a hidden one
        return not path.name.startswith(".")
    return path.suffix.lower() in modality.suffixes

"""The cache of latents of a run: used by the stages that train on latents when it fits, refused when it does not."""

from __future__ import annotations

from pathlib import Path

from scm_media import weights
from scm_media.data import Dataset, LatentDataset
from scm_media.data.latents import MANIFEST, Manifest, check_same
from scm_media.training.context import Context

STAGES = ("teacher", "guide", "student")
"""What trains on latents."""
MADE_OF = ("autoencoder", "dataset", "modality", "num", "shape")
"""Keys of a manifest that must fit the run; how it is stored may be as it likes."""


def folder_of(context: Context, split: str) -> Path:
    """Where the latents of a split are, or would be."""
    return context.run_dir / "latents" / split


def examples(context: Context) -> tuple[Dataset, Dataset]:
    """What these stages train on, and what is held out: cached latents where the run has them, else the data.

    Raises ValueError where the cache is incomplete, or of another autoencoder, modality or dataset.
    """
    found = []
    for split, data in splits(context).items():
        folder = folder_of(context, split)
        if not (folder / MANIFEST).exists():
            if folder.parent.exists():
                raise ValueError(
                    f"{folder} has no {MANIFEST}, so {folder.parent} is not complete: run scm-media encode with the "
                    "same recipe, or delete it to train without"
                )
            return context.data, context.held_out
        check_same(folder, manifest_of(context, data), MADE_OF)
        found.append(LatentDataset(folder, data))
    return found[0], found[1]


def splits(context: Context) -> dict[str, Dataset]:
    """Name of each split to its examples."""
    return {"train": context.data, "held_out": context.held_out}


def manifest_of(context: Context, data: Dataset) -> Manifest:
    """What latents of these examples would be made of in this run; ValueError where they cannot be kept."""
    if (fingerprint := data.fingerprint()) is None:
        raise ValueError(
            f"{type(data).__name__} does not tell which examples it holds, so that a cache of its latents could not be "
            "told from another's: give it a method fingerprint() -> str"
        )
    if data.buckets is not None:
        raise ValueError("latents are kept in one shape: set modality.buckets=null, or train without the cache")
    settings = context.config["latents"]
    return Manifest(
        autoencoder=weights.digest(weights.read(context.weights_file("autoencoder"))),
        dataset=fingerprint,
        modality=context.config["modality"],
        num=len(data),
        variants=settings["variants"],
        shape=list(context.latent_shape),
        dtype=settings["dtype"],
        shard_size=settings["shard_size"],
    )

"""Encoding a recipe's data into the latent cache of its run, and solving its teacher's trajectories."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scm_media.data import worker_errors
from scm_media.processes import Share, own_share, wait_until
from scm_media.training.context import Context, prepare
from scm_media.training.devices import check_device
from scm_media.training.run_folder import claim
from scm_media.training.texts import has_texts, read_texts, write_texts
from scm_media.training.trajectories import find_missing_shards, has_manifest, write_trajectories


def encode(config: dict[str, Any], progress: Callable[[str, int, int], None] | None = None) -> dict[str, Any]:
    """Encodes both splits of a recipe's data into ``<run_dir>/latents`` and returns what was done.

    The result has folder, examples (encoded now), variants of each, and seconds. Existing shards are kept. Raises
    ValueError when the autoencoder has not been trained, when latents of something else lie there, when another run is
    using the folder, and where random augmentation would be fixed for good by a single variant.
    """
    context, share = _prepare_share(config)
    if share.rank > 0:
        with worker_errors():
            return write_latents(context, progress, share)
    with claim(context.run_dir), worker_errors():
        write_texts(context, progress)
        done = write_latents(context, progress, share)
        wait_until(lambda: not context.latent_cache.find_missing())
        return done


def write_latents(
    context: Context, progress: Callable[[str, int, int], None] | None = None, share: Share | None = None
) -> dict[str, Any]:
    """Encodes the examples that a run's latents lack; result and errors are those of ``encode``.

    share: the process's share, where several encode.
    """
    config, cache = context.config, context.latent_cache
    autoencoder = context.load_trained("autoencoder").to(context.device)
    check_variants(context)

    def to_latents(sample: Tensor) -> Tensor:
        with torch.no_grad():
            return autoencoder.encode(sample.to(context.device))

    start = time.monotonic()
    workers = config["trainer"]["num_workers"]
    encoded = cache.write(to_latents, autoencoder.latent_mask, config["seed"], workers, progress, share)
    return {
        "folder": cache.folder,
        "examples": encoded,
        "variants": config["latents"]["variants"],
        "seconds": time.monotonic() - start,
    }


def solve_trajectories(
    config: dict[str, Any], progress: Callable[[str, int, int], None] | None = None
) -> dict[str, Any]:
    """Solves the trajectories that a recipe's run lacks, a part of them in each process of torchrun.

    The result and the errors are those of ``write_trajectories``; ValueError as well when another run is using the
    folder.
    """
    context, share = _prepare_share(config)
    if share.rank > 0:
        wait_until(lambda: has_texts(context) and has_manifest(context))  # both by the first process
        read_texts(context)
        return write_trajectories(context, share.rank, share.world, progress)
    with claim(context.run_dir):
        write_texts(context, progress)
        read_texts(context)
        done = write_trajectories(context, share.rank, share.world, progress)
        wait_until(lambda: not find_missing_shards(context))
        return done


def _prepare_share(config: dict[str, Any]) -> tuple[Context, Share]:
    """Returns the context of a recipe, on the device of this process, and the process's share in the work."""
    check_device(config)
    context, share = prepare(config), own_share()
    if share.world > 1 and context.device.type == "cuda":
        torch.cuda.set_device(share.local_rank)
    return context, share


def check_variants(context: Context) -> None:
    """Raises ValueError where the number of variants does not fit a modality that augments, or does not."""
    variants = context.config["latents"]["variants"]
    augments = context.modality.augments
    if augments and variants == 1:
        raise ValueError(
            "the recipe augments at random (modality.flip, modality.random_crop, modality.crop=random, modality.gain), "
            "which latents of one variant cannot: set latents.variants=K for K random variants of each example, or "
            "switch that off"
        )
    if variants > 1 and not augments:
        raise ValueError(
            f"latents.variants={variants}, but the modality does not augment, so that all would be the same: "
            "set latents.variants=1, or for example modality.flip=true"
        )

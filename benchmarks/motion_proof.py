"""Tests whether a video's Fréchet distance sees time: real videos against the same shuffled, frozen and reversed.

    scm-media train video/scenes stage=feature_extractor
    python benchmarks/motion_proof.py runs/video/scenes/main [-n 2048] [--data MANIFEST] [--frames]

The distance is taken in the features of the run's own network (``modalities.video.features.MotionNetwork``). Of each
kind, n held-out samples are compared with n training samples as filmed. The first row, held-out samples as filmed, is
the held-out distance. The network sees time if every other row is at least 5 times as far: the exit code is 1 where one
is not.

``--frames`` adds the per-frame image distance: the same samples frame by frame, in the features of EfficientNet-Lite0
(ImageNet, projected to 128 dimensions). Shuffled and reversed samples have the same frames, so that it cannot tell them
from real ones: the column shows that, and measures no motion.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from samples import add_output_flags, data_of, print_figures, say
from torch import Tensor

from modalities.video.features import ORDERS, FrameNetwork, reorder_frames
from scm_media import weights
from scm_media.build import build
from scm_media.data import Dataset
from scm_media.evaluation.features import FeatureNetwork, project_features
from scm_media.evaluation.frechet import Moments, frechet_distance
from scm_media.pipeline import ModelFolder

BATCH_SIZE = 64
MIN_RATIO = 5.0
COLUMNS = {
    "frechet": "Fréchet distance",
    "ratio": "over the held-out distance",
    "per_frame": "per-frame image distance",
    "num": "samples",
}

Features = Callable[[Tensor], Tensor]
"""Maps samples ``(B, C, T, H, W)`` to features ``(N, d)``, one or several a sample."""


@torch.inference_mode()
def measure_moments(
    dataset: Dataset, num: int, orders: Sequence[str], features: Mapping[str, Features]
) -> dict[str, Any]:
    """Returns moments by order and kind of features, of ``num`` samples that a fixed seed chooses."""
    chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:num].tolist()
    generator = torch.Generator().manual_seed(1)
    found: dict[str, dict[str, Moments]] = {order: {} for order in orders}
    for first in range(0, len(chosen), BATCH_SIZE):
        sample = dataset.batch(chosen[first : first + BATCH_SIZE]).sample
        for order in orders:
            reordered = reorder_frames(sample, order, generator)
            for name, network in features.items():
                values = network(reordered)
                found[order].setdefault(name, Moments(values.shape[1])).update(values)
        say(f"{min(first + BATCH_SIZE, len(chosen))} of {len(chosen)} samples")
    return found


def compare_orders(
    train: Dataset, held_out: Dataset, num: int, features: Mapping[str, Features]
) -> list[dict[str, Any]]:
    """Returns a row for each order: Fréchet distances to training samples, and their ratio to the held-out distance."""
    real = measure_moments(train, num, ("forward",), features)["forward"]
    reordered = measure_moments(held_out, num, ORDERS, features)
    rows = []
    for order in ORDERS:
        distances = {
            name: frechet_distance(own.mean, own.covariance, real[name].mean, real[name].covariance)
            for name, own in reordered[order].items()
        }
        name = "as filmed (two real halves)" if order == "forward" else order
        rows.append({"samples": name, "order": order, "num": num, "per_frame": None, **distances})
    return [{**row, "ratio": row["frechet"] / max(rows[0]["frechet"], 1e-12)} for row in rows]


def load_networks(folder: ModelFolder, shape: Sequence[int], frames: bool) -> dict[str, Features]:
    """Returns the features of the run's own network and, where ``frames``, those of single frames."""
    component = folder.read("feature_extractor")
    network = build(component.config, "feature_extractor")
    weights.load_into(network, component.state, folder.file("feature_extractor"))
    found: dict[str, Features] = {"frechet": network.eval().features}
    if frames:
        from modalities.image.imagenet import EfficientNetLite0

        pictures = project_features(FeatureNetwork("frames", EfficientNetLite0()), (shape[0], *shape[2:]))
        of_frames = FrameNetwork(pictures)
        found["per_frame"] = lambda sample: of_frames.frame_features(sample).flatten(0, 1)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, measures, prints a table (or one JSON object)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run folder whose stage feature_extractor is done, or a model folder")
    parser.add_argument("-n", "--num", type=int, default=2_048, metavar="N", help="samples a row; default: 2048")
    parser.add_argument("--data", type=Path, metavar="MANIFEST", help="the data's path; default: the recipe's")
    parser.add_argument("--frames", action="store_true", help="the per-frame image distance too")
    add_output_flags(parser)
    parsed = parser.parse_args(arguments)
    folder = ModelFolder.open(parsed.model)
    train, held_out, _ = data_of(folder, parsed.data)
    if parsed.num < 2 or min(len(train), len(held_out)) < parsed.num:
        parser.error(
            f"-n must be between 2 and {min(len(train), len(held_out))} ({len(train)} training samples, "
            f"{len(held_out)} held out: data.held_out), got {parsed.num}"
        )
    rows = compare_orders(train, held_out, parsed.num, load_networks(folder, train.shape, parsed.frames))
    found = {"model": str(parsed.model), "num_samples": parsed.num, "min_ratio": MIN_RATIO, "rows": rows}
    columns = {key: heading for key, heading in COLUMNS.items() if parsed.frames or key != "per_frame"}
    print_figures(found, columns, parsed)
    if blind := [row["order"] for row in rows[1:] if row["ratio"] < MIN_RATIO]:
        sys.exit(f"the network sees too little: {', '.join(blind)} samples lie within {MIN_RATIO:g} held-out distances")


if __name__ == "__main__":
    main()

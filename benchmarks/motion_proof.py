"""Does a video's Fréchet distance see time? Real clips against the same with their frames shuffled, frozen, reversed.

    scm-media train video/scenes stage=feature_extractor
    python benchmarks/motion_proof.py runs/video/scenes/main [-n 2048] [--data MANIFEST] [--frames]

The distance is taken in the features of the run's own network (``modalities.video.features.MotionNetwork``). Of each
kind, n held-out clips stand against n training clips as they were filmed; the first row, held-out clips as they were
filmed, is the floor that two real halves have. The network sees time if every other row is at least 5 floors: the exit
code is 1 where one is not.

``--frames`` adds the per-frame image distance: the same clips frame by frame, in the features of EfficientNet-Lite0
(ImageNet, projected to 128 dimensions). Shuffled and reversed clips have the same frames, so that it cannot tell them
from real ones: it stands here to show that, and is no measure of motion.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from samples import data_of, say, table, write
from torch import Tensor

from modalities.video.features import ORDERS, FrameNetwork, in_order
from scm_media import weights
from scm_media.build import build
from scm_media.data import Dataset
from scm_media.evaluation.features import FeatureNetwork, project_features
from scm_media.evaluation.frechet import Moments, frechet_distance
from scm_media.pipeline import ModelFolder

BATCH_SIZE = 64
LEAST_RATIO = 5.0
COLUMNS = {
    "frechet": "Fréchet distance",
    "ratio": "of the floor",
    "per_frame": "per-frame image distance",
    "num": "clips",
}

Features = Callable[[Tensor], Tensor]
"""From clips ``(B, C, T, H, W)`` to features ``(N, d)``, one or several a clip."""


@torch.inference_mode()
def moments(dataset: Dataset, num: int, orders: Sequence[str], features: Mapping[str, Features]) -> dict[str, Any]:
    """For each order and each kind of features the moments of ``num`` clips, drawn by a fixed seed and read once."""
    chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:num].tolist()
    generator = torch.Generator().manual_seed(1)
    found: dict[str, dict[str, Moments]] = {order: {} for order in orders}
    for first in range(0, len(chosen), BATCH_SIZE):
        sample = dataset.batch(chosen[first : first + BATCH_SIZE]).sample
        for order in orders:
            posed = in_order(sample, order, generator)
            for name, network in features.items():
                rows = network(posed)
                found[order].setdefault(name, Moments(rows.shape[1])).update(rows)
        say(f"{min(first + BATCH_SIZE, len(chosen))} of {len(chosen)} clips")
    return found


def proof(train: Dataset, held_out: Dataset, num: int, features: Mapping[str, Features]) -> list[dict[str, Any]]:
    """A row an order: Fréchet distances of held-out clips to training clips, and the first as shares of the floor."""
    real = moments(train, num, ("forward",), features)["forward"]
    posed = moments(held_out, num, ORDERS, features)
    rows = []
    for order in ORDERS:
        distances = {
            name: frechet_distance(own.mean, own.covariance, real[name].mean, real[name].covariance)
            for name, own in posed[order].items()
        }
        name = "as filmed (two real halves)" if order == "forward" else order
        rows.append({"clips": name, "order": order, "num": num, "per_frame": None, **distances})
    return [{**row, "ratio": row["frechet"] / max(rows[0]["frechet"], 1e-12)} for row in rows]


def networks(folder: ModelFolder, shape: Sequence[int], frames: bool) -> dict[str, Features]:
    """The run's own network and, if wanted, that of frames."""
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
    parser.add_argument("model", help="a run folder whose stage feature extractor is done, or a model folder")
    parser.add_argument("-n", "--num", type=int, default=2_048, metavar="N", help="clips a row; default: 2048")
    parser.add_argument("--data", type=Path, metavar="MANIFEST", help="where the data lie; default: the recipe's place")
    parser.add_argument("--frames", action="store_true", help="the per-frame image distance too")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the figures there")
    asked = parser.parse_args(arguments)
    folder = ModelFolder.open(asked.model)
    train, held_out, _ = data_of(folder, asked.data)
    if asked.num < 2 or min(len(train), len(held_out)) < asked.num:
        parser.error(
            f"-n must be between 2 and {min(len(train), len(held_out))} ({len(train)} clips to train on, "
            f"{len(held_out)} held out: data.held_out), got {asked.num}"
        )
    rows = proof(train, held_out, asked.num, networks(folder, train.shape, asked.frames))
    found = {"model": str(asked.model), "num_samples": asked.num, "least_ratio": LEAST_RATIO, "rows": rows}
    columns = {key: heading for key, heading in COLUMNS.items() if asked.frames or key != "per_frame"}
    print(json.dumps(found, ensure_ascii=False) if asked.json else table(rows, columns))
    write(found, asked.out)
    if blind := [row["order"] for row in rows[1:] if row["ratio"] < LEAST_RATIO]:
        sys.exit(f"the network does not see enough: {', '.join(blind)} clips lie within {LEAST_RATIO:g} floors")


if __name__ == "__main__":
    main()

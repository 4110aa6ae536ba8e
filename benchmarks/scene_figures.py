"""What figures of a model of videos are to be read against: recordings, and what its autoencoder leaves of them.

    python benchmarks/scene_figures.py MODEL [--rows teacher 1 2] [-n 2048] [--frames] [--data MANIFEST]

First come clips that training held out and the same through the autoencoder alone (the ceiling: no model that draws
latents can be nearer to the data than that), then what the model makes in each way of --rows. ``distance`` is the
Fréchet distance to the training data in the features of the model's own network, which sees motion; ``label told`` the
share of clips whose label that network tells. ``per-frame image distance`` (--frames) is the Fréchet distance of
single frames to those of as many training clips in EfficientNet-Lite0's features (ImageNet, projected to 128
dimensions): blind to their order, and no measure of motion. ``dB`` is how well the autoencoder gives recordings back.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from samples import BATCH_SIZE, Samples, data_of, generated, recordings, say, table, through_autoencoder, write
from torch import Tensor

from modalities.video.features import FrameNetwork
from scm_media import load
from scm_media.evaluation.features import FeatureNetwork, project_features
from scm_media.evaluation.frechet import Moments, frechet_distance
from scm_media.evaluation.recipe_data import own_reference
from scm_media.pipeline import Pipeline
from scm_media.reconstruction import psnr

COLUMNS = {
    "evaluations": "evaluations",
    "frechet": "distance",
    "told": "label told",
    "per_frame": "per-frame image distance",
    "psnr": "dB",
    "num": "clips",
}


@torch.inference_mode()
def figures(clips: Samples, pipeline: Pipeline, of_frames: Callable[[Tensor], float] | None) -> dict[str, Any]:
    """A row of the table."""
    feature_extractor = pipeline.network("feature_extractor")
    features, right = [], []
    for first in range(0, len(clips), BATCH_SIZE):
        part = clips.samples[first : first + BATCH_SIZE]
        wanted = pipeline.conditioning(clips.labels[first : first + BATCH_SIZE]).labels
        features.append(feature_extractor.features(part))
        right += [scores.argmax(1) == wanted[name] for name, scores in feature_extractor.logits(part).items()]
    return {
        "clips": clips.name,
        "evaluations": clips.evaluations,
        "frechet": own_reference(pipeline).frechet(torch.cat(features)),
        "told": float(torch.cat(right).float().mean()),
        "per_frame": None if of_frames is None else of_frames(clips.samples),
        "psnr": None,
        "num": len(clips),
    }


def distance_of_frames(real: Tensor) -> Callable[[Tensor], float]:
    """The per-frame image distance of clips ``(N, C, T, H, W)`` to real ones."""
    from modalities.image.imagenet import EfficientNetLite0

    shape = (real.shape[1], *real.shape[3:])
    network = FrameNetwork(project_features(FeatureNetwork("frames", EfficientNetLite0()), shape))

    @torch.inference_mode()
    def moments(samples: Tensor) -> Moments:
        found = None
        for number, part in enumerate(samples.split(BATCH_SIZE)):
            rows = network.frame_features(part).flatten(0, 1)
            found = Moments(rows.shape[1]) if found is None else found
            found.update(rows)
            say(f"frames of {min((number + 1) * BATCH_SIZE, len(samples))} of {len(samples)} clips")
        assert found is not None
        return found

    wanted = moments(real)

    def distance(samples: Tensor) -> float:
        own = moments(samples)
        return frechet_distance(own.mean, own.covariance, wanted.mean, wanted.covariance)

    return distance


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, measures, prints a table (or one JSON object)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run folder, a model folder or a bundled name")
    parser.add_argument("--rows", nargs="*", default=[], metavar="ROW", help="as of evaluate; default: none")
    parser.add_argument("-n", "--num", type=int, default=2_048, metavar="N", help="clips a row; default: 2048")
    parser.add_argument("--data", type=Path, metavar="MANIFEST", help="where the data lie; default: the recipe's place")
    parser.add_argument("--frames", action="store_true", help="the per-frame image distance too")
    parser.add_argument("--seed", type=int, default=0, metavar="I")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="of what a model makes")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the figures there")
    asked = parser.parse_args(arguments)
    pipeline = load(asked.model, precision=asked.precision)
    train, held_out, _ = data_of(pipeline.folder, asked.data)
    of_frames = distance_of_frames(recordings(train, asked.num).samples) if asked.frames else None
    real = recordings(held_out, asked.num)
    back = through_autoencoder(real, pipeline)
    rows = [figures(clips, pipeline, of_frames) for clips in (real, back)]
    rows[1]["psnr"] = float(psnr(real.samples, back.samples).mean())
    rows += [figures(generated(pipeline, row, asked.num, asked.seed), pipeline, of_frames) for row in asked.rows]
    found = {"model": pipeline.name, "seed": asked.seed, "rows": rows}
    columns = {key: heading for key, heading in COLUMNS.items() if asked.frames or key != "per_frame"}
    print(json.dumps(found, ensure_ascii=False) if asked.json else table(rows, columns))
    write(found, asked.out)


if __name__ == "__main__":
    main()

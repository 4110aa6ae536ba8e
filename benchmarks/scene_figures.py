"""Measures samples of a model of videos beside recordings, and beside what its autoencoder leaves of them.

    python benchmarks/scene_figures.py MODEL [--rows teacher 1 2] [-n 2048] [--frames] [--data MANIFEST]

The first rows are held-out recordings and the same through the autoencoder alone (the ceiling: no model of latents
comes nearer to the data); a row for each of --rows follows. ``distance`` is the Fréchet distance to the training data
in the features of the model's own network, which sees motion. ``label recognised`` is the fraction of samples whose
label that network recognises. ``per-frame image distance`` (--frames) is the Fréchet distance of single frames to those
of as many training samples in EfficientNet-Lite0's features (ImageNet, projected to 128 dimensions), which ignores
their order and measures no motion. ``dB`` is the autoencoder's PSNR on recordings.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from samples import BATCH_SIZE, Samples, add_flags, collect, data_of, draw_recordings, print_figures, say
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
    "accuracy": "label recognised",
    "per_frame": "per-frame image distance",
    "psnr": "dB",
    "num": "samples",
}


@torch.inference_mode()
def figures(samples: Samples, pipeline: Pipeline, frame_distance: Callable[[Tensor], float] | None) -> dict[str, Any]:
    """Returns a row of the table."""
    feature_extractor = pipeline.network("feature_extractor")
    features, right = [], []
    for first in range(0, len(samples), BATCH_SIZE):
        part = samples.samples[first : first + BATCH_SIZE]
        wanted = pipeline.labels.conditioning(samples.labels[first : first + BATCH_SIZE]).labels
        features.append(feature_extractor.features(part))
        right += [scores.argmax(1) == wanted[name] for name, scores in feature_extractor.logits(part).items()]
    return {
        "samples": samples.name,
        "evaluations": samples.evaluations,
        "frechet": own_reference(pipeline).frechet(torch.cat(features)),
        "accuracy": float(torch.cat(right).float().mean()),
        "per_frame": None if frame_distance is None else frame_distance(samples.samples),
        "psnr": None,
        "num": len(samples),
    }


def make_frame_distance(real: Tensor) -> Callable[[Tensor], float]:
    """Returns a function for the per-frame image distance of samples ``(N, C, T, H, W)`` to real ones."""
    from modalities.image.imagenet import EfficientNetLite0

    shape = (real.shape[1], *real.shape[3:])
    network = FrameNetwork(project_features(FeatureNetwork("frames", EfficientNetLite0()), shape))

    @torch.inference_mode()
    def moments(samples: Tensor) -> Moments:
        found = None
        for number, part in enumerate(samples.split(BATCH_SIZE)):
            features = network.frame_features(part).flatten(0, 1)
            found = Moments(features.shape[1]) if found is None else found
            found.update(features)
            say(f"frames of {min((number + 1) * BATCH_SIZE, len(samples))} of {len(samples)} samples")
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
    add_flags(parser, (), 2_048)
    parser.add_argument("--frames", action="store_true", help="the per-frame image distance too")
    parsed = parser.parse_args(arguments)
    pipeline = load(parsed.model, precision=parsed.precision)
    train, held_out, _ = data_of(pipeline.folder, parsed.data)
    frame_distance = make_frame_distance(draw_recordings(train, parsed.num).samples) if parsed.frames else None
    sources = collect(pipeline, held_out, parsed)
    rows = [figures(samples, pipeline, frame_distance) for samples in sources]
    rows[1]["psnr"] = float(psnr(sources[0].samples, sources[1].samples).mean())
    found = {"model": pipeline.name, "seed": parsed.seed, "rows": rows}
    columns = {key: heading for key, heading in COLUMNS.items() if parsed.frames or key != "per_frame"}
    print_figures(found, columns, parsed)


if __name__ == "__main__":
    main()

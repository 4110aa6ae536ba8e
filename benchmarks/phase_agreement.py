"""Measures how far a few iterations of Griffin and Lim improve sounds whose phases a network or peaks give.

    python benchmarks/phase_agreement.py MODEL [-n 128] [--row 2] [--iterations 0 2 4 16 64]

MODEL: one of notes, over a complex or a log-mel spectrogram. Its samples are drawn once and decoded with each number of
``phase_iterations``. The table holds the fraction of pitched samples at the pitch of their label (as in
note_figures.py), the disagreement of frames (the energy between the latent's compressed magnitudes and those of the
sound, over that of the latent's, in dB; for log-mels the bands' square roots), and milliseconds of decoding a sample.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from note_figures import figures, find_pitched_families
from samples import Samples, data_of, format_table, say
from torch import Tensor

from modalities.audio import ComplexSpectrogram, LogMelSpectrogram
from scm_media import load
from scm_media.evaluation.rows import Row

COLUMNS = {
    "pitch": "pitch within 50 cents",
    "num_pitched": "with a pitch",
    "off": "disagreement, dB",
    "ms": "ms a sample",
}


def draw_latents(pipeline: Any, row: str, num: int, seed: int) -> tuple[Tensor, Sequence[Any], int]:
    """Returns latents, labels and evaluations of the samples of a row."""
    front = pipeline.network("autoencoder")
    kept: list[Tensor] = []
    hook = front.decode

    def keep(latent: Tensor) -> Tensor:
        kept.append(latent)
        return hook(latent)

    object.__setattr__(front, "decode", keep)
    made = pipeline(num, seed=seed, **Row.parse(row, pipeline).arguments)
    object.__setattr__(front, "decode", hook)
    return torch.cat(kept), made.labels, made.evaluations


def magnitudes(front: ComplexSpectrogram | LogMelSpectrogram, latent: Tensor) -> Tensor:
    """Returns the compressed magnitudes ``(B, channels, F, K)`` of latents."""
    if isinstance(front, ComplexSpectrogram):
        return latent.unflatten(1, (front.channels, 2)).norm(dim=2)
    return front.mel.bands(front.scale.denormalize(latent)).sqrt()


def disagreement(front: ComplexSpectrogram | LogMelSpectrogram, latent: Tensor, sound: Tensor) -> float:
    """Returns the energy in dB between the compressed magnitudes of a sound and of its latent, over the latent's."""
    wanted, heard = magnitudes(front, latent), magnitudes(front, front.encode(sound))
    return 10 * math.log10(float((wanted - heard).square().sum() / wanted.square().sum()))


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, decodes, listens, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run folder, a model folder or a bundled name")
    parser.add_argument("-n", "--num", type=int, default=128, metavar="N")
    parser.add_argument("--row", default="2", help="as of evaluate; default: 2")
    parser.add_argument("--iterations", type=int, nargs="+", default=[0, 2, 4, 16, 64], metavar="K")
    parser.add_argument("--data", type=Path, metavar="MANIFEST", help="where the data lie; default: the recipe's place")
    parser.add_argument("--seed", type=int, default=0, metavar="I")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    asked = parser.parse_args(arguments)
    pipeline = load(asked.model, "cpu")
    _, _, manifest = data_of(pipeline.folder, asked.data)
    front = pipeline.network("autoencoder")
    if manifest is None or not isinstance(front, ComplexSpectrogram | LogMelSpectrogram):
        parser.error(f"{asked.model} is no model of notes over a complex or a log-mel spectrogram")
    families = find_pitched_families(manifest)
    latent, labels, evaluations = draw_latents(pipeline, asked.row, asked.num, asked.seed)
    rows = []
    for iterations in asked.iterations:
        front.phase_iterations = iterations
        begun = time.perf_counter()
        with torch.inference_mode():
            sound = front.decode(latent)
        seconds = time.perf_counter() - begun
        samples = Samples(f"{iterations} iterations", sound, labels, evaluations)
        say(samples.name)
        found = figures(samples, pipeline.modality.sample_rate, families, None, asked.num)
        rows.append({**found, "off": disagreement(front, latent, sound), "ms": 1e3 * seconds / asked.num})
    print(json.dumps(rows) if asked.json else format_table(rows, COLUMNS))


if __name__ == "__main__":
    main()

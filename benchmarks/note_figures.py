"""Measures of notes how many have the pitch of their label, and how many its family.

    python benchmarks/note_figures.py MODEL [--rows teacher 1 2] [-n 1000] [--data MANIFEST]
    python benchmarks/note_figures.py MODEL --samples FOLDER            files of scm-media generate

Pitch: librosa's pyin (Mauch & Dixon 2014) finds it within 50 cents of the label, octaves included, as the median over
the frames that it calls voiced, of which there must be three. It is measured for families of which at least eight of
ten notes have a pitch by the manifest's column "pitched", so not for percussion and effects. Family: recognised by a
classifier that is trained here on the training recordings, with another seed than the model's own (file --judge).

The first rows are held-out recordings (pyin's own hit rate: the ceiling) and the same through the autoencoder alone;
``of ceiling`` is a row's pitch over that of the recordings.

Samples of a model of texts are made for the texts of examples (``asked``) and are to have their labels; with
``--judge-label instrument`` the classifier tells the 128 instruments apart.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from asked import HELD_OUT, SEEN, add_wording_flag, collect_asked, open_texts
from samples import (
    Judge,
    Samples,
    add_flags,
    add_listening_flags,
    collect,
    data_of,
    print_figures,
    read_recipe,
    say,
    with_label,
)

from scm_media import load

LOWEST_HERTZ, HIGHEST_HERTZ = 26.0, 4_400.0
"""The range of the piano's keys, widened by half a semitone."""

MIN_FRAMES = 3
CENTS = 50
MIN_PITCHED = 0.8
COLUMNS = {
    "evaluations": "evaluations",
    "texts": "texts",
    "pitch": f"pitch within {CENTS} cents",
    "pitch_of_ceiling": "of ceiling",
    "num_pitched": "samples with a pitch",
    "recognised": "label recognised",
    "num": "samples",
}


def estimate_pitch(wave: np.ndarray, rate: int) -> float:
    """Returns the pitch of a mono sound ``(T,)`` as a MIDI number with a fraction; NaN where it has none."""
    import librosa

    frame = 2 ** math.ceil(math.log2(2 * rate / LOWEST_HERTZ))
    hertz, voiced, _ = librosa.pyin(
        wave, fmin=LOWEST_HERTZ, fmax=min(HIGHEST_HERTZ, rate / 2.1), sr=rate, frame_length=frame, resolution=0.2
    )
    pitched = hertz[voiced]
    return 69 + 12 * math.log2(float(np.median(pitched)) / 440) if len(pitched) >= MIN_FRAMES else math.nan


def find_pitched_families(manifest: Path) -> list[str]:
    """Returns the families of which most notes have a pitch; raises ValueError for a manifest without the column."""
    notes, pitched = Counter[str](), Counter[str]()
    for line in manifest.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "pitched" not in row:
            raise ValueError(f"{manifest} has no column pitched; examples/render_notes.py writes it")
        notes[row["family"]] += 1
        pitched[row["family"]] += row["pitched"]
    return [family for family, num in notes.items() if pitched[family] >= MIN_PITCHED * num]


def figures(
    texts: str | None, samples: Samples, rate: int, families: Sequence[str], judge: Judge | None, num_pitch: int
) -> dict[str, Any]:
    """Returns a row of the table, with the pitch of the first ``num_pitch`` samples of the families that have one."""
    pitched = [index for index, label in enumerate(samples.labels) if label["family"] in families][:num_pitch]
    within = []
    for done, index in enumerate(pitched, 1):
        pitch = estimate_pitch(samples.samples[index].mean(0).numpy(), rate)
        within.append(abs(pitch - float(samples.labels[index]["pitch"])) * 100 <= CENTS)
        if done % 100 == 0:
            say(f"{samples.name}: pitch of {done} of {len(pitched)} samples")
    return {
        "samples": samples.name,
        "texts": texts,
        "evaluations": samples.evaluations,
        "pitch": sum(within) / len(within) if within else None,
        "num_pitched": len(within),
        "recognised": None if judge is None else float(judge.recognise(samples).float().mean()),
        "num": len(samples),
    }


def add_ratio_to_ceiling(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows with the ratio of their pitch to that of recordings of the same texts, or of the first row."""
    ceilings = {row["texts"]: row["pitch"] for row in rows if row["samples"] == "recordings"}
    found = []
    for row in rows:
        ceiling, pitch = ceilings.get(row["texts"], rows[0]["pitch"]), row["pitch"]
        found.append({**row, "pitch_of_ceiling": pitch / ceiling if ceiling and pitch is not None else None})
    return found


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, measures, prints a table (or one JSON object)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, ("teacher", "1", "2"), 1_000)
    add_listening_flags(parser, "family", 1_500)
    add_wording_flag(parser)
    parser.add_argument("--judge-label", default="family", metavar="LABEL", help="what the classifier recognises")
    parser.add_argument("--num-pitch", type=int, default=1_000, metavar="N", help="of them whose pitch is estimated")
    parsed = parser.parse_args(arguments)
    pipeline = load(parsed.model, precision=parsed.precision)
    train, held_out, manifest = data_of(pipeline.folder, parsed.data, parsed.judge_label)
    if manifest is None:
        parser.error(f"{parsed.model} was not trained on a manifest of notes; see examples/render_notes.py")
    families = find_pitched_families(manifest)
    judge = None
    if parsed.judge_steps:
        judge = Judge.train_or_load(train, parsed.judge_label, parsed.judge, parsed.judge_steps, say=say)
    sources: Iterable[tuple[str | None, Samples]]
    if pipeline.text is None:
        sources = ((None, samples) for samples in collect(pipeline, held_out, parsed))
    else:
        config = with_label(read_recipe(pipeline.folder), parsed.judge_label)
        seen, unseen = open_texts(config, parsed.data)
        sources = collect_asked(pipeline, {HELD_OUT: unseen, SEEN: seen}, parsed)
    rate = pipeline.modality.sample_rate
    rows = add_ratio_to_ceiling([figures(*source, rate, families, judge, parsed.num_pitch) for source in sources])
    found = {"model": pipeline.name, "seed": parsed.seed, "pitched_families": families, "rows": rows}
    print_figures(found, COLUMNS, parsed)


if __name__ == "__main__":
    main()

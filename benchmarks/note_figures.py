"""What a listener would check of notes: are they at the pitch that was asked for, and of the family?

    python benchmarks/note_figures.py MODEL [--rows teacher 1 2] [-n 1000] [--data MANIFEST]
    python benchmarks/note_figures.py MODEL --samples FOLDER            clips that scm-media generate wrote

Pitch: librosa's pyin (Mauch & Dixon 2014) hears it within 50 cents of the label, octaves included: the median over the
frames that it calls voiced, of which there must be three. Told of the families of which at least eight of ten notes
have a pitch, by the manifest's column "pitched"; so not of percussion and effects. Family: a classifier that was
trained here, on the training recordings, with another seed than the model's own (kept in --judge).

First come the figures of recordings that were held out (pyin's own hit rate: the ceiling) and of the same through the
autoencoder alone; ``of ceiling`` is a row's pitch over that of the recordings.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from samples import Judge, Samples, data_of, from_folder, generated, recordings, say, table, through_autoencoder, write

from scm_media import load

LOWEST_HERTZ, HIGHEST_HERTZ = 26.0, 4_400.0
"""Half a semitone below the piano's lowest key, most of one above its highest."""

FEWEST_FRAMES = 3
CENTS = 50
PITCHED_SHARE = 0.8
COLUMNS = {
    "evaluations": "evaluations",
    "pitch": f"pitch within {CENTS} cents",
    "pitch_of_ceiling": "of ceiling",
    "pitch_clips": "clips with a pitch",
    "family": "family heard",
    "num": "clips",
}


def heard_pitch(wave: np.ndarray, rate: int) -> float:
    """The MIDI number, with its fraction, at which a mono sound ``(T,)`` is heard; NaN where no pitch is."""
    import librosa

    frame = 2 ** math.ceil(math.log2(2 * rate / LOWEST_HERTZ))
    hertz, voiced, _ = librosa.pyin(
        wave, fmin=LOWEST_HERTZ, fmax=min(HIGHEST_HERTZ, rate / 2.1), sr=rate, frame_length=frame, resolution=0.2
    )
    heard = hertz[voiced]
    return 69 + 12 * math.log2(float(np.median(heard)) / 440) if len(heard) >= FEWEST_FRAMES else math.nan


def pitched_families(manifest: Path) -> list[str]:
    """The families of which most notes have a pitch; ValueError where the manifest does not tell."""
    notes, pitched = Counter[str](), Counter[str]()
    for line in manifest.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "pitched" not in row:
            raise ValueError(f"{manifest} has no column pitched; examples/render_notes.py writes it")
        notes[row["family"]] += 1
        pitched[row["family"]] += row["pitched"]
    return [family for family, num in notes.items() if pitched[family] >= PITCHED_SHARE * num]


def figures(clips: Samples, rate: int, families: Sequence[str], judge: Judge | None, num_pitch: int) -> dict[str, Any]:
    """A row of the table; pitch of the first ``num_pitch`` clips of the families that have one."""
    sounding = [place for place, label in enumerate(clips.labels) if label["family"] in families][:num_pitch]
    within = []
    for done, place in enumerate(sounding, 1):
        heard = heard_pitch(clips.samples[place].mean(0).numpy(), rate)
        within.append(abs(heard - float(clips.labels[place]["pitch"])) * 100 <= CENTS)
        if done % 100 == 0:
            say(f"{clips.name}: pitch of {done} of {len(sounding)} clips")
    return {
        "clips": clips.name,
        "evaluations": clips.evaluations,
        "pitch": sum(within) / len(within) if within else None,
        "pitch_clips": len(within),
        "family": None if judge is None else float(judge.right(clips).float().mean()),
        "num": len(clips),
    }


def of_ceiling(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their pitch as a share of the first one's."""
    ceiling = rows[0]["pitch"]
    return [
        {**row, "pitch_of_ceiling": row["pitch"] / ceiling if ceiling and row["pitch"] is not None else None}
        for row in rows
    ]


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, listens, prints a table (or one JSON object)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run folder, a model folder or a bundled name")
    parser.add_argument("--samples", type=Path, metavar="DIR", help="listen to these clips instead of making some")
    parser.add_argument("--rows", nargs="+", default=["teacher", "1", "2"], metavar="ROW", help="as of evaluate")
    parser.add_argument("-n", "--num", type=int, default=1_000, metavar="N", help="clips a row; default: 1000")
    parser.add_argument("--num-pitch", type=int, default=1_000, metavar="N", help="of them whose pitch is heard")
    parser.add_argument("--data", type=Path, metavar="MANIFEST", help="where the data lie; default: the recipe's place")
    parser.add_argument("--judge", type=Path, default=Path("runs/judges/family.safetensors"), metavar="FILE")
    parser.add_argument("--judge-steps", type=int, default=1_500, metavar="N", help="0: families are not told")
    parser.add_argument("--seed", type=int, default=0, metavar="I")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="of what a model makes")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the figures there")
    asked = parser.parse_args(arguments)
    pipeline = load(asked.model, precision=asked.precision)
    train, held_out, manifest = data_of(pipeline.folder, asked.data)
    if manifest is None:
        parser.error(f"{asked.model} was not trained on a manifest of notes; see examples/render_notes.py")
    families = pitched_families(manifest)
    judge = Judge.trained(train, "family", asked.judge, asked.judge_steps, say=say) if asked.judge_steps else None
    real = recordings(held_out, asked.num)
    sources = [real, through_autoencoder(real, pipeline)]
    if asked.samples is not None:
        sources.append(from_folder(asked.samples, pipeline.modality, pipeline.labels))
    else:
        sources += [generated(pipeline, row, asked.num, asked.seed) for row in asked.rows]
    rate = pipeline.modality.sample_rate
    rows = of_ceiling([figures(clips, rate, families, judge, asked.num_pitch) for clips in sources])
    found = {"model": pipeline.name, "seed": asked.seed, "pitched_families": families, "rows": rows}
    print(json.dumps(found, ensure_ascii=False) if asked.json else table(rows, COLUMNS))
    write(found, asked.out)


if __name__ == "__main__":
    main()

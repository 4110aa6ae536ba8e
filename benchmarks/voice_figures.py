"""What a listener would check of voices: is it the voice that was asked for?

    python benchmarks/voice_figures.py MODEL [--rows teacher 1 2] [-n 1000] [--data MANIFEST]
    python benchmarks/voice_figures.py MODEL --samples FOLDER           clips that scm-media generate wrote

The voice is told by a classifier that was trained here, on the training recordings, with another seed than the
model's own (kept in --judge). First come the figures of recordings that were held out (what the classifier tells at
best), and of the same through the autoencoder alone. ``by voice`` is each voice's share, in the order of the classes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from samples import Judge, Samples, data_of, from_folder, generated, recordings, say, table, through_autoencoder, write

from scm_media import load

COLUMNS = {"evaluations": "evaluations", "voice": "voice heard", "by_voice": "by voice", "num": "clips"}


def figures(clips: Samples, judge: Judge) -> dict[str, Any]:
    """A row of the table."""
    right = judge.right(clips).float()
    fractions = []
    for voice in judge.classes:
        own = [place for place, label in enumerate(clips.labels) if label[judge.label] == voice]
        fractions.append(f"{float(right[own].mean()):.2f}" if own else "–")
    return {
        "clips": clips.name,
        "evaluations": clips.evaluations,
        "voice": float(right.mean()),
        "by_voice": " ".join(fractions),
        "num": len(clips),
    }


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, listens, prints a table (or one JSON object)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run folder, a model folder or a bundled name")
    parser.add_argument("--samples", type=Path, metavar="DIR", help="listen to these clips instead of making some")
    parser.add_argument("--rows", nargs="+", default=["teacher", "1", "2"], metavar="ROW", help="as of evaluate")
    parser.add_argument("-n", "--num", type=int, default=1_000, metavar="N", help="clips a row; default: 1000")
    parser.add_argument("--label", default="voice", metavar="NAME", help="of the classes that are told; default: voice")
    parser.add_argument("--data", type=Path, metavar="MANIFEST", help="where the data lie; default: the recipe's place")
    parser.add_argument("--judge", type=Path, default=Path("runs/judges/voice.safetensors"), metavar="FILE")
    parser.add_argument("--judge-steps", type=int, default=800, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="I")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="of what a model makes")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the figures there")
    asked = parser.parse_args(arguments)
    pipeline = load(asked.model, precision=asked.precision)
    train, held_out, _ = data_of(pipeline.folder, asked.data)
    judge = Judge.trained(train, asked.label, asked.judge, asked.judge_steps, say=say)
    real = recordings(held_out, asked.num)
    sources = [real, through_autoencoder(real, pipeline)]
    if asked.samples is not None:
        sources.append(from_folder(asked.samples, pipeline.modality, pipeline.labels))
    else:
        sources += [generated(pipeline, row, asked.num, asked.seed) for row in asked.rows]
    rows = [figures(clips, judge) for clips in sources]
    found = {"model": pipeline.name, "seed": asked.seed, "voices": judge.classes, "rows": rows}
    print(json.dumps(found, ensure_ascii=False) if asked.json else table(rows, COLUMNS))
    write(found, asked.out)


if __name__ == "__main__":
    main()

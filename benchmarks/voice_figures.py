"""Measures of voices how many samples have the voice of their label.

    python benchmarks/voice_figures.py MODEL [--rows teacher 1 2] [-n 1000] [--data MANIFEST]
    python benchmarks/voice_figures.py MODEL --samples FOLDER           files of scm-media generate

The voice is recognised by a classifier that is trained here on the training recordings, with another seed than the
model's own (file --judge). The first rows are held-out recordings (the best that the classifier reaches) and the same
through the autoencoder alone. ``by voice`` is the fraction of each voice, in the order of the classes.
"""

from __future__ import annotations

import argparse
from typing import Any

from samples import Judge, Samples, add_flags, add_listening_flags, collect, data_of, print_figures, say

from scm_media import load

COLUMNS = {"evaluations": "evaluations", "voice": "voice recognised", "by_voice": "by voice", "num": "samples"}


def figures(samples: Samples, judge: Judge) -> dict[str, Any]:
    """Returns a row of the table."""
    right = judge.recognise(samples).float()
    fractions = []
    for voice in judge.classes:
        own = [index for index, label in enumerate(samples.labels) if label[judge.label] == voice]
        fractions.append(f"{float(right[own].mean()):.2f}" if own else "–")
    return {
        "samples": samples.name,
        "evaluations": samples.evaluations,
        "voice": float(right.mean()),
        "by_voice": " ".join(fractions),
        "num": len(samples),
    }


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, measures, prints a table (or one JSON object)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, ("teacher", "1", "2"), 1_000)
    add_listening_flags(parser, "voice", 800)
    parser.add_argument("--label", default="voice", metavar="NAME", help="of the classes; default: voice")
    parsed = parser.parse_args(arguments)
    pipeline = load(parsed.model, precision=parsed.precision)
    train, held_out, _ = data_of(pipeline.folder, parsed.data)
    judge = Judge.train_or_load(train, parsed.label, parsed.judge, parsed.judge_steps, say=say)
    rows = [figures(samples, judge) for samples in collect(pipeline, held_out, parsed)]
    found = {"model": pipeline.name, "seed": parsed.seed, "voices": judge.classes, "rows": rows}
    print_figures(found, COLUMNS, parsed)


if __name__ == "__main__":
    main()

"""``scm-media generate`` writes samples as files, each with a record of how it was made."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

from scm_media.cli.arguments import parser
from scm_media.cli.samples import add_sampling_flags, open_model, print_report, sampling_request, write_samples


def run(arguments: Sequence[str]) -> int:
    """Returns 0 when every sample is written."""
    begun = time.perf_counter()
    pipeline, parsed, sizes = open_model(_parser(), arguments, lambda modality: modality.size_options)

    from scm_media.pipeline.records import describe_sampling

    asked = sampling_request(parsed, sizes, teacher=parsed.teacher)
    request = replace(asked, sampler=parsed.sampler, negative=parsed.negative, walk=_read_walk(parsed.walk))
    batches = pipeline.batches(request)
    report = write_samples(batches, pipeline, parsed, describe_sampling(pipeline, parsed.model, request))
    print_report({**report, "seconds_total": time.perf_counter() - begun}, parsed)
    return 0


def _read_walk(words: Sequence[str] | None) -> tuple[int, float] | None:
    if words is None:
        return None
    try:
        return int(words[0]), float(words[1])
    except ValueError:
        raise ValueError(f"--walk takes a seed and a fraction, such as 7 0.5, got {' '.join(words)}") from None


def _parser() -> argparse.ArgumentParser:
    commands = parser(
        "generate",
        "Generates samples with a model and writes them with recipe, model, seed and label inside each file.\n"
        "With MODEL, --help also lists the model's size options (size, duration …).",
        usage="scm-media generate MODEL [flags]",
    )
    commands.add_argument(
        "--label", metavar="L", help='"Bag" or "family=guitar pitch=60"; default: drawn for each sample'
    )
    commands.add_argument("--negative", metavar="TEXT", help="a text that a guided teacher is steered away from")
    add_sampling_flags(commands, "samples")
    commands.add_argument(
        "--walk",
        nargs=2,
        metavar=("SEED", "FRACTION"),
        help="start from noise on the way to that of another seed: 0 is --seed alone, 1 the other one",
    )
    commands.add_argument("--teacher", action="store_true", help="sample the diffusion teacher instead of the student")
    commands.add_argument(
        "--sampler", metavar="NAME", help="the teacher's: heun, dpm_solver …; default: the model's own"
    )
    return commands

"""``scm-media generate``: clips as files, each carrying in itself how it was made."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

from scm_media.cli.arguments import parser
from scm_media.cli.samples import add_drawing_flags, how_made, open_model, tell, write_samples


def run(arguments: Sequence[str]) -> int:
    """0 when every clip is written."""
    begun = time.perf_counter()
    pipeline, parsed, sizes = open_model(_parser(), arguments, lambda modality: modality.size_options)
    if parsed.prompt is not None:
        labels = ", ".join(pipeline.labels.names) or "none"
        raise ValueError(f"{parsed.model} was not trained with text, so it takes no --prompt; its labels: {labels}")
    batches = pipeline.batches(
        parsed.num,
        parsed.label,
        steps=parsed.steps,
        times=parsed.times,
        guidance=parsed.guidance,
        guidance_interval=parsed.guidance_interval,
        seed=parsed.seed,
        batch_size=parsed.batch_size,
        teacher=parsed.teacher,
        overlap=parsed.overlap,
        actions=parsed.actions,
        **sizes,
    )
    steps = _num_steps(pipeline.settings, parsed)
    made = how_made(pipeline, parsed, steps=steps, sampler=_sampler(pipeline, parsed), **sizes)
    report = write_samples(batches, pipeline, parsed, steps, made)
    tell({**report, "seconds_total": time.perf_counter() - begun}, parsed)
    return 0


def _parser() -> argparse.ArgumentParser:
    commands = parser(
        "generate",
        "Makes clips with a model and writes them with recipe, model, seed and label inside the file.\n"
        "With MODEL, --help also shows the extents that it can be asked for (size, duration …).",
        usage="scm-media generate MODEL [flags]",
    )
    what = commands.add_mutually_exclusive_group()
    what.add_argument("--label", metavar="L", help='"Bag" or "family=guitar pitch=60"; without: drawn for each clip')
    what.add_argument("--prompt", metavar="P", help="text, for models that were trained with it")
    add_drawing_flags(commands, "clips")
    commands.add_argument("--teacher", action="store_true", help="sample the diffusion teacher instead")
    return commands


def _num_steps(settings: Mapping[str, Any], parsed: argparse.Namespace) -> int:
    if parsed.times:
        return len(parsed.times) - parsed.teacher  # a teacher's times end where it arrives
    return parsed.steps or settings.get("teacher_steps" if parsed.teacher else "steps", 32 if parsed.teacher else 2)


def _sampler(pipeline: Any, parsed: argparse.Namespace) -> str:
    return f"teacher, {pipeline.settings.get('teacher', 'heun')}" if parsed.teacher else "consistency"

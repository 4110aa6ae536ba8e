"""``scm-media generate``: clips as files, each carrying in itself how it was made."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scm_media.build import nearest
from scm_media.cli.arguments import add_network_flags, parser
from scm_media.cli.progress import Progress


def run(arguments: Sequence[str]) -> int:
    """0 when every clip is written."""
    begun = time.perf_counter()
    commands = _parser()
    known, _ = commands.parse_known_args(_without_extents(commands, arguments))
    if known.model is None:
        commands.parse_args([word for word in arguments if word in ("-h", "--help")])  # the help, and exits
        commands.error("give a MODEL")
    if known.steps is not None and known.steps < 1:
        raise ValueError(f"--steps must be at least 1, got {known.steps}")

    from scm_media.pipeline import load

    pipeline = load(known.model, known.device, known.precision)
    extents = pipeline.modality.extents
    group = commands.add_argument_group(f"extents of {known.model}")
    for name, extent in extents.items():
        text = f"{extent.help}, in {extent.unit}; default: {extent.default:g}"
        group.add_argument(f"--{name.replace('_', '-')}", dest=f"extent_{name}", type=float, metavar="X", help=text)
    parsed = commands.parse_args(arguments)
    if parsed.prompt is not None:
        labels = ", ".join(pipeline.labels.names) or "none"
        raise ValueError(f"{parsed.model} was not trained with text, so it takes no --prompt; its labels: {labels}")
    given = {name: getattr(parsed, f"extent_{name}") for name in extents}
    report = _generate(pipeline, parsed, {name: value for name, value in given.items() if value is not None})
    report["seconds_total"] = time.perf_counter() - begun
    if parsed.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        for clip in report["clips"]:
            print(clip["path"])
    for remark in report["remarks"]:
        print(f"note: {remark}", file=sys.stderr)
    print(
        f"{len(report['clips'])} clips in {parsed.out}: {report['steps']} steps, {report['evaluations']} evaluations a "
        f"clip, {report['seconds_model']:.2f} s sampling, {report['seconds_decode']:.2f} s decoding",
        file=sys.stderr,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    commands = parser(
        "generate",
        "Makes clips with a model and writes them with recipe, model, seed and label inside the file.\n"
        "With MODEL, --help also shows the extents that it can be asked for (size, duration …).",
        usage="scm-media generate MODEL [flags]",
    )
    commands.add_argument(
        "model", nargs="?", metavar="MODEL", help="a bundled name, a run folder, an exported folder or hf://…"
    )
    what = commands.add_mutually_exclusive_group()
    what.add_argument("--label", metavar="L", help='"Bag" or "family=guitar pitch=60"; without: drawn for each clip')
    what.add_argument("--prompt", metavar="P", help="text, for models that were trained with it")
    commands.add_argument("-n", "--num", type=int, default=1, metavar="N", help="how many clips; default: 1")
    how = commands.add_mutually_exclusive_group()
    how.add_argument("--steps", type=int, metavar="K", help="default: what the model was measured with")
    how.add_argument("--times", type=float, nargs="+", metavar="T", help="radians, descending, instead of --steps")
    commands.add_argument("--guidance", type=float, metavar="S", help="classifier-free guidance scale; 1 is none")
    commands.add_argument(
        "--guidance-interval", type=float, nargs=2, metavar=("LOW", "HIGH"), help="radians of t where guidance acts"
    )
    commands.add_argument("--seed", type=int, default=0, metavar="I", help="clip k depends on (seed, k); default: 0")
    commands.add_argument("--format", metavar="EXT", help="file format; default: the modality's first")
    commands.add_argument("--out", type=Path, default=Path("clips"), metavar="DIR", help="default: clips")
    commands.add_argument("--teacher", action="store_true", help="sample the diffusion teacher instead")
    commands.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    add_network_flags(commands, batch_size=64)
    return commands


def _without_extents(commands: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """The words without help and without extent flags, whose numbers would be taken for the model.

    Which extents there are is known once the model is open; each is a flag with one number.
    """
    kept: list[str] = []
    extent = False
    for word in arguments:
        if extent and _is_number(word):
            extent = False
            continue
        extent = word.startswith("--") and "=" not in word and word not in commands._option_string_actions
        if not extent and word not in ("-h", "--help"):
            kept.append(word)
    return kept


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _generate(pipeline: Any, parsed: argparse.Namespace, extents: Mapping[str, float]) -> dict[str, Any]:
    suffix = _suffix(pipeline.modality, parsed.format)
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
        **extents,
    )
    steps = _num_steps(pipeline.settings, parsed)
    made = {
        "model": parsed.model,
        "recipe": pipeline.name,
        "steps": steps,
        "sampler": _sampler(pipeline, parsed),
        **extents,
    }
    if parsed.guidance is not None:
        made["guidance"] = parsed.guidance
    if parsed.guidance_interval is not None:
        made["guidance_interval"] = parsed.guidance_interval
    report: dict[str, Any] = {
        "clips": [],
        "steps": steps,
        "evaluations": 0,
        "seconds_model": 0.0,
        "seconds_decode": 0.0,
        "remarks": [],
    }
    progress = Progress()
    for clips in batches:
        parsed.out.mkdir(parents=True, exist_ok=True)
        report["evaluations"] = clips.evaluations
        report["seconds_model"] += clips.seconds_model
        report["seconds_decode"] += clips.seconds_decode
        for sample, labels, seed, index in zip(clips.samples, clips.labels, clips.seeds, clips.indices, strict=True):
            label = _label_text(labels)
            path = parsed.out / _file_name(seed, index, label, suffix)
            remark = _write(pipeline.modality, path, sample, {**made, "seed": seed, "index": index, "label": label})
            report["remarks"] += [f"{path}: {remark}"] if remark else []
            report["clips"].append(
                {"path": str(path), "label": label, "prompt": parsed.prompt, "seed": seed, "index": index}
            )
        progress("clips", len(report["clips"]), parsed.num)
    return report


def _write(modality: Any, path: Path, sample: Any, metadata: Mapping[str, Any]) -> str | None:
    """Writes a clip aside and renames it, so that none is half there; what the modality remarks on it.

    Raises OSError that names the file.
    """
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        remark = modality.write(aside, sample, metadata)
        os.replace(aside, path)
        return remark
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"{reason}; free some space or choose another --out", str(path)) from error
    finally:
        aside.unlink(missing_ok=True)


def _num_steps(settings: Mapping[str, Any], parsed: argparse.Namespace) -> int:
    if parsed.times:
        return len(parsed.times) - parsed.teacher  # a teacher's times end where it arrives
    return parsed.steps or settings.get("teacher_steps" if parsed.teacher else "steps", 32 if parsed.teacher else 2)


def _sampler(pipeline: Any, parsed: argparse.Namespace) -> str:
    return f"teacher, {pipeline.settings.get('teacher', 'heun')}" if parsed.teacher else "consistency"


def _suffix(modality: Any, asked: str | None) -> str:
    """The suffix that clips are written with. Raises ValueError for one that the modality does not write."""
    written: Iterable[str] = getattr(modality, "written_suffixes", sorted(modality.suffixes))
    known = list(written)
    if asked is None:
        return known[0]
    suffix = f".{asked.lower().lstrip('.')}"
    if suffix not in known:
        raise ValueError(f"--format {asked}: {modality.name} is written as {', '.join(known)}{nearest(suffix, known)}")
    return suffix


def _label_text(labels: Mapping[str, Any]) -> str | None:
    """The labels as ``--label`` takes them: the class alone where there is one label, ``name=value`` where more."""
    if len(labels) <= 1:
        return next((str(value) for value in labels.values()), None)
    return " ".join(f"{name}={value}" for name, value in labels.items())


def _file_name(seed: int, index: int, label: str | None, suffix: str) -> str:
    """A name that the same seed, index and label always give."""
    words = re.sub(r"[^\w=+-]+", "_", label or "").strip("_")[:60]
    return f"{seed}-{index:05d}{f'-{words}' if words else ''}{suffix}"

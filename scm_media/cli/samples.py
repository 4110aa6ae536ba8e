"""What ``generate`` and ``edit`` share: flags of what is drawn and how, the model's extents, and clips as files."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scm_media.build import nearest
from scm_media.cli.arguments import EXTENT, add_network_flags
from scm_media.cli.output import print_json
from scm_media.cli.progress import Progress
from scm_media.display import printable

LONGEST_LABEL = 120
"""Bytes of a label in a file's name, of which most file systems take 255."""


def add_drawing_flags(commands: argparse.ArgumentParser, out: str) -> None:
    """Flags of both commands, but for those of the model's modality. out: where files go by default."""
    commands.add_argument(
        "model", nargs="?", metavar="MODEL", help="a bundled name, a run folder, an exported folder or hf://…"
    )
    commands.add_argument("-n", "--num", type=int, default=1, metavar="N", help="how many clips; default: 1")
    how = commands.add_mutually_exclusive_group()
    how.add_argument("--steps", type=int, metavar="K", help="default: what the model was measured with")
    how.add_argument("--times", type=float, nargs="+", metavar="T", help="radians, descending, instead of --steps")
    commands.add_argument(
        "--actions",
        metavar="A",
        help='numbers for each frame, of models trained with such: a .jsonl, a .csv or "ahead*8,ahead+left*8"',
    )
    commands.add_argument("--guidance", type=float, metavar="S", help="classifier-free guidance scale; 1 is none")
    commands.add_argument(
        "--guidance-interval", type=float, nargs=2, metavar=("LOW", "HIGH"), help="radians of t where guidance acts"
    )
    commands.add_argument("--seed", type=int, default=0, metavar="I", help="clip k has noise of (seed, k); default: 0")
    commands.add_argument("--format", metavar="EXT", help="file format; default: the modality's first")
    commands.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help=f"default: {out}")
    commands.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    add_network_flags(commands, batch_size=64)


def open_model(
    commands: argparse.ArgumentParser,
    arguments: Sequence[str],
    offered: Callable[[Any], Mapping[str, Any]],
) -> tuple[Any, argparse.Namespace, dict[str, float]]:
    """The pipeline, the flags as they were given, and the extents that were asked for.

    The extents are flags of the model's modality, so that they are known once it is open; ``offered`` gives those of a
    modality that the command takes. Without a model the help is shown, or the model asked for.
    """
    known, _ = commands.parse_known_args(_without_sizes(commands, arguments))
    if known.model is None:
        commands.parse_args([word for word in arguments if word in ("-h", "--help")])  # the help, and exits
        commands.error("give a MODEL")

    from scm_media.pipeline import load
    from scm_media.pipeline.requests import check_sizes

    pipeline = load(known.model, known.device, known.precision)
    sizes = offered(pipeline.modality)
    group = commands.add_argument_group(f"extents of {known.model}")
    for name, size_option in sizes.items():
        longest = "" if size_option.longest is None else f"; beyond {size_option.longest:g} in windows that overlap"
        text = f"{size_option.help}, in {size_option.unit}; default: {size_option.default:g}{longest}"
        group.add_argument(f"--{name.replace('_', '-')}", dest=f"{EXTENT}{name}", type=float, metavar="X", help=text)
    windowed = next((size_option for size_option in sizes.values() if size_option.longest is not None), None)
    if windowed is not None:
        text = f"what a window knows of the one before it, in {windowed.unit}; default: a quarter of a window"
        group.add_argument("--overlap", type=float, metavar="X", help=text)
    parsed = commands.parse_args(arguments)
    parsed.overlap = getattr(parsed, "overlap", None)
    given = {name: getattr(parsed, f"{EXTENT}{name}") for name in sizes}
    asked = {name: value for name, value in given.items() if value is not None}
    check_sizes(pipeline.modality, asked)  # before anything of that size is allocated
    return pipeline, parsed, asked


def _without_sizes(commands: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """The words without help and without extent flags, whose numbers would be taken for the model.

    Which extents there are is known once the model is open; each is a flag with one number.
    """
    kept: list[str] = []
    size_option = False
    for word in arguments:
        if size_option and _is_number(word):
            size_option = False
            continue
        size_option = word.startswith("--") and "=" not in word and word not in commands._option_string_actions
        if not size_option and word not in ("-h", "--help"):
            kept.append(word)
    return kept


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def write_samples(
    batches: Iterator[Any], pipeline: Any, parsed: argparse.Namespace, steps: int, made: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes clips as they are drawn and gives the report of ``--json``, but for the seconds in total.

    made: what each file says of how it was made, beside its seed, index and label.
    """
    suffix = _suffix(pipeline.modality, parsed.format)
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
        done = [{}] * len(clips) if clips.actions is None else [_actions(rows, pipeline) for rows in clips.actions]
        each = zip(clips.samples, clips.labels, clips.seeds, clips.indices, done, strict=True)
        for sample, labels, seed, index, actions in each:
            label = _label_text(labels)
            path = parsed.out / _file_name(seed, index, label, suffix)
            both = {name: value for name, value in labels.items() if name in pipeline.modality.size_options}
            metadata = {**made, **both, **actions, "seed": seed, "index": index, "label": label}
            remark = _write(pipeline.modality, path, sample, metadata)
            report["remarks"] += [f"{path}: {remark}"] if remark else []
            prompt = getattr(parsed, "prompt", None)
            report["clips"].append({"path": str(path), "label": label, "prompt": prompt, "seed": seed, "index": index})
        progress("clips", len(report["clips"]), parsed.num)
    return report


def _actions(rows: Any, pipeline: Any) -> dict[str, str]:
    """What a file says of a clip's actions, as ``--actions`` takes them; nothing where they cannot be said so."""
    from scm_media.pipeline.actions import to_text

    text = to_text(rows, pipeline.actions.names)
    return {} if text is None else {"actions": text}


def how_made(pipeline: Any, parsed: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """Returns what a clip's file says of how it was made: what was asked for, places by their last part alone."""
    from scm_media.pipeline.privacy import base_name

    asked = {name: getattr(parsed, name) for name in ("guidance", "guidance_interval", "overlap")}
    given = {name: value for name, value in asked.items() if value is not None}
    made = {"model": parsed.model, "recipe": pipeline.name, **more, **given}
    return {name: base_name(value) if isinstance(value, str) else value for name, value in made.items()}


def tell(report: Mapping[str, Any], parsed: argparse.Namespace) -> None:
    """Prints the report: one JSON object, or the paths; what it cost goes to standard error."""
    if parsed.json:
        print_json(report)
    else:
        for clip in report["clips"]:
            print(printable(clip["path"]))
    for remark in report["remarks"]:
        print(f"note: {printable(remark)}", file=sys.stderr)
    print(
        f"{len(report['clips'])} clips in {printable(parsed.out)}: {report['steps']} steps, "
        f"{report['evaluations']} evaluations a clip, {report['seconds_model']:.2f} s sampling, "
        f"{report['seconds_decode']:.2f} s decoding",
        file=sys.stderr,
    )


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


def _suffix(modality: Any, asked: str | None) -> str:
    """The suffix that clips are written with. Raises ValueError for one that the modality does not write."""
    known = list(modality.written_suffixes)
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
    while len(os.fsencode(words)) > LONGEST_LABEL:
        words = words[:-1]
    return f"{seed}-{index:05d}{f'-{words}' if words else ''}{suffix}"

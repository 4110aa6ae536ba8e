"""Holds what ``generate`` and ``edit`` share: sampling flags, the model's size options, and samples as files."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scm_media.build import nearest
from scm_media.cli.arguments import EXTENT, add_network_flags, read_lines
from scm_media.cli.output import print_json
from scm_media.display import printable
from scm_media.processes import own_share
from scm_media.progress import Progress

if TYPE_CHECKING:
    from scm_media.pipeline import SamplingRequest


def add_sampling_flags(commands: argparse.ArgumentParser, out: str) -> None:
    """Adds the flags of both commands, except for those of the model's modality; out: default folder of the files."""
    commands.add_argument(
        "model", nargs="?", metavar="MODEL", help="a bundled name, a run folder, an exported folder or hf://…"
    )
    commands.add_argument(
        "--prompt",
        metavar="TEXT",
        action="append",
        help="a text that samples are to match, for models with text; several take turns; default: drawn",
    )
    commands.add_argument("--prompts", metavar="FILE", help="a file with a prompt in each line")
    commands.add_argument("--text-encoder", metavar="PLACE", help="the folder or package of the model's text encoder")
    commands.add_argument(
        "-n", "--num", type=int, metavar="N", help="number of samples; default: 1, or one for each prompt"
    )
    how = commands.add_mutually_exclusive_group()
    how.add_argument("--steps", type=int, metavar="K", help="number of steps; default: the model's own")
    how.add_argument(
        "--times", type=float, nargs="+", metavar="T", help="times of the steps in radians, descending from π/2 or less"
    )
    commands.add_argument(
        "--actions",
        metavar="A",
        help='numbers for each frame, for models with actions: a .jsonl, a .csv or "ahead*8,ahead+left*8"',
    )
    commands.add_argument(
        "--guidance",
        type=float,
        metavar="S",
        help="guidance: how strongly samples follow label or prompt; 1 is without; default: the model's own",
    )
    commands.add_argument(
        "--guidance-interval",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="guidance acts between these times alone, in radians",
    )
    commands.add_argument(
        "--seed", type=int, default=0, metavar="I", help="the noise of sample k depends on (seed, k); default: 0"
    )
    commands.add_argument(
        "--format", metavar="EXT", help="file format, such as png, flac or webm; default: the modality's first"
    )
    commands.add_argument(
        "--out", type=Path, default=Path(out), metavar="DIR", help=f"folder for the files; default: {out}"
    )
    commands.add_argument(
        "--json", action="store_true", help="print one JSON object (each process of torchrun its own) and nothing else"
    )
    add_network_flags(commands, batch_size=64)


def open_model(
    commands: argparse.ArgumentParser,
    arguments: Sequence[str],
    offered: Callable[[Any], Mapping[str, Any]],
) -> tuple[Any, argparse.Namespace, dict[str, float]]:
    """Returns the pipeline, the parsed flags, and the sizes among them.

    The size options are flags of the model's modality, so they are added when the model is open; ``offered`` returns
    the ones of a modality that the command takes. Without a model, shows the help or asks for the model.
    """
    parsed, _ = commands.parse_known_args(_without_sizes(commands, arguments))
    if parsed.model is None:
        commands.parse_args([word for word in arguments if word in ("-h", "--help")])  # the help, and exits
        commands.error(
            "give a MODEL: a bundled one (image/fashion, audio/notes …), a run folder, or an exported folder"
        )

    from scm_media.pipeline import load
    from scm_media.pipeline.requests import check_sizes

    pipeline = load(parsed.model, own_share().device(parsed.device), parsed.precision, parsed.text_encoder)
    options = offered(pipeline.modality)
    group = commands.add_argument_group(f"size options of {parsed.model}")
    for name, option in options.items():
        longest = "" if option.longest is None else f"; beyond {option.longest:g} in windows that overlap"
        text = f"{option.help}, in {option.unit}; default: {option.default:g}{longest}"
        group.add_argument(f"--{name.replace('_', '-')}", dest=f"{EXTENT}{name}", type=float, metavar="X", help=text)
    windowed = next((option for option in options.values() if option.longest is not None), None)
    if windowed is not None:
        text = f"part of a window that the next one is given, in {windowed.unit}; default: a quarter of a window"
        group.add_argument("--overlap", type=float, metavar="X", help=text)
    parsed = commands.parse_args(arguments)
    parsed.overlap = getattr(parsed, "overlap", None)
    given = {name: getattr(parsed, f"{EXTENT}{name}") for name in options}
    sizes = {name: value for name, value in given.items() if value is not None}
    check_sizes(pipeline.modality, sizes)  # before anything of that size is allocated
    return pipeline, parsed, sizes


def sampling_request(parsed: argparse.Namespace, sizes: Mapping[str, float], teacher: bool = False) -> SamplingRequest:
    """Returns the request that the flags make, for this process's part of the samples."""
    from scm_media.pipeline import SamplingRequest

    share, prompts = own_share(), _read_prompts(parsed)
    if parsed.num is None:
        parsed.num = len(prompts) if prompts else 1
    part = share.part(parsed.num)
    if share.world > 1 and not part:  # more processes than samples
        raise SystemExit(0)

    names = (
        "label",
        "steps",
        "times",
        "guidance",
        "guidance_interval",
        "seed",
        "batch_size",
        "overlap",
        "actions",
    )
    given = {name: getattr(parsed, name) for name in names}
    first = 0
    if share.world > 1:
        parsed.num, first = len(part), part.start
    return SamplingRequest(num=parsed.num, first=first, prompt=prompts, **given, teacher=teacher, sizes=sizes)


def _read_prompts(parsed: argparse.Namespace) -> list[str] | None:
    """Returns the prompts of the flags and of the file, in order; None without. Raises ValueError for an empty file."""
    found = list(parsed.prompt or [])
    if parsed.prompts is None:
        return found or None
    return found + read_lines("--prompts", parsed.prompts, "prompt")


def _without_sizes(commands: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """Returns the words without help and without size options, whose numbers would be taken for the model.

    The size options are unknown until the model is open; each is a flag with one number.
    """
    kept: list[str] = []
    is_size = False
    for word in arguments:
        if is_size and _is_number(word):
            is_size = False
            continue
        is_size = word.startswith("--") and "=" not in word and word not in commands._option_string_actions
        if not is_size and word not in ("-h", "--help"):
            kept.append(word)
    return kept


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def write_samples(
    batches: Iterator[Any], pipeline: Any, parsed: argparse.Namespace, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes samples as they are made and returns the report of ``--json``, without the seconds in total.

    record: how the samples are made; each file holds it beside seed, index, label and actions.
    """
    from scm_media.pipeline.records import sample_file_name, sample_records

    suffix = _suffix(pipeline.modality, parsed.format)
    report: dict[str, Any] = {
        "samples": [],
        "steps": record["steps"],
        "evaluations": 0,
        "seconds_model": 0.0,
        "seconds_decode": 0.0,
        "warnings": [],
    }
    progress = Progress()
    for made in _collect_warnings(batches, report["warnings"]):
        parsed.out.mkdir(parents=True, exist_ok=True)
        report["evaluations"] = made.evaluations
        report["seconds_model"] += made.seconds_model
        report["seconds_decode"] += made.seconds_decode
        for sample, metadata in zip(made.samples, sample_records(pipeline, record, made), strict=True):
            seed, index, label = metadata["seed"], metadata["index"], metadata["label"]
            path = parsed.out / sample_file_name(metadata, suffix)
            if warning := _write(pipeline.modality, path, sample, metadata):
                report["warnings"].append(f"{path}: {warning}")
            prompt = {"prompt": metadata["prompt"]} if "prompt" in metadata else {}
            report["samples"].append({"path": str(path), "label": label, **prompt, "seed": seed, "index": index})
        progress("samples", len(report["samples"]), parsed.num)
    return report


def _collect_warnings(batches: Iterator[Any], into: list[str]) -> Iterator[Any]:
    """Yields batches and appends what is said of their texts, once each."""
    from scm_media.pipeline.texts import TextWarning

    while True:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", TextWarning)
            made = next(batches, None)
        for each in caught:
            if not issubclass(each.category, TextWarning):
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
            elif str(each.message) not in into:
                into.append(str(each.message))
        if made is None:
            return
        yield made


def print_report(report: Mapping[str, Any], parsed: argparse.Namespace) -> None:
    """Prints the report: one JSON object, or the paths; warnings and costs go to standard error."""
    if parsed.json:
        print_json(report)
    else:
        for sample in report["samples"]:
            print(printable(sample["path"]))
    for warning in report["warnings"]:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    print(
        f"{len(report['samples'])} samples in {printable(parsed.out)}: {report['steps']} steps, "
        f"{report['evaluations']} evaluations a sample, {report['seconds_model']:.2f} s sampling, "
        f"{report['seconds_decode']:.2f} s decoding",
        file=sys.stderr,
    )


def _write(modality: Any, path: Path, sample: Any, metadata: Mapping[str, Any]) -> str | None:
    """Writes a sample aside and renames it, so that no file is half written; returns the modality's warning.

    Raises OSError that names the file.
    """
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        warning = modality.write(aside, sample, metadata)
        os.replace(aside, path)
        return warning
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"{reason}; free some space or choose another --out", str(path)) from error
    finally:
        aside.unlink(missing_ok=True)


def _suffix(modality: Any, asked: str | None) -> str:
    """Returns the suffix that samples are written with; raises ValueError for one that the modality does not write."""
    suffixes = list(modality.written_suffixes)
    if asked is None:
        return suffixes[0]
    suffix = f".{asked.lower().lstrip('.')}"
    if suffix not in suffixes:
        raise ValueError(
            f"--format {asked}: {modality.name} is written as {', '.join(suffixes)}{nearest(suffix, suffixes)}"
        )
    return suffix

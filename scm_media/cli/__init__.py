"""This package is the command line: it finds the command, imports that one alone, and prints its errors in one line."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from scm_media.cli.arguments import parser
from scm_media.cli.streams import discard, flush_or_discard, secure_streams
from scm_media.display import printable
from scm_media.logs import quiet_libraries

COMMANDS = {
    "recipes": "list the shipped recipes, print or copy one",
    "check": "open a recipe's data: counts, shapes, rejects, a preview",
    "encode": "write the latents of a recipe's data once, for train to read",
    "train": "train a recipe, all stages in order; the same command goes on where it stopped",
    "generate": "generate samples with a model",
    "edit": "keep a part of a file and generate the rest: continue, interpolate, animate, inpaint",
    "evaluate": "measure a model: distances to real data, accuracy of labels, seconds; or compare two folders",
    "compare": "put the figures of several models on one page",
    "export": "write a run as a self-contained model folder, or in the format of other programs",
    "convert": "convert a pipeline of diffusers, or a model of format 1 (before version 0.1), to a model folder",
    "bench": "time training steps, sampling and loading side by side",
    "app": "open a page in the browser: generate, live, settings from files",
    "doctor": "list versions, devices and missing packages with how to get them, and known traps",
    "completion": "print a script that completes words in bash, zsh or fish",
}
"""Each command has a description here, and is a module of this package with ``run(arguments) -> exit code``."""

DISTRIBUTION = "scm-media"

SPINS = "3000"
"""An idle thread of PyTorch looks for work so many times before it sleeps (libgomp's GOMP_SPINCOUNT).

libgomp's own default is 300,000, which keeps cores from whatever else runs on them. On two cores, beside a training of
one thread, ``python examples/few_steps.py image/emoji-text -n 4`` took more than 75 s, and 20 s with this number; alone
it took 8 to 9 s both ways (one or two runs each).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 done, 1 an error in the user's input or data, 2 wrong usage.

    arguments: the words after ``scm-media``. None takes those of the process, whose standard streams are secured first,
    and whose idle threads sleep early (``SPINS``) where the environment does not say otherwise.
    """
    if arguments is None:
        secure_streams()
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # before PyTorch is imported, which reads it once
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    unwritten = None
    try:
        code = _run(words, debug)
    finally:
        unwritten = flush_or_discard(sys.stdout)
    if unwritten is None or code != 0:
        return code
    if not isinstance(unwritten, BrokenPipeError):
        print(f"scm-media: standard output cannot be written: {unwritten.strerror}", file=sys.stderr)
    return 1


def _run(words: Sequence[str], debug: bool) -> int:
    name = _command(words)
    quiet_libraries()
    if warning := foreign_modalities():
        print(f"scm-media: {warning}", file=sys.stderr)
    try:
        return importlib.import_module(f"scm_media.cli.{name}").run(words[1:])
    except KeyboardInterrupt:
        print("scm-media: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        discard(sys.stdout)
        return 1
    except Exception as error:
        if debug:
            raise
        print(f"scm-media {name}: {one_line(error)}", file=sys.stderr)
        return 1


def one_line(error: Exception) -> str:
    """Returns an error as one printable line; one that is not the user's is shown with its type."""
    text = printable("; ".join(part.strip() for part in str(error).splitlines() if part.strip()))
    if isinstance(error, OSError) and error.strerror:
        return f"{printable(error.filename)}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, ValueError) and text:
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"


def foreign_modalities() -> str | None:
    """Returns a warning if the import package ``modalities`` is not ours (a public package has the same name)."""
    spec = importlib.util.find_spec("modalities")
    if spec is None or spec.origin is None:
        return "the package modalities is missing; install again: pip install --force-reinstall --no-deps scm-media"
    if f'DISTRIBUTION = "{DISTRIBUTION}"' in Path(spec.origin).read_text(encoding="utf-8"):
        return None
    owners = ", ".join(metadata.packages_distributions().get("modalities", ["an unknown distribution"]))
    return (
        f"the package modalities at {spec.origin} is not scm-media's (owned by: {owners}); "
        "pip uninstall modalities, then pip install --force-reinstall --no-deps scm-media"
    )


def _command(words: Sequence[str]) -> str:
    width = max(map(len, COMMANDS)) + 2
    top = parser(
        "",
        "Trains, distils and runs continuous-time consistency models for images, audio and video.",
        usage="scm-media COMMAND ...",
        epilog="\n".join(
            [
                "commands:",
                *(f"  {name:{width}}{text}" for name, text in COMMANDS.items()),
                "",
                "scm-media COMMAND --help has the details; --debug, anywhere, shows the traceback of an error.",
            ]
        ),
    )
    top.add_argument("--version", action="version", version=f"scm-media {metadata.version(DISTRIBUTION)}")
    top.add_argument("--reference", action=_PrintReference, nargs=0, help="print docs/command-line.md")
    top.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return top.parse_args(words[:1]).command


class _PrintReference(argparse.Action):
    """Prints docs/command-line.md and ends with exit code 0."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from scm_media.cli.reference import reference_page

        print(reference_page(COMMANDS), end="")
        parser.exit()

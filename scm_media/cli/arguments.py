"""Adds the flags that several commands share, and checks the numbers of all flags."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from scm_media.bounds import COUNT, NOT_NEGATIVE, POSITIVE, SAMPLING_STEPS, SEED, Bounds
from scm_media.cli.captured import CapturedParser, capturing

RANGES: Mapping[str, Bounds] = {
    "num": COUNT,
    "steps": SAMPLING_STEPS,
    "times": Bounds(0, math.pi / 2),
    "guidance": NOT_NEGATIVE,
    "guidance_interval": Bounds(0, math.pi / 2),
    **dict.fromkeys(("overlap", "keep", "region"), Bounds()),
    "seed": SEED,
    "batch_size": Bounds(1, 1 << 20, whole=True),
    "repeats": Bounds(1, 1_000_000, whole=True),
    "num_samples": Bounds(2, COUNT.high, whole=True),
    "memorization": COUNT,
    "hours": Bounds(0, 100_000, open_low=True),
}
"""A flag has the same bounds in every command; sizes take positive numbers."""

EXTENT = "extent_"
"""Sizes have this prefix among the parsed arguments."""


def parser(command: str, description: str, **kwargs: Any) -> argparse.ArgumentParser:
    """Returns a parser of ``scm-media COMMAND``, which takes no abbreviated flags."""
    return _CheckingParser(
        prog=f"scm-media {command}".strip(),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **kwargs,
    )


class _CheckingParser(argparse.ArgumentParser):
    """Parses flags, and refuses a number outside the range of its flag by a ValueError that names the flag."""

    def parse_known_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Returns the same as ``parse_known_args``, of words in any order."""
        self._raise_if_captured()  # before argparse takes the positional arguments away for a while
        return super().parse_known_intermixed_args(args, namespace)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # argparse's other ways go through it
        """Returns the parsed arguments, checked, and the words that were not understood."""
        self._raise_if_captured()
        parsed, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            bounds = POSITIVE if action.dest.startswith(EXTENT) else RANGES.get(action.dest)
            given = getattr(parsed, action.dest, None)
            for value in given if isinstance(given, list) else [given]:
                if bounds is None or not isinstance(value, int | float):
                    continue
                if (expected := bounds.complaint(value)) is not None:
                    raise ValueError(f"{action.option_strings[0]} must be {expected}, got {value}")
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        """Ends the program with the usage; arguments that may be left out are not said to be required."""
        required = "the following arguments are required: "
        if message.startswith(required):
            names = [name for name in message.removeprefix(required).split(", ") if "KEY=VALUE" not in name]
            listed = "; scm-media recipes lists recipes" if "RECIPE" in names else ""
            message = f"{required}{', '.join(names)}{listed}"
        super().error(message)

    def _raise_if_captured(self) -> None:
        if capturing():
            raise CapturedParser(self)


def read_lines(flag: str, file: str | Path, what: str) -> list[str]:
    """Returns the lines of a flag's file that are not empty; ValueError where it has none, or cannot be read."""
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{flag} {file}: {error}; expected a UTF-8 file, a {what} a line") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{flag} {file} has no line with a {what}")
    return lines


def add_network_flags(to: argparse.ArgumentParser, batch_size: int) -> None:
    """Adds ``--device``, ``--precision`` and ``--batch-size``: where and how a network runs."""
    add_device_flags(to)
    to.add_argument(
        "--batch-size", type=int, default=batch_size, metavar="B", help=f"samples at once; default: {batch_size}"
    )


def add_device_flags(to: argparse.ArgumentParser) -> None:
    """Adds ``--device`` and ``--precision``, without the size of batches."""
    to.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    to.add_argument(
        "--precision", default="float32", choices=("float32", "bf16"), help="of the networks; default: float32"
    )

"""Flags that several commands share."""

from __future__ import annotations

import argparse
from typing import Any


def parser(command: str, description: str, **kwargs: Any) -> argparse.ArgumentParser:
    """A parser of ``scm-media COMMAND``; flags are never guessed from their beginnings."""
    return argparse.ArgumentParser(
        prog=f"scm-media {command}".strip(),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **kwargs,
    )


def add_network_flags(to: argparse.ArgumentParser, batch_size: int) -> None:
    """``--device``, ``--precision`` and ``--batch-size``: where and how a network runs."""
    to.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    to.add_argument("--precision", default="float32", choices=("float32", "bf16"), help="default: float32")
    to.add_argument("--batch-size", type=int, default=batch_size, metavar="B", help=f"default: {batch_size}")

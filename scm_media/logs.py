"""Keeps what libraries tell of themselves off the terminal."""

from __future__ import annotations

import logging

CHATTY = ("lightning_fabric.utilities.rank_zero", "lightning_fabric.utilities.distributed")
"""Loggers that tell on standard error which precision was chosen and which processes there are, each time."""


def quiet_libraries() -> None:
    """Lets loggers of libraries in this process tell warnings and errors alone."""
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)

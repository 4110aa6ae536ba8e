"""A folder that is there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scm_media import weights


def check_new(target: Path) -> None:
    """Raises ValueError for a folder or file that exists."""
    if os.path.lexists(target):
        raise ValueError(f"{target} exists: export to a folder that does not")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes the target at the end; after an error, neither is there, nor new parents.

    Raises ValueError for a target that exists.
    """
    check_new(target)
    made = [parent for parent in target.absolute().parents if not parent.exists()]
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    weights.remove_leftovers(target.parent.glob(f".{target.name}.*.part"))
    try:
        aside.mkdir(parents=True)
        yield aside
        os.rename(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):
            for parent in made:
                parent.rmdir()
        raise

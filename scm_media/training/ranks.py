"""What the first of several devices does alone, and all of them learn of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def rank_zero_only(fabric: Any, act: Callable[[], object]) -> None:
    """Acts on rank 0 while the others wait, who go on when it is done.

    What goes wrong is raised on every rank, as RuntimeError on the others: whoever waited for a rank that has ended
    would wait forever. (Reports and sheets are rank 0's too, but between steps: should they fail, its process ends
    and the others fail in the next exchange of gradients, at the latest when the process group's time runs out.)
    """
    error = None
    if fabric.global_rank == 0:
        try:
            act()
        except Exception as caught:  # every kind: it is raised again below, when the others know
            error = caught
    reason = fabric.broadcast(None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    if reason is not None:
        raise RuntimeError(f"the first device stopped ({reason}), so this one does")

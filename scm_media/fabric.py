"""Imports Lightning Fabric without torchmetrics, which it would import for its version.

Where torchmetrics is installed it brings along matplotlib, librosa, transformers and others, which takes seconds. Only
Fabric's detector of loss spikes needs it, which is not used here. Every import of Fabric in this package is of
this module, or comes after it. In the same process Fabric goes on to believe that torchmetrics is not installed, and so
does pytorch_lightning where it logs metrics; import ``lightning`` first where that matters.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Fabric", "ModelParallelStrategy"]


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Makes a package that is not imported yet look as if it were not installed."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


with _without("torchmetrics"):
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import ModelParallelStrategy

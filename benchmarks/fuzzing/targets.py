"""The fuzzer's targets by name, and how many of all inputs each gets."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.fuzzing.data_sets import Manifests, Tars
from benchmarks.fuzzing.media import Pictures, Sounds, Videos
from benchmarks.fuzzing.models import Descriptions, Figures, Headers, Recipes
from benchmarks.fuzzing.target import Target

TARGETS: Mapping[str, type[Target]] = {
    "pictures": Pictures,
    "sounds": Sounds,
    "videos": Videos,
    "manifests": Manifests,
    "tars": Tars,
    "recipes": Recipes,
    "descriptions": Descriptions,
    "headers": Headers,
    "figures": Figures,
}

WEIGHTS: Mapping[str, float] = {
    "pictures": 5, "sounds": 4, "videos": 2, "manifests": 3, "tars": 2, "recipes": 1, "descriptions": 4, "headers": 3,
    "figures": 1,
}  # fmt: skip
"""Each target's weight in the number of inputs."""

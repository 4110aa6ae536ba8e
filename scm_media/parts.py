"""The register of parts: which classes a configuration may name, and as what.

A configuration may come from a stranger, so a name in it is built only when it is registered here, and only where a
part of its role is expected. A class registers itself by a decorator, so that a new one touches no other file::

    @part("backbone")
    class MyNetwork(nn.Module): ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

ROLES: Mapping[str, str] = {
    "flow": "a flow",
    "timesteps": "a distribution of training times",
    "modality": "a modality",
    "data": "a data set",
    "autoencoder": "an autoencoder",
    "backbone": "a backbone",
    "feature_extractor": "a feature network",
    "loss": "a loss",
    "distance": "a distance between samples and reconstructions",
    "critic": "a critic of reconstructions",
    "label_function": "a function that gives labels",
    "optimizer": "an optimiser",
    "logger": "a logger",
}
"""Each role with its name in error messages."""

FOREIGN: Mapping[str, str] = {
    **{f"torch.optim.{name}": "optimizer" for name in ("RAdam", "Adam", "AdamW", "SGD")},
    **{f"lightning.fabric.loggers.{name}": "logger" for name in ("TensorBoardLogger", "CSVLogger")},
}
"""Classes of other packages that a configuration may name, spelled as here, each with its role."""

Part = TypeVar("Part", bound=Callable[..., Any])


@dataclass(frozen=True)
class Registration:
    """A part's role, and the roles of those of its own parameters that are parts."""

    role: str
    inner: Mapping[str, str] = field(default_factory=dict)


_registered: dict[Callable[..., Any], Registration] = {}


def part(role: str, **inner: str) -> Callable[[Part], Part]:
    """Returns a decorator that registers a class or a function as a part of this role.

    inner: the role of each parameter that is a part itself (``part("loss", proposal="timesteps")``).
    Raises ValueError for a role that does not exist.
    """
    for name in (role, *inner.values()):
        if name not in ROLES:
            raise ValueError(f"there is no role {name!r} of a part; the roles are {', '.join(ROLES)}")

    def register(made: Part) -> Part:
        _registered[made] = Registration(role, inner)
        return made

    return register


def registration(made: Callable[..., Any]) -> Registration | None:
    """Returns how a class or a function was registered, None where it was not."""
    return _registered.get(made)

"""From a resolved configuration to objects: only what the allow-list permits is ever imported and called.

A configuration may come from a downloaded checkpoint, so ``_target_`` is not trusted: the name is refused before
anything outside the allow-list is imported, and the object that a name leads to is checked again by the module
that it was defined in (``scm_media.pipeline.os.system`` starts in our package and ends elsewhere).
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

TARGET, PARTIAL = "_target_", "_partial_"
ALLOW_VARIABLE = "SCM_MEDIA_ALLOW"
OWN_PACKAGES = ("scm_media", "modalities")

NAMED = frozenset(
    [f"torch.optim.{name}" for name in ("RAdam", "Adam", "AdamW", "SGD")]
    + [f"torch.nn.{name}" for name in ("SiLU", "GELU", "ReLU", "LeakyReLU", "ELU", "Tanh", "Softplus", "Identity")]
    + [f"lightning.fabric.loggers.{name}" for name in ("TensorBoardLogger", "CSVLogger")]
)
"""Classes of others that a configuration may name, spelled as here."""

PROGRAMS = ("build", "cli", "evaluation", "pipeline", "recipe", "testing", "training", "weights")
"""Our modules that act (train, write files): nothing in them is a part that a configuration may name."""


def build(config: Mapping[str, Any], **kwargs: Any) -> Any:
    """The object that ``config`` describes: its ``_target_`` called with its other keys, inner ones built first.

    ``kwargs`` are what only the caller knows; they stand above the configuration's keys. ``_partial_: true`` gives
    a ``functools.partial`` instead of a call. Raises ValueError for a target that is not allowed or does not exist
    and for keys that it does not take or that are missing.
    """
    if not isinstance(config, Mapping) or TARGET not in config:
        raise ValueError(f"expected a mapping with the key {TARGET}, got {config!r}")
    name = config[TARGET]
    target = resolve(name)
    arguments = {key: _build_inner(value) for key, value in config.items() if key not in (TARGET, PARTIAL)} | kwargs
    partial = bool(config.get(PARTIAL, False))
    _check_arguments(name, target, arguments, partial)
    return functools.partial(target, **arguments) if partial else target(**arguments)


def resolve(name: str) -> Callable[..., Any]:
    """The class or function of a dotted name. Raises ValueError when it is not allowed or does not exist."""
    parts = name.split(".") if isinstance(name, str) else []
    if len(parts) < 2 or not all(part.isidentifier() and not part.startswith("__") for part in parts):
        raise ValueError(f"{TARGET} must be a dotted name such as scm_media.trigflow.TrigFlow, got {name!r}")
    if name not in NAMED and parts[0] not in allowed_packages():
        raise ValueError(_refusal(name, parts[0]))
    module, rest = _import_longest(name, parts)
    found: Any = module
    for part in rest:
        if not hasattr(found, part):
            public = [key for key in vars(found) if not key.startswith("_")] if hasattr(found, "__dict__") else []
            raise ValueError(f"{TARGET}: {name} does not exist{nearest(part, public)}")
        found = getattr(found, part)
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        raise ValueError(f"{TARGET}: {name} is neither a class nor a function")
    if name not in NAMED:
        _check_origin(name, found)
    return found


@functools.cache
def _plugin_packages() -> frozenset[str]:
    return frozenset(point.module.partition(".")[0] for point in entry_points(group="scm_media.modalities"))


def allowed_packages() -> frozenset[str]:
    """Top-level packages whose classes may be built: ours, installed plugins', and those named in SCM_MEDIA_ALLOW."""
    by_hand = (package.strip() for package in os.environ.get(ALLOW_VARIABLE, "").split(","))
    return _plugin_packages() | frozenset(OWN_PACKAGES) | frozenset(package for package in by_hand if package)


def _import_longest(name: str, parts: list[str]) -> tuple[ModuleType, list[str]]:
    """The deepest module on the way of a name, and what is left of the name after it."""
    module = _import(name, parts[0])
    for depth in range(1, len(parts)):
        deeper = ".".join(parts[: depth + 1])
        if not hasattr(module, "__path__") or importlib.util.find_spec(deeper) is None:
            return module, parts[depth:]
        module = _import(name, deeper)
    return module, []


def _import(name: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"{TARGET}: {name} needs the module {error.name}, which is not installed") from error


def _check_origin(name: str, found: Callable[..., Any]) -> None:
    origin = found.__module__.split(".")
    if origin[0] not in allowed_packages():
        raise ValueError(_refusal(f"{name}, which is {found.__module__}.{found.__qualname__},", origin[0]))
    if "." in found.__qualname__:
        raise ValueError(f"{TARGET}: {name} is a method or an inner object; name a class or a function of a module")
    if origin[0] == "scm_media" and origin[1] in PROGRAMS:
        raise ValueError(f"{TARGET}: {name} is something that acts, not a part that a configuration may name")


def _refusal(name: str, package: str) -> str:
    return (
        f"{TARGET}: {name} is not on the allow-list; if {package} is your own code, set {ALLOW_VARIABLE}={package} in "
        f'the environment, or give its package the entry point [project.entry-points."scm_media.modalities"] '
        f'{package} = "{package}"'
    )


def _build_inner(value: Any) -> Any:
    if isinstance(value, Mapping):
        if TARGET in value:
            return build(value)
        return {key: _build_inner(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_build_inner(inner) for inner in value]
    return value


def _check_arguments(name: str, target: Callable[..., Any], arguments: Mapping[str, Any], partial: bool) -> None:
    parameters = inspect.signature(target).parameters
    named = {
        key: parameter
        for key, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for key in arguments:
            if key not in named:
                raise ValueError(f"{name} takes no key {key!r}{nearest(key, named)}; it takes {', '.join(named)}")
    missing = [key for key, parameter in named.items() if parameter.default is parameter.empty and key not in arguments]
    if missing and not partial:
        raise ValueError(f"{name} needs the key {', '.join(map(repr, missing))}; got {', '.join(arguments) or 'none'}")


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (nearest: a, b)`` for the end of an error message, or nothing when no known word comes near."""
    close = difflib.get_close_matches(str(word), list(known), n=3, cutoff=0.6)
    return f" (nearest: {', '.join(close)})" if close else ""

"""Builds the objects that a configuration describes, one role at a time; only registered parts are ever called.

A configuration may come from a downloaded model, so nothing in it is trusted. ``_target_`` must name a part that is
registered (``scm_media.parts``) for the role that the caller expects: a backbone where a backbone is expected. Modules
outside our packages, installed plugins and ``SCM_MEDIA_ALLOW`` are not even imported. Arguments must fit the part's
signature and ``parts.PARAMETERS``; no value may be infinite, not a number, or an address where a folder is expected.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any

from scm_media.parts import FOREIGN, FORMER, PARAMETERS, ROLES, Registration, registration
from scm_media.plugins import ALLOW_VARIABLE, allowed_packages
from scm_media.typed import check_value, nearest, problem, show

TARGET, PARTIAL = "_target_", "_partial_"
SECTIONS: Mapping[str, str] = {role: f"{role}.network" for role in ("autoencoder", "feature_extractor")}
"""The key of a recipe that describes a part of a role, if it is not the role's name."""

FILLED_IN = frozenset({"in_channels", "labels", "label_units"})
"""Keys of a backbone that may be null in a recipe: training fills them in from the data."""


def build(config: Any, role: str, **kwargs: Any) -> Any:
    """Returns the object that ``config`` describes: its ``_target_`` called with its other keys, inner parts first.

    role: one of ``parts.ROLES``, the one that the target must be registered for. ``kwargs`` are what only the caller
    knows; they take precedence over the configuration's keys. A label function, which takes a file and not a
    configuration, comes back as a ``functools.partial`` of its keys.
    Raises ValueError for a target that does not exist, is not registered or has another role, for keys that it does
    not take or that are missing, and for values of the wrong type.
    """
    if not isinstance(config, Mapping) or TARGET not in config:
        raise ValueError(f"expected {ROLES[role]} as a mapping with the key {TARGET}, got {show(config)}")
    name = config[TARGET]
    target = resolve(name, role)
    known = registration(target) or Registration(role)
    given = {key: value for key, value in config.items() if key not in (TARGET, PARTIAL) and key not in kwargs}
    _check_keys(name, target, {**given, **kwargs}, partial=role == "label_function")
    _check_types(role, target, {key: value for key, value in given.items() if key not in known.inner})
    arguments = {key: _inner(name, key, value, known.inner.get(key)) for key, value in given.items()} | kwargs
    if role == "logger":
        _check_local(name, arguments)
    if role == "label_function":
        return functools.partial(target, **arguments)
    if missing := getattr(target, "__abstractmethods__", ()):
        raise ValueError(f"{TARGET}: {name} has no {', '.join(sorted(missing))}, which {ROLES[role]} needs: add them")
    made = target(**arguments)
    if not isinstance(made, base := _base_class(role)):
        raise ValueError(
            f"{TARGET}: {name} does not derive from scm_media.{base.__name__}, which has a default for each "
            f"optional method: write class {type(made).__name__}(scm_media.{base.__name__})"
        )
    return made


def _base_class(role: str) -> type:
    """Returns the class that each part of a role derives from, imported here because both bring torch along."""
    if role == "modality":
        from scm_media.modality import Modality

        return Modality
    if role == "data":
        from scm_media.data.dataset import Dataset

        return Dataset
    return object


def resolve(name: Any, role: str | None = None) -> Callable[..., Any]:
    """Returns the part that a dotted name leads to; ValueError where it is not registered for the role.

    role: None for any.
    """
    name = FORMER.get(name, name) if isinstance(name, str) else name
    parts = name.split(".") if isinstance(name, str) and len(name) < 200 else []
    if len(parts) < 2 or not all(each.isidentifier() and not each.startswith("_") for each in parts):
        raise ValueError(f"{TARGET} must be a dotted name such as scm_media.trigflow.TrigFlow, got {show(name)}")
    if name not in FOREIGN and parts[0] not in allowed_packages():
        raise ValueError(
            f"{TARGET}: {name} is not on the allow-list; if {parts[0]} is your own code, set {ALLOW_VARIABLE}="
            f"{parts[0]} in the environment, or give its package the entry point [project.entry-points."
            f'"scm_media.modalities"] {parts[0]} = "{parts[0]}"'
        )
    module, rest = _import_longest(name, parts)
    found: Any = module
    for each in rest:
        if not hasattr(found, each):
            public = [key for key in vars(found) if not key.startswith("_")] if hasattr(found, "__dict__") else []
            raise ValueError(f"{TARGET}: {name} does not exist{nearest(each, public)}")
        found = getattr(found, each)
    found_role = FOREIGN.get(name) or (known.role if (known := _registration(found)) is not None else None)
    if found_role is None:
        raise ValueError(
            f"{TARGET}: {name} is not registered as a part, so a configuration may not name it; if it is your own, put "
            f"@scm_media.part({role or 'ROLE'!r}) above it"
        )
    if role is not None and found_role != role:
        raise ValueError(f"{TARGET}: {name} is {ROLES[found_role]}, expected {ROLES[role]}")
    return found


def _registration(found: Any) -> Registration | None:
    """Returns an object's registration; None for objects that cannot be registered, such as a module's values."""
    return registration(found) if inspect.isclass(found) or inspect.isfunction(found) else None


def _import_longest(name: str, parts: list[str]) -> tuple[ModuleType, list[str]]:
    """Returns the deepest module that a dotted name begins with, and the rest of the name."""
    module = _import(name, parts[0])
    for depth in range(1, len(parts)):
        deeper = ".".join(parts[: depth + 1])
        if not hasattr(module, "__path__") or importlib.util.find_spec(deeper) is None:
            return module, parts[depth:]
        module = _import(name, deeper)
    return module, []


def _import(name: str, module: str) -> ModuleType:
    if module == "lightning_fabric":
        importlib.import_module("scm_media.fabric")  # which imports it without what takes seconds
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"{TARGET}: {name} needs the module {error.name}, which is not installed") from error


def _inner(name: str, key: str, value: Any, role: str | None) -> Any:
    """Returns a value of a configuration in which every part is built."""
    if isinstance(value, Mapping) and TARGET in value:
        if role is None:
            raise ValueError(f"{name}: {key} takes no part, got {TARGET}={show(value[TARGET])}")
        return build(value, role)
    if isinstance(value, Mapping):
        return {inner: _inner(name, f"{key}.{inner}", each, None) for inner, each in value.items()}
    if isinstance(value, list | tuple):
        return [_inner(name, key, each, role) for each in value]
    return value


def _check_keys(name: str, target: Callable[..., Any], arguments: Mapping[str, Any], partial: bool) -> None:
    parameters = inspect.signature(target).parameters
    named = {
        key: parameter
        for key, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for key in arguments:
            if key not in named:
                raise ValueError(f"{name} takes no key {show(key)}{nearest(key, named)}; it takes {', '.join(named)}")
    missing = [key for key, parameter in named.items() if parameter.default is parameter.empty and key not in arguments]
    if missing and not partial:
        raise ValueError(f"{name} needs the key {', '.join(map(repr, missing))}; got {', '.join(arguments) or 'none'}")


def _check_types(role: str, target: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Refuses (ValueError) values that do not fit the parameters' annotations and bounds, by the recipe's key."""
    section, hints = SECTIONS.get(role, role), argument_hints(target)
    for key, value in arguments.items():
        check_value(value, argument_hint(hints, key), f"{section}.{key}")


@dataclass(frozen=True)
class PartOf:
    """The constraint of a setting that describes a part of a role: its values fit the signature of its ``_target_``.

    A target that is not installed or not allowed is refused where it is built: a recipe can be listed without it.
    """

    role: str

    def problem(self, value: Any, key: str) -> str | None:
        """Returns in a sentence what is wrong with a part's first wrong value; None if nothing is."""
        if self.role == "logger":  # importing Lightning takes seconds; build checks it when training starts
            return None
        return _part_problem(value, key, FILLED_IN if self.role == "backbone" else frozenset())


def _part_problem(value: Any, key: str, filled_in: frozenset[str] = frozenset()) -> str | None:
    """Returns what is wrong within a part, or within the parts that a mapping or a list holds."""
    if isinstance(value, list):
        return next((found for i, each in enumerate(value) if (found := _part_problem(each, f"{key}[{i}]"))), None)
    if not isinstance(value, Mapping):
        return None
    hints = hints_of_target(value[TARGET]) if TARGET in value else {}
    for name, inner in value.items():
        if name in (TARGET, PARTIAL) or (inner is None and name in filled_in):
            continue
        dotted = f"{key}.{name}"
        found = _part_problem(inner, dotted) or problem(inner, argument_hint(hints, name), dotted)
        if found is not None:
            return found
    return None


def hints_of_target(target: Any) -> Mapping[str, Any]:
    """Returns the annotations of a target's parameters by name; none for a target that cannot be resolved."""
    try:
        return argument_hints(resolve(target))
    except ValueError:
        return {}


def argument_hint(hints: Mapping[str, Any], name: str) -> Any:
    """Returns a parameter's annotation together with the bounds that ``parts.PARAMETERS`` has for its name."""
    hint = hints.get(name, Any)
    return Annotated[hint, *PARAMETERS[name]] if name in PARAMETERS else hint


@functools.cache
def argument_hints(target: Callable[..., Any]) -> Mapping[str, Any]:
    """Returns the annotation of each parameter; none where they name what is imported for type checkers alone.

    A parameter whose default is None takes None.
    """
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters
    except (NameError, TypeError, ValueError, AttributeError):
        return {}
    return {
        name: hint | None if name in parameters and parameters[name].default is None else hint
        for name, hint in hints.items()
        if name != "return"
    }


def _check_local(name: str, arguments: Mapping[str, Any]) -> None:
    """Refuses (ValueError) addresses: a logger hands its folder to fsspec, which would open them."""
    for key, value in arguments.items():
        if isinstance(value, str) and ("://" in value or "::" in value):
            raise ValueError(f"{name}: {key} must be a folder on this machine, got {show(value)}")

"""Turns exceptions of Hydra, OmegaConf and YAML, which fill a screen, into one line with the nearest names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from scm_media.recipe.interpolation import RefusedResolver
from scm_media.typed import nearest

_NO_KEY = re.compile(r"Could not (override|delete|append).*?'([^']+)'")
_NO_OPTION = re.compile(
    r"Could not find '([^']+)'(?:.*?Available options in '[^']*':\s*(.*?))?(?:Config search|$)", re.S
)
_NO_CONFIG = re.compile(r"Could not load '([^']+)'")
_NOISE = ("full_key:", "object_type=", "See https://", "Set the environment")


@contextmanager
def clear_errors(
    source: str, known_keys: Callable[[], Iterable[str]] = tuple, known_recipes: Iterable[str] = ()
) -> Iterator[None]:
    """Turns exceptions of Hydra, OmegaConf and YAML into a ValueError of one line that names ``source``."""
    try:
        yield
    except RecursionError as error:
        raise ValueError(
            f"{source}: keys or lists of defaults refer to each other in a circle, or are nested too deep"
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"{source}: {_explain(error, known_keys, known_recipes)}") from error
    except YAMLError as error:
        raise ValueError(f"{source}: not readable as YAML: {_one_line(error)}") from error


def _explain(error: BaseException, known_keys: Callable[[], Iterable[str]], known_recipes: Iterable[str]) -> str:
    text = str(error)
    if (refused := _refused_resolver(error)) is not None:
        return str(refused)
    if isinstance(error.__cause__, OmegaConfBaseException) and not text:
        return _explain(error.__cause__, known_keys, known_recipes)
    if isinstance(error, MissingMandatoryValue):
        key = error.full_key or text.rpartition(" ")[2]
        return f"{key} has no value; pass {key}=VALUE"
    if match := _NO_KEY.search(text):
        return _no_key(match[1], match[2].partition("=")[0].lstrip("+~"), set(known_keys()))
    if match := _NO_OPTION.search(text):
        options = match[2].split() if match[2] else []
        known = f"; there are: {', '.join(options)}" if options else ""
        return f"nothing is called {match[1]!r}{nearest(match[1].rpartition('/')[2], options)}{known}"
    if match := _NO_CONFIG.search(text):
        return f"it inherits {match[1]!r}, which does not exist{nearest(match[1], known_recipes)}"
    return _one_line(error)


def _refused_resolver(error: BaseException | None) -> RefusedResolver | None:
    """Returns the refusal that an error was raised from or while handling, if there is one."""
    while error is not None and not isinstance(error, RefusedResolver):
        error = error.__cause__ or error.__context__
    return error


def _no_key(what: str, key: str, known: set[str]) -> str:
    """Returns why Hydra could not override, delete or append (``what``) a key, and what to write instead."""
    if what == "append" and key in known:
        return f"{key} is set already: leave out the +"
    if what == "override" and key in known:
        return f"{key} is given keys that this recipe has not set: add them by +{key}={{…}}"
    adding = ""
    section = key.rpartition(".")[0]
    if what == "override" and "loss" in section.split(".") and any(other.startswith(f"{section}.") for other in known):
        adding = f"; one that {section} takes and this recipe has not set is added by +{key}=VALUE"
    return f"no key takes the override {key!r}{nearest(key, known)}{adding}"


def _one_line(error: BaseException) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return "; ".join(line for line in lines if line and not line.startswith(_NOISE)) or type(error).__name__

"""Exceptions of Hydra, OmegaConf and YAML, which fill a screen, said in one line with the nearest names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from scm_media.build import nearest

_NO_KEY = re.compile(r"Could not (?:override|delete|append).*?'([^']+)'")
_NO_OPTION = re.compile(
    r"Could not find '([^']+)'(?:.*?Available options in '[^']*':\s*(.*?))?(?:Config search|$)", re.S
)
_NO_CONFIG = re.compile(r"Could not load '([^']+)'")
_NOISE = ("full_key:", "object_type=", "See https://", "Set the environment")


@contextmanager
def clear_errors(
    source: str, known_keys: Callable[[], Iterable[str]] = tuple, known_recipes: Iterable[str] = ()
) -> Iterator[None]:
    """What Hydra, OmegaConf or YAML raise inside becomes a ValueError of one line that names ``source``."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"{source}: {_explain(error, known_keys, known_recipes)}") from error
    except YAMLError as error:
        raise ValueError(f"{source}: not readable as YAML: {_one_line(error)}") from error


def _explain(error: BaseException, known_keys: Callable[[], Iterable[str]], known_recipes: Iterable[str]) -> str:
    text = str(error)
    if isinstance(error.__cause__, OmegaConfBaseException) and not text:
        return _explain(error.__cause__, known_keys, known_recipes)
    if isinstance(error, MissingMandatoryValue):
        key = error.full_key or text.rpartition(" ")[2]
        return f"{key} has no value; pass {key}=VALUE"
    if match := _NO_KEY.search(text):
        return _no_key(match[1].partition("=")[0].lstrip("+~"), set(known_keys()))
    if match := _NO_OPTION.search(text):
        options = match[2].split() if match[2] else []
        known = f"; there are: {', '.join(options)}" if options else ""
        return f"nothing is called {match[1]!r}{nearest(match[1].rpartition('/')[2], options)}{known}"
    if match := _NO_CONFIG.search(text):
        return f"it inherits {match[1]!r}, which does not exist{nearest(match[1], known_recipes)}"
    return _one_line(error)


def _no_key(key: str, known: set[str]) -> str:
    if key in known:
        return f"{key} has keys of its own, but not all that were given; set one at a time: {key}.KEY=VALUE"
    parent = key.rpartition(".")[0]
    adding = f"; what {parent} takes but no recipe has set yet is added by +{key}=VALUE" if parent in known else ""
    return f"no key takes the override {key!r}{nearest(key, known)}{adding}"


def _one_line(error: BaseException) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return "; ".join(line for line in lines if line and not line.startswith(_NOISE)) or type(error).__name__

"""Every key of a recipe with its type, unit, bounds, default and description: for one recipe, and as a page of docs."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from importlib import resources
from typing import Any

from scm_media import settings
from scm_media.bounds import Bounds
from scm_media.build import PARTIAL, TARGET, PartOf, argument_hint, argument_hints, resolve
from scm_media.parts import PARAMETERS, PATH, ROLES, Registration, registration
from scm_media.typed import OBJECT, choices, hints_of, in_words, is_required, member, metadata, show, unwrap

OWN_SECTIONS = {"": settings.Recipe, "autoencoder": settings.TrainedAutoencoder, "conditioning.mask": settings.Mask,
                "feature_extractor": settings.FeatureExtractor, "guide": settings.Guide, "text": settings.Text,
                "trajectories": settings.Trajectories, "warm_start": settings.WarmStart}  # fmt: skip
"""Sections of the reference page that are not found in the recipe's own class: they may be null, or of two kinds."""

MISSING_VALUE = "???"
"""The value that Hydra asks the user for."""

GIVEN_BY_CALLER = frozenset({"split"})
"""Parameters with a default that a recipe does not set."""


@dataclass(frozen=True)
class Key:
    """Describes a dotted key.

    required: true of a key without a default. value: the value in a recipe. choices: all values that it may have, empty
    where they cannot be listed.
    """

    key: str
    type: str
    unit: str
    bounds: str
    required: bool
    default: Any
    value: Any
    description: str
    choices: tuple[str, ...] = ()

    def lines(self) -> str:
        """Returns the key, its value and what it takes in one line, and the description in the next."""
        ends = "no default" if self.required else f"default: {_written(self.default)}"
        takes = ", ".join(word for word in (self.type, self.bounds, self.unit and f"in {self.unit}", ends) if word)
        return textwrap.fill(f"{self.key} = {_written(self.value)}  ({takes})", 120, subsequent_indent="    ") + (
            "\n" + textwrap.indent(textwrap.fill(self.description, 116), "    ") if self.description else ""
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the fields that are not empty, by name."""
        return {
            name: value for name, value in asdict(self).items() if value not in ("", ()) or name in ("default", "value")
        }


def _written(value: Any) -> str:
    return value if isinstance(value, str) else show(value)


def list_keys(config: Mapping[str, Any], section: Any = settings.Recipe, prefix: str = "") -> Iterator[Key]:
    """Yields every key of a composed recipe: those of its settings, and those of its parts."""
    hints = hints_of(section)
    for each in fields(section):
        kind, name = unwrap(hints[each.name])[1], f"{prefix}{each.name}"
        value = config.get(each.name, _default(each))
        chosen = member(value, kind)
        if is_dataclass(chosen) and isinstance(value, Mapping):
            yield from list_keys(value, chosen, f"{name}.")
        elif isinstance(value, Mapping) and TARGET in value:
            yield from _part_keys(value, f"{name}.")
        else:
            yield _setting(name, hints[each.name], _default(each), value, is_required(each))


def _default(each: Any) -> Any:
    """Returns a field's default as a plain value; None for a field without one."""
    if is_required(each):
        return None
    value = each.default if each.default_factory is MISSING else each.default_factory()
    return list(value) if isinstance(value, tuple) else value


def _setting(key: str, hint: Any, default: Any, value: Any, required: bool, description: str = "") -> Key:
    bounds, roles = next(metadata(hint, Bounds), Bounds()), list(metadata(hint, PartOf))
    words = [each for each in unwrap(hint)[0] if isinstance(each, str)]
    kind = f"{ROLES[roles[0].role]}, as a mapping" if roles else in_words(hint)
    required = required or default == MISSING_VALUE
    return Key(
        key,
        kind,
        bounds.unit,
        bounds.in_words(),
        required,
        None if required else default,
        value,
        description or "".join(words),
        choices(hint),
    )


def _part_keys(config: Mapping[str, Any], prefix: str) -> Iterator[Key]:
    """Yields the keys of a part: its ``_target_``, and the parameters of that which a recipe may set."""
    try:
        target = resolve(config[TARGET])
    except ValueError:  # not installed or not allowed: its signature is unknown
        target = None
    known = Registration("") if target is None else registration(target) or Registration("")
    role = f"the class of {ROLES[known.role]}" if known.role else "the class"
    yield Key(f"{prefix}{TARGET}", "text", "", "", True, None, config[TARGET], role)
    hints, parameters = ({}, {}) if target is None else (argument_hints(target), inspect.signature(target).parameters)
    described = parameter_descriptions(target) if target is not None else {}
    for name in [*config, *(name for name in parameters if name not in config)]:
        value, key = config.get(name), f"{prefix}{name}"
        if name in (TARGET, PARTIAL):
            continue
        if isinstance(value, Mapping) and TARGET in value:
            yield from _part_keys(value, f"{key}.")
            continue
        parameter, hint = parameters.get(name), argument_hint(hints, name)
        required = parameter is None or parameter.default is parameter.empty
        if name not in config and (required or name in GIVEN_BY_CALLER or _is_object(hint, name in known.inner)):
            continue
        default = None if parameter is None or required else parameter.default
        value = value if name in config else default
        yield _setting(key, hint, _plain(default), _plain(value), required, described.get(name, ""))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | frozenset) else value


def _is_object(hint: Any, is_part: bool) -> bool:
    """Returns whether a parameter takes an object that no recipe can describe."""
    words = in_words(hint)
    return not is_part and words in (OBJECT, f"{OBJECT} or null", "null")


def parameter_descriptions(target: Callable[..., Any]) -> dict[str, str]:
    """Returns the first sentence that a docstring has about each parameter, as in "window, hop: in samples."."""
    init = target.__init__ if inspect.isclass(target) else None
    text = "\n\n".join(doc for doc in (inspect.getdoc(target), init and inspect.getdoc(init)) if doc)
    names = "|".join(sorted(map(re.escape, inspect.signature(target).parameters), key=len, reverse=True))
    start = re.compile(rf"(?<![\w.`])((?:{names})(?:(?:, | and )(?:{names}))*)(?: \([^)]*\))?: ")
    found: dict[str, str] = {}
    for paragraph in text.split("\n\n") if names else ():
        matches = list(start.finditer(paragraph))
        for match, after in zip(matches, [*matches[1:], None], strict=False):
            about = " ".join(paragraph[match.end() : after.start() if after else None].split())
            sentence = re.split(r"(?<=\.)\s", about, maxsplit=1)[0].rstrip(".;")
            if sentence.startswith("see "):
                continue
            for name in re.split(r", | and ", match[1]):
                found.setdefault(name, sentence)
    return found


def reference_page() -> str:
    """Returns the text of docs/recipe-keys.md."""
    lines = [
        "# Keys of recipes",
        "",
        "`scm-media recipes --reference > docs/recipe-keys.md` writes this page from the dataclasses of "
        "`scm_media/settings/`.",
        "`scm-media recipes NAME --keys` prints the keys of one recipe, with those of its parts.",
    ]
    for prefix, section in OWN_SECTIONS.items():
        lines += _tables(section, prefix)
    lines += ["", "## Groups", "", "A recipe chooses an option by `/GROUP: OPTION` in its list `defaults`.", ""]
    lines += ["| group | option | |", "|---|---|---|"]
    lines += [f"| `/{group}` | `{option}` | {comment} |" for group, option, comment in sorted(group_options())]
    lines += ["", "## Parameters of parts", "", "Bounds by the name of a parameter, in whatever part it stands.", ""]
    lines += ["| parameter | bounds | unit | |", "|---|---|---|---|"]
    for name, extra in PARAMETERS.items():
        key = _setting(name, argument_hint({}, name), None, None, False)
        lines.append(f"| `{name}` | {'a path' if PATH in extra else key.bounds} | {key.unit} | {key.description} |")
    return "\n".join(lines) + "\n"


def _tables(section: Any, prefix: str) -> Iterator[str]:
    """Yields a section's heading, description and table, and then those of the sections in it."""
    yield from (
        "",
        f"## `{prefix}`" if prefix else "## The recipe",
        "",
        " ".join((inspect.getdoc(section) or "").split()),
        "",
    )
    yield from ("| key | type | bounds | unit | default | |", "|---|---|---|---|---|---|")
    hints, inner = hints_of(section), []
    for each in fields(section):
        key = _setting(each.name, hints[each.name], _default(each), None, is_required(each))
        if is_dataclass(key.default):
            inner.append((type(key.default), f"{prefix}.{each.name}".lstrip(".")))
        default = "" if key.required or is_dataclass(key.default) else f"`{_written(key.default)}`"
        yield f"| `{each.name}` | {key.type} | {key.bounds} | {key.unit} | {default} | {key.description} |"
    for kind, name in inner:
        yield from _tables(kind, name)


def group_options() -> Iterator[tuple[str, str, str]]:
    """Yields group, option and the first sentence of each shipped configuration."""
    for group in resources.files("scm_media.configs").iterdir():
        for file in group.iterdir() if group.is_dir() else ():
            if file.name.endswith(".yaml"):
                comments = [line[2:] for line in file.read_text(encoding="utf-8").splitlines() if line[:2] == "# "]
                text = " ".join(line for line in comments if not line.startswith("@"))
                yield group.name, file.name.removesuffix(".yaml"), re.split(r"(?<=[.;:])\s", text)[0].rstrip(".;:")

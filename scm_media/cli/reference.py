"""Writes docs/command-line.md: every command with its flags, from the parsers themselves."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from scm_media.cli.captured import command_parser

WIDTH = 120
EXIT_CODES = "0 is done, 1 an error in the user's input or data (one line on standard error), 2 wrong usage"


def reference_page(commands: Mapping[str, str]) -> str:
    """Returns the text of docs/command-line.md; commands: name to description, as of ``scm_media.cli.COMMANDS``."""
    lines = [
        "# Command line",
        "",
        "`scm-media --reference > docs/command-line.md` writes this page from the parsers of `scm_media/cli/`.",
        "`scm-media COMMAND --help` prints the same in a terminal; `--debug` anywhere shows the traceback of an error.",
        f"Exit codes: {EXIT_CODES};",
        "`train` has more ([runs.md](runs.md#stopping)).",
        "",
        "| command | does |",
        "|---|---|",
        *(f"| [`{name}`](#{name}) | {text} |" for name, text in commands.items()),
    ]
    return (
        "\n".join(lines)
        + "\n"
        + "".join(f"\n## {name}\n\n{describe_parser(command_parser(name))}" for name in commands)
    )


def describe_parser(parser: argparse.ArgumentParser) -> str:
    """Returns a parser's usage, description, flags and examples as Markdown, the same in every version of Python."""
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS and action.dest != "help"]
    named, flags = [[each for each in shown if bool(each.option_strings) is flag] for flag in (False, True)]
    words = [parser.prog, *map(_positional_word, named), *(["[flags]"] if flags else [])]
    usage = parser.usage or " ".join(words)
    lines = ["```text", *(line.strip() for line in usage.splitlines()), "```", ""]
    lines += [*_wrap(_cell(parser.description or "")), ""]
    if shown:
        lines += ["| | |", "|---|---|", *(_row(parser, action) for action in [*named, *flags])]
    lines += _groups(parser)
    if parser.epilog:
        lines += ["", "```text", *parser.epilog.strip().splitlines(), "```"]
    return "\n".join(lines).rstrip("\n") + "\n"


def _wrap(text: str) -> list[str]:
    """Returns the lines of a paragraph, none of which is longer than those of other pages."""
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _positional_word(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest).replace("|", " or ")
    return name if action.nargs in (None, "+") else f"[{name}]" if action.nargs == "?" else f"[{name} …]"


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    names = action.option_strings or [_positional_word(action)]
    value = "" if action.nargs == 0 or not action.option_strings else _value(action)
    shown = ", ".join(f"`{name}{value}`" for name in names)
    text = " ".join((parser._get_formatter()._expand_help(action) if action.help else "").split())
    return (
        f"| {_cell(shown)} | {_cell(text)}{' (must be given)' if action.required and action.option_strings else ''} |"
    )


def _value(action: argparse.Action) -> str:
    if isinstance(action, argparse.BooleanOptionalAction):
        return ""
    if isinstance(action.metavar, tuple):
        return "".join(f" {name}" for name in action.metavar)
    choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper()
    name = str(action.metavar or choices).replace("|", " or ")
    return {"+": f" {name} …", "*": f" [{name} …]", "?": f" [{name}]"}.get(str(action.nargs), f" {name}")


def _groups(parser: argparse.ArgumentParser) -> Iterator[str]:
    for group in parser._mutually_exclusive_groups:
        names = [action.option_strings[-1] for action in group._group_actions if action.option_strings]
        if len(names) > 1:
            yield ""
            yield f"Only one of {_listed(names)} may be given."


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _cell(text: str) -> str:
    """Returns text for a cell of a table: bars are escaped, and what Markdown would take for a tag."""
    return re.sub(r"(?<!\\)\|", r"\\|", text).replace("<", "&lt;")

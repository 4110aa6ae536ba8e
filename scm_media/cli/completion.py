"""``scm-media completion`` prints a script by which a shell completes commands, flags, recipes, keys and labels.

Words come from the parsers themselves, which are caught at the moment when a command is about to parse.
"""

from __future__ import annotations

from collections.abc import Sequence

from scm_media import recipe
from scm_media.cli import COMMANDS
from scm_media.cli.arguments import parser
from scm_media.cli.captured import command_parser
from scm_media.cli.completion_scripts import SCRIPTS, Words

PLACES = {
    "bash": "~/.local/share/bash-completion/completions/scm-media",
    "zsh": "~/.scm-media-completion.zsh",
    "fish": "~/.config/fish/completions/scm-media.fish",
}
"""The script belongs here: bash and fish read it by themselves, ~/.zshrc has to source it."""


def run(arguments: Sequence[str]) -> int:
    """Prints the completion script of a shell; returns 0."""
    commands = parser(
        "completion",
        "Prints a script that completes commands, flags, recipes, models, keys of recipes and labels in a shell.",
        epilog="\n".join(f"  {install_command(shell)}" for shell in PLACES)
        + "\n  (read in a new terminal; for zsh add  source ~/.scm-media-completion.zsh  to ~/.zshrc)",
    )
    commands.add_argument("shell", choices=tuple(SCRIPTS), metavar="bash|zsh|fish", help="the shell that you type into")
    shell = commands.parse_args(arguments).shell
    print(SCRIPTS[shell](collect_words()), end="")
    return 0


def install_command(shell: str) -> str:
    """Returns the command line that writes the script to its place, whose folder a fresh account does not have."""
    folder = PLACES[shell].rpartition("/")[0]
    made = "" if folder == "~" else f"mkdir -p {folder} && "
    return f"{made}scm-media completion {shell} > {PLACES[shell]}"


def collect_words() -> Words:
    """Returns what is completed, from the parsers, the installed recipes and the bundled models."""
    flags: dict[str, dict[str, str]] = {}
    choices: dict[str, dict[str, Sequence[str]]] = {}
    for name in COMMANDS:
        actions = command_parser(name)._actions
        flags[name] = {
            option: (action.help or "").replace("%%", "%") for action in actions for option in action.option_strings
        }
        choices[name] = {
            option: [str(choice) for choice in action.choices or ()]
            for action in actions
            for option in action.option_strings
            if action.choices or action.nargs not in (0, "?")
        }
    choices["completion"] = {"": tuple(SCRIPTS)}
    return Words(flags, choices, list(recipe.names()), _labels(), _keys())


def _labels() -> dict[str, list[str]]:
    """Returns the classes of the labels of each bundled model, as --label takes them."""
    from scm_media.pipeline import ModelFolder, bundled_names

    found = {}
    for name in bundled_names():
        labels = ModelFolder.open(name).description.labels
        found[name] = [
            each if len(labels) == 1 else f"{label}={each}" for label, classes in labels.items() for each in classes
        ]
    return found


def _keys() -> dict[str, list[str]]:
    """Returns the keys of recipes with the =, by the modality; "" for those of all.

    Groups, and keys whose values can be listed, have each of these behind the =.
    """
    from scm_media.cli.recipe_choice import NO_DATA
    from scm_media.recipe.reference import group_options, list_keys

    groups = [f"{group}={option}" for group, option, _ in group_options()]
    found = {}
    for name in recipe.names():
        modality, _, last = name.partition("/")
        if last == "folder":
            keys = list_keys(recipe.compose(name, NO_DATA))
            offered = {
                f"{each.key}={value}" for each in keys if "_target_" not in each.key for value in each.choices or [""]
            }
            found[modality] = sorted({*groups, *offered})
    return {**found, "": sorted(set.intersection(*map(set, found.values())))}

"""Writes what is completed on a command line as a script for bash, zsh or fish."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

WITH_KEYS = ("recipes", "check", "encode", "train", "bench")
"""These commands take a recipe, and keys of it."""
OF_MODELS = ("generate", "edit", "evaluate", "compare", "export", "bench", "app")
"""These commands take a model."""


@dataclass(frozen=True)
class Words:
    """Holds what is completed.

    flags: command to its flags with their help. choices: command to those of its flags that take a value, with the
    values that are offered, none for files and numbers; "" for the values of its argument. recipes: their names.
    models: bundled models to their labels. keys: modality to the keys of its recipes, with values where these can be
    listed.
    """

    flags: Mapping[str, Mapping[str, str]]
    choices: Mapping[str, Mapping[str, Sequence[str]]]
    recipes: Sequence[str]
    models: Mapping[str, Sequence[str]]
    keys: Mapping[str, Sequence[str]]


def bash_script(words: Words) -> str:
    """Returns the script for bash."""
    return f"# Made by: scm-media completion bash\n{_word_function(words)}{_BASH_END}"


def zsh_script(words: Words) -> str:
    """Returns the script for zsh."""
    return f"# Made by: scm-media completion zsh\n{_word_function(words)}{_ZSH_END}"


def _word_function(words: Words) -> str:
    """Returns the function of bash and zsh that prints candidates one a line, so that labels keep their spaces.

    It takes the command, the word before, and the words between them in spaces; all are "" where there is none.
    """
    lines = ["_scm_media_words() {", "    case $1 in"]
    for name, flags in words.flags.items():
        by_flag = {option: _show(each) for option, each in words.choices[name].items() if each}
        if "--label" in flags:
            by_model = {f"*' {model} '*": _show(each) for model, each in words.models.items() if each}
            by_flag["--label"] = _case("$3", by_model)
        lines += [f"    {name})"]
        free = "|".join(option for option in words.choices[name] if option not in by_flag)
        lines += [f"        case $2 in {free}) return;; esac"] if free else []
        lines += [f"        case $2 in {option or '*'}) {shown}; return;; esac" for option, shown in by_flag.items()]
        lines += [f"        {_show([*flags, *_names(words, name)])}"]
        if name in WITH_KEYS:
            by_modality = {f"*' {each}/'*" if each else "*": _show(keys) for each, keys in words.keys.items()}
            lines += [f"        [[ $3 == *[!\\ ]* ]] && {_case('$3', by_modality)}"]
        lines += ["        ;;"]
    lines += [f"    '') {_show([*words.flags, '--help', '--version', '--debug'])};;", "    esac", "}"]
    return "\n".join([*lines, ""])


def _names(words: Words, command: str) -> list[str]:
    """Returns the recipes and models that a command takes, each once."""
    recipes: Sequence[str] = words.recipes if command in WITH_KEYS else ()
    return list(dict.fromkeys([*recipes, *(words.models if command in OF_MODELS else ())]))


def _show(words: Iterable[str]) -> str:
    return f"printf '%s\\n' {' '.join(map(shlex.quote, words))}"


def _case(of: str, cases: Mapping[str, str]) -> str:
    return f"case {of} in {' '.join(f'{pattern}) {shown};;' for pattern, shown in cases.items())} esac"


_BASH_END = r"""
_scm_media() {
    local line=${COMP_LINE:0:COMP_POINT} current=${COMP_WORDS[COMP_CWORD]} word before command= given=' ' each escaped
    local -a parts all
    read -ra all <<< "$line"
    [[ $line == *[[:space:]] ]] && all+=("")
    word=${all[${#all[@]}-1]}
    for each in "${all[@]:0:${#all[@]}-1}"; do
        [[ $each == --debug ]] || parts+=("$each")  # it may stand anywhere, also before the command
    done
    parts+=("$word") before=${parts[${#parts[@]}-2]}
    (( ${#parts[@]} > 2 )) && command=${parts[1]} && given=" ${parts[*]:2:${#parts[@]}-3} "
    [[ $current == = ]] && current=  # bash ends words at =, and what stands before it stays
    COMPREPLY=()
    while IFS= read -r each; do
        [[ $each == "$word"* ]] || continue
        printf -v escaped %q "${each#"${word%"$current"}"}"
        COMPREPLY+=("$escaped")
    done < <(_scm_media_words "$command" "$before" "$given")
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2> /dev/null
    return 0
}
complete -o default -F _scm_media scm-media
"""


_ZSH_END = r"""
_scm_media() {
    emulate -L zsh
    local command= given=' ' unfound=1
    local -a offered keys parts
    parts=(${words[1,CURRENT-1]:#--debug})
    (( $#parts > 1 )) && command=$parts[2] given=" ${parts[3,-1]} "
    offered=("${(@f)$(_scm_media_words "$command" "$parts[-1]" "$given")}")
    keys=(${(M)offered:#*=}) offered=(${offered:#(|*=)})
    compadd -a offered && unfound=0
    compadd -S '' -a keys && unfound=0
    (( unfound )) && _files && unfound=0
    return unfound
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _scm_media scm-media
"""


def fish_script(words: Words) -> str:
    """Returns the script for fish."""
    lines = [
        "# Made by: scm-media completion fish",
        "complete -c scm-media -e",
        "function __scm_media_given; string match -q -- $argv[1] (commandline -opc); end",
        f"complete -c scm-media -f -n __fish_use_subcommand -a {_fish(' '.join(words.flags))}",
    ]
    for name, flags in words.flags.items():
        here = f"__fish_seen_subcommand_from {name}"
        start = f"complete -c scm-media -n {_fish(here)}"
        for option, text in flags.items():
            kind, values = "-l" if option.startswith("--") else "-s", words.choices[name].get(option)
            taken = f" -x -a {_fish(' '.join(values))}" if values else "" if values is None else " -r"
            lines.append(f"{start} {kind} {option.lstrip('-')}{taken} -d {_fish(' '.join(text.split()))}")
        lines.append(f"{start} -a {_fish(' '.join([*_names(words, name), *words.choices[name].get('', ())]))}")
        by_modality = words.keys if name in WITH_KEYS else {}
        for modality, keys in by_modality.items():
            given = f"{here}; and __scm_media_given '{modality}/*'" if modality else here
            lines.append(f"complete -c scm-media -n {_fish(given)} -a {_fish(' '.join(keys))}")
        for model, labels in words.models.items() if "--label" in flags else ():
            given = f"{here}; and __scm_media_given {model}"
            offered = _fish(" ".join(map(_fish, labels)))
            lines.append(f"complete -c scm-media -n {_fish(given)} -l label -x -a {offered}")
    return "\n".join(lines) + "\n"


def _fish(text: str) -> str:
    """Returns text as one word of fish, in single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SCRIPTS: Mapping[str, Callable[[Words], str]] = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}
"""Each shell has a function that writes its script."""

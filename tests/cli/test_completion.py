"""Compares what the completion scripts offer with the parsers, and runs the one of bash."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scm_media import recipe
from scm_media.cli import COMMANDS, completion, main
from scm_media.cli.captured import command_parser
from scm_media.cli.completion_scripts import OF_MODELS, SCRIPTS
from scm_media.pipeline import bundled_names


@pytest.fixture(scope="module")
def words():
    return completion.collect_words()


@pytest.fixture(scope="module")
def complete(words, tmp_path_factory):
    """Returns a function from a line, at whose end the key for completion is pressed, to what bash offers."""
    script = tmp_path_factory.mktemp("completion") / "script.bash"
    script.write_text(SCRIPTS["bash"](words))

    def offered(line: str, *parts: str) -> list[str]:
        """Returns what is offered for a line, whose parts are the words that bash makes of it: they end at =."""
        given = parts or tuple(line.split(" "))
        quoted = " ".join(f"'{part}'" for part in given)
        program = (
            f"source {script}\nCOMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({quoted}) "
            f"COMP_CWORD={len(given) - 1}\n_scm_media\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        return done.stdout.split("\n")[:-1]

    return offered


def test_every_command_is_read_from_its_parser(words):
    assert set(words.flags) == set(COMMANDS)
    assert {"--for", "--hours", "--device", "--keys"} <= words.flags["recipes"].keys()
    assert words.flags["train"]["--multirun"] == "sweep over comma-separated values"
    assert words.choices["generate"]["--precision"] == ["float32", "bf16"]
    assert words.recipes == list(recipe.names())
    assert set(words.models) == set(bundled_names()) and "Ankle boot" in words.models["image/fashion"]


def test_keys_are_those_of_a_modality(words):
    assert "teacher.max_steps=" in words.keys[""] and "backbone=transformer" in words.keys[""]
    assert "modality.sample_rate=" in words.keys["audio"] and "modality.sample_rate=" not in words.keys["image"]
    assert "modality.frame_rate=" in words.keys["video"] and "modality.frame_rate=" not in words.keys[""]


def test_bash_completes_commands_flags_recipes_and_models(complete):
    assert complete("scm-media ge") == ["generate"]
    assert set(complete("scm-media ")) >= set(COMMANDS)
    assert complete("scm-media recipes --h") == ["--help", "--hours"]
    assert set(complete("scm-media train image/fash")) == {"image/fashion", "image/fashion-latent"}
    assert complete("scm-media generate image/em") == ["image/emoji-text"]
    assert complete("scm-media generate image/fashion --precision b") == ["bf16"]
    assert complete("scm-media completion z") == ["zsh"]
    assert complete("scm-media generate none") == [""], "nothing: bash offers files then"
    assert complete("scm-media generate image/fashion --out ") == [""], "the word after it is a folder"
    assert complete("scm-media app --device ") == complete("scm-media generate image/fashion -n ") == [""]
    assert "--steps" in complete("scm-media generate image/fashion --teacher "), "it takes no value"


def test_bash_completes_keys_of_the_recipe_that_is_named(complete):
    assert complete("scm-media train audio/notes modality.sample") == ["modality.sample_rate="]
    assert complete("scm-media train image/tiny modality.sample") == [""]
    assert complete("scm-media train mine.yaml teacher.max_s") == ["teacher.max_steps="]
    assert "teacher.max_steps=" not in complete("scm-media train ")
    assert complete("scm-media train image/tiny modality.fl") == ["modality.flip=false", "modality.flip=true"]
    line = "scm-media train image/tiny stage=te"
    assert complete(line, "scm-media", "train", "image/tiny", "stage", "=", "te") == ["teacher"]
    assert complete("scm-media train mine.yaml strat", "scm-media", "train", "mine.yaml", "strat") == [
        "strategy=auto",
        "strategy=ddp",
        "strategy=fsdp",
    ]
    line = "scm-media train image/tiny backbone=tr"
    assert complete(line, "scm-media", "train", "image/tiny", "backbone", "=", "tr") == ["transformer"]
    assert complete(line[:-2], "scm-media", "train", "image/tiny", "backbone", "=") == [
        "spacetime",
        "transformer",
        "unet",
    ]


def test_bash_completes_words_after_debug(complete):
    assert complete("scm-media --debug gen") == ["generate"]
    assert set(complete("scm-media --debug ")) == set(complete("scm-media "))
    assert complete("scm-media --debug train image/tiny teacher.max_s") == ["teacher.max_steps="]
    assert complete("scm-media generate image/fashion --debug --label A") == ["Ankle\\ boot"]
    assert complete("scm-media generate --precision --debug b") == ["bf16"], "it is no value"
    assert complete("scm-media --deb") == ["--debug"]


def test_bash_completes_labels_of_the_model_that_is_named(complete):
    assert complete("scm-media generate image/fashion -n 4 --label A") == ["Ankle\\ boot"]
    assert "deadly_corridor" in complete("scm-media generate video/scenes --label ")
    assert complete("scm-media generate video/scenes --label Ank") == [""]


def test_the_scripts_of_other_shells_are_whole(words, tmp_path):
    zsh, fish = SCRIPTS["zsh"](words), SCRIPTS["fish"](words)
    shared = SCRIPTS["bash"](words).partition("\n")[2].partition("_scm_media() {")[0]
    assert zsh.partition("\n")[2].startswith(shared) and zsh.endswith("compdef _scm_media scm-media\n")
    only_bash = ("COMPREPLY", "COMP_LINE", "compopt", "read -", "printf -v")
    assert [each for each in only_bash if each in zsh] == []
    assert [each for each in only_bash if each not in SCRIPTS["bash"](words)] == []
    assert "complete -c scm-media -n '__fish_seen_subcommand_from recipes' -l hours -r -d 'with --for: time" in fish
    assert "'__fish_seen_subcommand_from generate' -l out -r -d" in fish
    assert "'__fish_seen_subcommand_from generate' -l teacher -d" in fish
    assert fish.count("'") % 2 == fish.count("\\'") % 2
    for shell, text in (("zsh", zsh), ("fish", fish)):
        if (found := shutil.which(shell)) is not None:
            (tmp_path / shell).write_text(text)
            assert subprocess.run([found, "-n", str(tmp_path / shell)], timeout=60).returncode == 0


def test_the_command_prints_a_script_and_help_says_where_it_belongs(capsys):
    assert main(["completion", "fish"]) == 0
    assert capsys.readouterr().out.startswith("# Made by: scm-media completion fish")
    with pytest.raises(SystemExit):
        main(["completion", "--help"])
    shown = capsys.readouterr().out
    assert all(completion.install_command(shell) in shown for shell in SCRIPTS)


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_command_of_the_help_writes_the_script_in_a_home_that_is_empty(shell, tmp_path):
    home, programs = tmp_path / "home", tmp_path / "programs"
    home.mkdir()
    programs.mkdir()
    (programs / "scm-media").write_text("#!/bin/sh\necho $*\n")
    (programs / "scm-media").chmod(0o755)
    environment = {"HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", completion.install_command(shell)], env=environment, check=True, timeout=60)
    written = Path(completion.PLACES[shell].replace("~", str(home), 1))
    assert written.read_text() == f"completion {shell}\n"


def test_models_are_offered_to_every_command_that_takes_one():
    takes = {
        name
        for name in COMMANDS
        if any("MODEL" in str(action.metavar) for action in command_parser(name)._actions if not action.option_strings)
    }
    assert takes == set(OF_MODELS)


def test_parsers_parse_again_after_they_were_captured():
    assert command_parser("doctor").prog == "scm-media doctor"
    with pytest.raises(SystemExit):
        main(["doctor", "--no-such-flag"])


def test_the_page_shows_the_commands_of_the_help():
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert [shell for shell in SCRIPTS if f"$ {completion.install_command(shell)}" not in page] == []

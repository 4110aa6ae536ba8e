"""Starting up: quick, without what is not needed, and every error in one line with the right exit code."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
import time
import types

import pytest

from scm_media import cli
from scm_media.cli import main


@pytest.fixture
def failing(monkeypatch):
    """Replaces the command ``doctor`` by one that raises what it is given."""

    def install(error: BaseException) -> None:
        def run(arguments):
            raise error

        monkeypatch.setitem(sys.modules, "scm_media.cli.doctor", types.SimpleNamespace(run=run))

    return install


def test_help_is_quick_and_imports_neither_torch_nor_hydra():
    program = textwrap.dedent("""
        import sys
        from scm_media.cli import main
        try:
            main(["--help"])
        except SystemExit as exit:
            assert exit.code == 0
        unwanted = ("torch", "hydra", "omegaconf", "numpy", "PIL", "lightning_fabric")
        print([name for name in unwanted if name in sys.modules])
    """)
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - begun
    assert done.stdout.splitlines()[-1] == "[]"
    for command in cli.COMMANDS:
        assert f"  {command} " in done.stdout
    assert seconds < 0.5 * 4, "0.5 s on a machine that does nothing else"


def test_no_commands_help_imports_torch():
    program = textwrap.dedent("""
        import sys
        from scm_media.cli import COMMANDS, main
        for command in COMMANDS:
            try:
                main([command, "--help"])
            except SystemExit as exit:
                assert exit.code == 0
            print(command, "torch" in sys.modules)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for command in cli.COMMANDS:
        assert f"\n{command} False\n" in done.stdout


def test_generate_starts_quickly_and_imports_neither_training_nor_hydra(model, tmp_path):
    """It takes less of the processor's time than importing torch, running the tiny network included."""
    unwanted = (
        "torch._dynamo",
        "hydra",
        "omegaconf",
        "lightning_fabric",
        "torchvision",
        "matplotlib",
        "tensorboard",
        "rich",
        "scipy",
        "pandas",
    )
    ours = ("scm_media.training", "scm_media.evaluation", "scm_media.recipe", "scm_media.data")
    program = textwrap.dedent(f"""
        import sys
        import time
        import torch
        begun = time.process_time()
        from scm_media.cli import main
        assert main(["generate", {model!r}, "-n", "1", "--device", "cpu", "--out", {str(tmp_path)!r}]) == 0
        print((time.process_time() - begun) / begun)
        print([name for name in {unwanted + ours} if name in sys.modules])
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *_, ratio, imported = done.stdout.splitlines()
    assert imported == "[]"
    assert float(ratio) < 0.75


def test_a_recipe_is_copied_without_torch(tmp_path):
    words = ["recipes", "image/tiny", "--copy", str(tmp_path / "mine.yaml")]
    program = f"import sys; from scm_media.cli import main; main({words}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    "words", [[], ["trian"], ["--nonsense"], ["train"], ["generate"], ["export", "x"], ["evaluate"]]
)
def test_wrong_usage_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as exit:
        main(words)
    assert exit.value.code == 2
    assert "usage: scm-media" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith("scm-media 0.")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("data.root: no\n  such folder"), "data.root: no; such folder"),
        (
            OSError(errno.ENOSPC, "No space left on device", "student.safetensors"),
            "student.safetensors: No space left on",
        ),
        (KeyError("x"), "KeyError: 'x' (--debug shows where)"),
    ],
)
def test_an_error_is_one_line_and_exit_1(failing, capsys, error, line):
    failing(error)
    assert main(["doctor"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith(f"scm-media doctor: {line}")


def test_debug_lets_the_traceback_through(failing):
    failing(ValueError("here"))
    with pytest.raises(ValueError, match="here"):
        main(["doctor", "--debug"])


def test_interrupt_is_130(failing):
    failing(KeyboardInterrupt())
    assert main(["doctor"]) == 130


def test_foreign_package_modalities_is_said_at_every_start(tmp_path, monkeypatch, capsys):
    foreign = tmp_path / "modalities"
    foreign.mkdir()
    (foreign / "__init__.py").write_text('"""A framework for training."""\n')
    spec = types.SimpleNamespace(origin=str(foreign / "__init__.py"))
    find = cli.importlib.util.find_spec  # PyTorch asks for packages of its own meanwhile, and remembers the answers
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: spec if name == "modalities" else find(name))
    assert main(["recipes", "image/tiny"]) == 0
    said = capsys.readouterr().err
    assert f"the package modalities at {spec.origin} is not scm-media's" in said
    assert said.count("\n") == 1


def test_our_package_modalities_is_silent():
    assert cli.foreign_modalities() is None


@pytest.mark.parametrize(("given", "expected"), [(None, "3000"), ("7", "7")])
def test_idle_threads_sleep_early_where_the_environment_does_not_say_otherwise(given, expected):
    program = (
        "import os, sys; sys.argv = ['scm-media', 'recipes', '--reference']\n"
        "from scm_media.cli import main\n"
        "assert 'torch' not in sys.modules\nmain()\nprint(os.environ['GOMP_SPINCOUNT'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment |= {} if given is None else {"GOMP_SPINCOUNT": given}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == expected

"""The list of mutations fits today's code; runs count kills, survivors and errors, and go on where they stopped."""

from __future__ import annotations

import json
import subprocess

import pytest

from benchmarks import mutations
from benchmarks.mutations import Mutation, find_faults, make_table, read_list, run_mutations, write_table

CODE = "def add(a, b):\n    return a + b\n\n\ndef spare(a):\n    return a\n"
TESTS = "from code_under_test import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n"


@pytest.fixture
def project(tmp_path):
    """A repository with one file, one test, and files that git ignores."""
    root = tmp_path / "project"
    (root / "tests").mkdir(parents=True)
    (root / "code_under_test.py").write_text(CODE)
    (root / "tests" / "test_code.py").write_text(TESTS)
    (root / "pytest.ini").write_text("[pytest]\npythonpath = .\nmarkers =\n    slow\n    gpu\n")
    (root / ".gitignore").write_text("large.bin\n")
    (root / "large.bin").write_bytes(bytes(10))
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


@pytest.fixture
def in_process(monkeypatch):
    """Runs the project's test in this process, which is faster, and lists the folders that it ran in."""
    ran = []

    def run_tests(root, tests, limit):
        ran.append(root)
        names: dict = {}
        exec((root / "code_under_test.py").read_text(), names)
        exec((root / "tests" / "test_code.py").read_text().partition("\n")[2], names)
        try:
            names["test_add"]()
        except AssertionError:
            return mutations.KILLED, 0.1, "failed"
        return mutations.SURVIVED, 0.1, "passed"

    monkeypatch.setattr(mutations, "run_tests", run_tests)
    return ran


def mutation(old: str, new: str, path: str = "code_under_test.py", **more: str) -> Mutation:
    return Mutation(path, old, new, "tests/test_code.py", **more)


def test_every_mutation_of_the_list_fits_todays_code():
    listed = read_list()
    assert find_faults(listed) == []
    assert len(listed) >= 60
    assert len(set(listed)) == len(listed)
    parts = {"/".join(each.path.split("/")[:2]).removesuffix(".py") for each in listed}
    assert parts >= {
        f"scm_media/{name}" for name in ("losses", "samplers", "training", "data", "evaluation", "pipeline")
    }
    assert parts >= {f"modalities/{name}" for name in ("image", "video")}


@pytest.mark.slow
def test_kills_survivors_and_hangs_are_counted_and_the_code_stays(project, tmp_path, capsys):
    cases = [
        mutation("return a + b", "return a - b"),
        mutation("return a + b", "return a + b if a else a.nowhere"),
        mutation("return a", "return 2 * a", reason="nothing calls it"),
    ]
    results = run_mutations(cases, 2, tmp_path / "results.json", project)
    assert [result.outcome for result in results] == ["killed", "survived", "survived"]
    assert (project / "code_under_test.py").read_text() == CODE
    assert "killed in" in capsys.readouterr().err
    table = make_table(results)
    assert "| `code_under_test.py` | 3 | 1 |" in table
    assert "| all | 3 | 1 (33 %) |" in table
    assert "`return a` → `return 2 * a`: nothing calls it" in table
    assert "not explained" in table


def test_tests_that_take_too_long_are_ended(project):
    (project / "tests" / "test_code.py").write_text("def test_add():\n    max(iter(int, 1))\n")
    outcome, seconds, _ = mutations.run_tests(project, "tests/test_code.py", 1.0)
    assert outcome == "hung"
    assert 1 <= seconds < 10


def test_what_was_run_is_not_run_again_until_its_file_or_its_tests_change(project, tmp_path, in_process):
    cases, file = [mutation("return a + b", "return a * b")], tmp_path / "results.json"
    first = run_mutations(cases, 1, file, project)
    assert len(in_process) == 2, "the unchanged code, then the mutation"
    assert [(each.outcome, each.mutation) for each in run_mutations(cases, 1, file, project)] == [
        (each.outcome, each.mutation) for each in first
    ]
    assert len(in_process) == 2
    (project / "tests" / "test_code.py").write_text(TESTS + "    assert add(0, 0) == 0\n")
    run_mutations(cases, 1, file, project)
    assert len(in_process) == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return a * b", "return a", "expected the line 'return a * b' once, found it 0 times"),
        ("", "pass", "found it 2 times"),
        ("return a + b", "return a + b", "is replaced by itself"),
        ("return a + b", "return a +", "is no Python here"),
    ],
)
def test_a_line_that_is_not_there_is_an_error_and_no_kill(project, tmp_path, old, new, message):
    with pytest.raises(ValueError, match=message.replace("+", r"\+").replace("*", r"\*")):
        run_mutations([mutation(old, new)], 1, tmp_path / "results.json", project)
    assert not (tmp_path / "results.json").exists()


def test_tests_that_fail_on_the_unchanged_code_are_an_error(project, tmp_path, in_process):
    (project / "tests" / "test_code.py").write_text(TESTS.replace("5", "6"))
    with pytest.raises(ValueError, match="fail on the unchanged code"):
        run_mutations([mutation("return a + b", "return a - b")], 1, tmp_path / "results.json", project)
    (project / "tests" / "test_code.py").unlink()
    assert find_faults([mutation("return a + b", "return a - b")], project) == [
        "code_under_test.py: no such tests: tests/test_code.py"
    ]


def test_the_table_replaces_what_stands_between_its_marks(project, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{mutations.BEGIN}\nold\n{mutations.END}\nafter\n")
    write_table([], page)
    assert page.read_text().startswith("before\n") and page.read_text().endswith("\nafter\n")
    assert "old" not in page.read_text() and "| all | 0 |" in page.read_text()
    page.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the marks"):
        write_table([], page)


def test_the_command_prints_one_object_and_its_exit_code_tells_of_survivors(
    project, tmp_path, monkeypatch, capsys, in_process
):
    listed = [mutation("return a", "return -a"), mutation("return a + b", "return b - a")]
    monkeypatch.setattr(mutations, "read_list", lambda: listed)
    monkeypatch.setattr(mutations, "ROOT", project)
    monkeypatch.setattr(mutations.run_mutations, "__defaults__", (project,))
    monkeypatch.setattr(mutations.find_faults, "__defaults__", (project,))
    assert mutations.main(["--json", "--results", str(tmp_path / "r.json")]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["num"], printed["num_killed"]) == (2, 1)
    assert [each["outcome"] for each in printed["mutations"]] == ["survived", "killed"]
    assert mutations.main(["--only", "a + b", "--results", str(tmp_path / "r.json")]) == 0
    assert "| all | 1 | 1 (100 %) |" in capsys.readouterr().out
    assert mutations.main(["--check"]) == 0

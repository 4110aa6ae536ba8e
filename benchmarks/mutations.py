"""Changes one line of the code at a time and counts the changes that the tests notice.

    python benchmarks/mutations.py [--only WORD ...] [--workers 1] [--json]
    python benchmarks/mutations.py --check       says which entries of the list fit today's code no longer
    python benchmarks/mutations.py --table       writes the table of CONTRIBUTING.md from the results so far

The list is ``benchmarks/mutations.toml``: for each file its tests, and pairs of a line (stripped, exactly once in the
file) and the line that replaces it. Each mutation is applied to a copy of the working tree, where the file's tests run
with a time limit; they must pass on the unchanged copy first. A mutation is killed where a test fails or the limit
passes, and survives where all tests pass. A line that is no longer there is an error and no kill. Results are kept in
``--results``: a mutation runs again where its entry, its file or its tests have changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

from scm_media import weights

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".toml")
SHORTEST_LIMIT, LIMIT_FACTOR, BASELINE_LIMIT = 60.0, 4.0, 900.0
"""Seconds: a mutation's tests get several times what they take on the unchanged code."""

BEGIN, END = "<!-- mutations: begin -->", "<!-- mutations: end -->"
KILLED, HUNG, SURVIVED = "killed", "hung", "survived"


@dataclass(frozen=True)
class Mutation:
    """A line of a file, the line that replaces it, and the tests that should notice; reason: why they may not."""

    path: str
    old: str
    new: str
    tests: str
    reason: str = ""

    def apply(self, source: str) -> str:
        """Returns the mutated source; ValueError where the old line is not there exactly once, or nothing changes."""
        lines = source.splitlines(keepends=True)
        found = [number for number, line in enumerate(lines) if line.strip() == self.old]
        if len(found) != 1:
            raise ValueError(f"{self.path}: expected the line {self.old!r} once, found it {len(found)} times")
        if self.new == self.old:
            raise ValueError(f"{self.path}: {self.old!r} is replaced by itself")
        lines[found[0]] = lines[found[0]].replace(self.old, self.new)
        mutated = "".join(lines)
        try:
            compile(mutated, self.path, "exec")
        except SyntaxError as error:
            raise ValueError(f"{self.path}: {self.new!r} is no Python here: {error}") from error
        return mutated

    def digest(self, root: Path) -> str:
        """Returns a digest of everything that a result depends on: the entry, the file and its tests."""
        digest = hashlib.sha256(json.dumps([self.path, self.old, self.new, self.tests]).encode())
        for name in (self.path, *(word for word in shlex.split(self.tests) if not word.startswith("-"))):
            path = root / name.partition("::")[0]
            for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
                digest.update(file.read_bytes() if file.is_file() else b"")
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Result:
    """The outcome of a mutation: killed, hung (the time limit passed) or survived; and the seconds of its tests."""

    mutation: Mutation
    outcome: str
    seconds: float

    @property
    def is_kill(self) -> bool:
        return self.outcome != SURVIVED


def read_list(path: Path = LIST) -> list[Mutation]:
    """Returns the mutations of a TOML file: ``[[file]]`` tables with path, tests and ``lines = [[old, new], …]``."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["file"]
    return [
        Mutation(table["path"], old, new, table["tests"], *reason)
        for table in tables
        for old, new, *reason in table["lines"]
    ]


def find_faults(mutations: Iterable[Mutation], root: Path = ROOT) -> list[str]:
    """Returns a sentence for each mutation that cannot be applied to the code, or whose tests are not there."""
    faults = []
    for mutation in mutations:
        try:
            mutation.apply((root / mutation.path).read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            faults.append(str(error))
        words = [word for word in shlex.split(mutation.tests) if word.startswith("tests/")]
        missing = [word for word in words if not (root / word.partition("::")[0]).exists()]
        if missing or not words:
            faults.append(f"{mutation.path}: no such tests: {' '.join(missing) or '(none named)'}")
    return list(dict.fromkeys(faults))


def copy_tree(root: Path, to: Path) -> Path:
    """Copies what git knows of a working tree, and what it does not ignore, as the files are now."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (root / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, to / name)
    return to


def run_tests(root: Path, tests: str, limit: float) -> tuple[str, float, str]:
    """Returns the outcome of tests in a copy of the code, their seconds and the end of what they print.

    Raises ValueError where pytest could not run them (no test, a wrong option).
    """
    marked = "not gpu" if "::" in tests else "not slow and not gpu"  # a test that is named is run
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", marked]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    begun = time.monotonic()
    process = subprocess.Popen(
        [*words, *shlex.split(tests)], cwd=root, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        printed, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
        return HUNG, time.monotonic() - begun, printed[-2000:]
    seconds = time.monotonic() - begun
    if process.returncode not in (0, 1, 2):
        raise ValueError(f"pytest {tests} ended with exit code {process.returncode}: {printed[-500:]}")
    return (KILLED if process.returncode else SURVIVED), seconds, printed[-2000:]


def run_mutations(mutations: Sequence[Mutation], num_workers: int, results: Path, root: Path = ROOT) -> list[Result]:
    """Returns a result for each mutation; those that ``results`` holds already are not run again.

    Raises ValueError where a mutation does not apply, and, once all others have run, where tests fail on the unchanged
    code.
    """
    if faults := find_faults(mutations, root):
        raise ValueError("; ".join(faults))
    known = json.loads(results.read_text()) if results.is_file() else {}
    groups: dict[str, list[Mutation]] = defaultdict(list)
    lock = Lock()
    for mutation in mutations:
        if mutation.digest(root) not in known:
            groups[mutation.tests].append(mutation)
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder, ThreadPoolExecutor(num_workers) as pool:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(num_workers if groups else 0):
            copies.put(copy_tree(root, Path(folder) / str(number)))

        def run_group(tests: str) -> None:
            copy = copies.get()
            outcome, seconds, printed = run_tests(copy, tests, BASELINE_LIMIT)
            if outcome == SURVIVED:
                limit = max(SHORTEST_LIMIT, LIMIT_FACTOR * seconds)
                for mutation in groups[tests]:
                    result = _try(mutation, copy, limit)
                    with lock:
                        known[mutation.digest(root)] = {"outcome": result.outcome, "seconds": round(result.seconds, 1)}
                        weights.write_whole(results, json.dumps(known, indent=1).encode())
            else:
                faults.append(f"the tests {tests} fail on the unchanged code:\n{printed}")
            copies.put(copy)

        list(pool.map(run_group, groups))
    if faults:
        raise ValueError("; ".join(faults))
    return [Result(mutation, **known[mutation.digest(root)]) for mutation in mutations]


def _try(mutation: Mutation, copy: Path, limit: float) -> Result:
    """Returns the result of a mutation in a copy of the code, which is left as it was."""
    file = copy / mutation.path
    source = file.read_text(encoding="utf-8")
    file.write_text(mutation.apply(source), encoding="utf-8")
    try:
        outcome, seconds, _ = run_tests(copy, mutation.tests, limit)
    finally:
        file.write_text(source, encoding="utf-8")
    change = f"{mutation.path}: {mutation.old} -> {mutation.new}"
    print(f"{outcome} in {seconds:.0f} s: {change}", file=sys.stderr, flush=True)
    return Result(mutation, outcome, seconds)


def make_table(results: Sequence[Result]) -> str:
    """Returns the kills by file as a Markdown table, and a line for each survivor."""
    num, kills = (Counter(r.mutation.path for r in results if r.is_kill or every) for every in (True, False))
    total = f"| all | {len(results)} | {kills.total()} ({100 * kills.total() / max(len(results), 1):.0f} %) |"
    rows = [f"| `{path}` | {count} | {kills[path]} |" for path, count in sorted(num.items())]
    survivors = [
        f"- `{result.mutation.path}`: `{result.mutation.old}` → `{result.mutation.new}`: "
        f"{result.mutation.reason or 'not explained'}"
        for result in results
        if not result.is_kill
    ]
    table = "\n".join(["| file | mutations | killed |", "|---|---:|---:|", *rows, total])
    return "\n\n".join([table, *(["Survivors:", "\n".join(survivors)] if survivors else [])])


def write_table(results: Sequence[Result], page: Path) -> None:
    """Replaces what stands between the two marks of a page; ValueError where they are not there."""
    before, found, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"{page} lacks the marks {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{make_table(results)}\n{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the mutations and prints survivors; returns 1 where one survives without a reason in the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="mutations whose file or line holds one of the words")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="mutations at a time; default: 1")
    parser.add_argument("--results", type=Path, default=ROOT / "runs" / "mutations.json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="run nothing, print the entries that do not apply")
    parser.add_argument("--table", action="store_true", help="write the table of CONTRIBUTING.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parsed = parser.parse_args(arguments)
    mutations = read_list()
    if parsed.only:
        mutations = [each for each in mutations if any(word in f"{each.path} {each.old}" for word in parsed.only)]
    if parsed.check:
        faults = find_faults(mutations)
        print("\n".join([*faults, f"{len(mutations)} mutations, {len(faults)} that do not apply"]))
        return 1 if faults else 0
    try:
        results = run_mutations(mutations, parsed.workers, parsed.results)
        if parsed.table:
            write_table(results, ROOT / "CONTRIBUTING.md")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if parsed.json:
        rows = [{**vars(r.mutation), "outcome": r.outcome, "seconds": r.seconds} for r in results]
        print(json.dumps({"num": len(results), "num_killed": sum(r.is_kill for r in results), "mutations": rows}))
    else:
        print(make_table(results))
    return 0 if all(result.is_kill or result.mutation.reason for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Feeds corrupted files and settings to every reader of strangers' files, and counts what is not refused cleanly.

    python benchmarks/fuzz.py --num 20000 --seconds 1200 --seed 0

Each input is a valid file of its kind, made here, with bytes flipped, cut out, doubled or set to zero, or (JSON and
YAML) with values of other types, sizes, targets and paths. It may be used, or refused by ValueError or OSError in one
line. Anything else counts: another exception, more than five seconds, a process that dies, a gigabyte of memory. An
audit hook notes every file that is opened for writing outside the input's own folder, every program that is started and
every connection; the folder of a sentinel and a port of this machine are named in inputs, and must stay as they are.
Prints a table in Markdown, and the seed of each input that did not behave: the same seed makes the same input.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import multiprocessing
import os
import queue
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fuzzing import targets
from benchmarks.fuzzing.watch import Watch

SECONDS_AN_INPUT = 5.0
SECONDS_UNTIL_KILLED = 20.0
SECONDS_TO_START = 180.0
MEMORY = 1 << 30
SHOWN = 5


@dataclass
class Tally:
    """Counts the outcomes of one target's inputs."""

    used: int = 0
    refused: int = 0
    escaped: Counter[str] = field(default_factory=Counter)
    slow: int = 0
    died: int = 0
    large: int = 0
    acted: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    peak: int = 0
    seeds: list[str] = field(default_factory=list)

    @property
    def num(self) -> int:
        return self.used + self.refused + sum(self.escaped.values()) + self.died

    @property
    def clean(self) -> bool:
        return not (self.escaped or self.slow or self.died or self.large or self.acted)


@dataclass(frozen=True)
class Job:
    """The inputs of one target that a process runs: from ``start`` on, in order, for at most ``seconds``."""

    name: str
    seed: int
    start: int
    stop: int
    seconds: float
    base: str
    places: Mapping[str, str]


def work(job: Job, current: Any, began: Any, done: Any) -> None:
    """Runs a job's inputs and reports each. current, began: the number under way, and when it began; -1 for none."""
    os.chdir(job.base)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    import torch

    torch.set_num_threads(1)
    target = targets.TARGETS[job.name](Path(job.base), job.places)
    folder = Path(job.base) / "inputs" / str(os.getpid())
    target.run(target.valid(folder / "warm"))  # what is imported on first use is not an input's doing
    watch = Watch()
    signal.signal(signal.SIGALRM, _too_late)
    started = time.monotonic()
    for number in range(job.start, job.stop):
        path = folder / "input"
        shutil.rmtree(path, ignore_errors=True)
        made = _make_input(target, path, random.Random(f"{job.seed} {job.name} {number}"))
        watch.folder, watch.noted = str(path), Counter()
        before, began.value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        current.value = number
        signal.setitimer(signal.ITIMER_REAL, SECONDS_AN_INPUT)
        watch.active = True
        try:
            target.run(made)
            what = "used"
        except TimeoutError:  # an OSError too
            what = "slow"
        except (ValueError, OSError) as error:
            what = "refused" if "\n" not in str(error) else f"{type(error).__name__} of several lines"
        except BaseException as error:
            what = f"{type(error).__name__}: {str(error)[:80]}"
        finally:
            watch.active = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        taken = time.monotonic() - began.value
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        current.value = -1
        done.put((number, what, (taken, grown, dict(watch.noted))))
        if time.monotonic() - started > job.seconds:
            break
    done.put(None)


def _make_input(target: targets.Target, path: Path, generator: random.Random) -> Path:
    """Returns an input; the generator's next one where a corrupted tree cannot be written as a file of this kind."""
    while True:
        try:
            return target.make(path, generator)
        except (ValueError, RecursionError, OverflowError, TypeError):
            shutil.rmtree(path, ignore_errors=True)


def _too_late(*_: Any) -> None:
    raise TimeoutError


def fuzz(name: str, num: int, seconds: float, seed: int, base: str, places: Mapping[str, str]) -> Tally:
    """Returns the outcomes of ``num`` inputs of a target, or of those that ``seconds`` allow."""
    targets.TARGETS[name](Path(base), places)  # its valid files are written here, where a fault shows
    tally, context = Tally(), multiprocessing.get_context("spawn")
    number, left = 0, seconds
    while number < num and left > 0:
        current, began, done = context.Value("q", -1), context.Value("d", 0.0), context.Queue()
        job = Job(name, seed, number, num, left, base, places)
        process = context.Process(target=work, args=(job, current, began, done), daemon=True)
        process.start()
        first = time.monotonic()
        while True:
            try:
                found = done.get(timeout=0.5)
            except queue.Empty:
                waited = time.monotonic() - (began.value if current.value >= 0 else first + SECONDS_TO_START)
                if process.is_alive() and waited < SECONDS_UNTIL_KILLED:
                    continue
                break
            first = time.monotonic()
            if found is None:
                return tally
            number = found[0] + 1
            _count(tally, f"{name} {found[0]}", *found[1:])
        left -= time.monotonic() - first
        process.kill()
        process.join()
        tally.died += 1
        tally.seeds.append(f"{name} {number}: the process died or hung")
        number += 1
    return tally


def _count(tally: Tally, key: str, what: str, figures: tuple[float, int, dict[str, int]]) -> None:
    seconds, grown, acted = figures
    tally.slowest, tally.peak = max(tally.slowest, seconds), max(tally.peak, grown)
    if what == "used":
        tally.used += 1
    elif what == "refused":
        tally.refused += 1
    else:
        tally.escaped[what] += 1
    tally.slow += seconds > SECONDS_AN_INPUT
    tally.large += grown > MEMORY
    tally.acted.update(acted)
    if what not in ("used", "refused") or seconds > SECONDS_AN_INPUT or grown > MEMORY or acted:
        tally.seeds.append(f"{key}: {what}, {seconds:.1f} s, {grown / 1e6:.0f} MB{f', {acted}' if acted else ''}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=20_000, help="inputs in all, at most")
    parser.add_argument("--seconds", type=float, default=1200.0, help="for all of them, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", choices=targets.TARGETS, default=list(targets.TARGETS))
    parser.add_argument("--input", metavar="TARGET NUMBER", nargs=2, help="run one input here, with its traceback")
    parsed = parser.parse_args()
    base = tempfile.mkdtemp(prefix="fuzz-")
    sentinel = Path(base) / "sentinel"
    sentinel.mkdir()
    for file in ("precious.txt", "precious.wav", "model.json"):
        (sentinel / file).write_bytes(os.urandom(256))
    before = _digest(sentinel)
    listener = socket.create_server(("127.0.0.1", 0))
    visits = Counter[str]()
    threading.Thread(target=_listen, args=(listener, visits), daemon=True).start()
    places = {"sentinel": str(sentinel), "address": f"http://127.0.0.1:{listener.getsockname()[1]}/x"}
    if parsed.input:
        return _one(parsed.input[0], int(parsed.input[1]), parsed.seed, base, places)
    total = sum(targets.WEIGHTS[name] for name in parsed.targets)
    tallies, left = {}, parsed.seconds
    for name in parsed.targets:
        num, began = math.ceil(parsed.num * targets.WEIGHTS[name] / total), time.monotonic()
        tallies[name] = fuzz(name, num, left, parsed.seed, base, places)
        left -= time.monotonic() - began
        print(_row(name, tallies[name]), flush=True, file=sys.stderr)
    shutil.rmtree(Path(base) / "inputs", ignore_errors=True)
    unchanged = _digest(sentinel) == before
    print(_table(tallies))
    print(f"\nsentinel unchanged: {unchanged}; connections to the listener: {sum(visits.values())}; seed {parsed.seed}")
    for tally in tallies.values():
        print("".join(f"\n{line}" for line in tally.seeds[:SHOWN]), end="")
    print()
    shutil.rmtree(base, ignore_errors=True)
    return 0 if unchanged and not visits and all(tally.clean for tally in tallies.values()) else 1


def _one(name: str, number: int, seed: int, base: str, places: Mapping[str, str]) -> int:
    os.chdir(base)
    target = targets.TARGETS[name](Path(base), places)
    made = _make_input(target, Path(base) / "input", random.Random(f"{seed} {name} {number}"))
    print(made)
    target.run(made)
    return 0


def _listen(listener: socket.socket, visits: Counter[str]) -> None:
    while True:
        connection, address = listener.accept()
        visits[str(address)] += 1
        connection.close()


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


COLUMNS: Mapping[str, Callable[[Tally], Any]] = {
    "inputs": lambda tally: tally.num,
    "used": lambda tally: tally.used,
    "refused": lambda tally: tally.refused,
    "exceptions that escaped": lambda tally: sum(tally.escaped.values()),
    "over 5 s": lambda tally: tally.slow,
    "processes that died": lambda tally: tally.died,
    "over 1 GB": lambda tally: tally.large,
    "written, run or connected outside": lambda tally: sum(tally.acted.values()),
    "slowest, s": lambda tally: f"{tally.slowest:.2f}",
    "largest growth, MB": lambda tally: f"{tally.peak / 1e6:.0f}",
}


def _row(name: str, tally: Tally) -> str:
    return f"| {name} | {' | '.join(str(column(tally)) for column in COLUMNS.values())} |"


def _table(tallies: Mapping[str, Tally]) -> str:
    head = f"| target | {' | '.join(COLUMNS)} |\n|---|{'---:|' * len(COLUMNS)}"
    total = Tally()
    for tally in tallies.values():
        for key in ("used", "refused", "slow", "died", "large"):
            setattr(total, key, getattr(total, key) + getattr(tally, key))
        total.escaped.update(tally.escaped)
        total.acted.update(tally.acted)
        total.slowest, total.peak = max(total.slowest, tally.slowest), max(total.peak, tally.peak)
    return "\n".join([head, *(_row(name, tally) for name, tally in tallies.items()), _row("all", total)])


if __name__ == "__main__":
    sys.exit(main())

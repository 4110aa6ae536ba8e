"""The speed of a machine for a recipe: seconds of one sample in each kind of work, measured within a minute.

As many processes measure at once as the training will have, since cores share memory and heat.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from scm_media.build import build
from scm_media.evaluation.speed import EVALUATION, FIRST, AbsentData, Bench
from scm_media.evaluation.timing import in_turns
from scm_media.logs import quiet_libraries
from scm_media.training.context import Context, make_context
from scm_media.training.fingerprint import uses_features
from scm_media.training.optimization import Optimization, Task
from scm_media.training.stages.feature_extractor import ClassificationLoss

MOST_PROCESSES = 8
PROBES = 2
PROBED = 16
"""Samples of the steps that find out how many samples can be timed."""
STEP_SECONDS = 0.6
"""The longest step of the cheapest network that is timed."""
MOST_ROUNDS = 3
ROUNDS_SECONDS = 6.0
"""The seconds of the rounds of one set of jobs."""
NUM_READ = 16
READING_SECONDS = 2.0
FEATURE_BATCH = 16
AUTOENCODER_BATCH = 4
"""Samples of an autoencoder's steps, and of encoding and decoding, which may take seconds each."""

WORK = {FIRST: "diffusion", EVALUATION: "evaluation", "warm start step": "regression"}
"""Names in the speed table, and the names here, where the student's own step is "student"."""
EXCHANGE = 1.05
"""The factor on a training step of several processes, which exchange their gradients."""
CODING = {"encoding": "encode", "decoding": "decode"}
ROWS, STUDENT_EVALUATIONS = 4, 1 + 2 + 4
"""Rows of an evaluation (the teacher, and 1, 2 and 4 steps), and evaluations of the student in them."""
TIMED = 110
"""Samples that an evaluation makes in each row besides, to measure their seconds."""


@dataclass(frozen=True)
class Request:
    """Says what is measured, and on how many processes.

    config: a composed recipe. networks: keys of the backbone, the cheapest network first, whose work is measured in
    all its kinds; guide: those of the guide. costs: relative costs of the networks. label_names: label to classes.
    files: some of the data. device: "cpu" or "cuda". seconds: the time after which no other network is begun.
    batch_size: samples of a step, of all processes together.
    """

    config: Mapping[str, Any]
    networks: Sequence[Mapping[str, Any]]
    guide: Mapping[str, Any]
    costs: Sequence[float]
    label_names: Mapping[str, tuple[str, ...]]
    files: Sequence[Path]
    device: str
    num_processes: int
    seconds: float = 40.0
    batch_size: int = 64


@dataclass(frozen=True)
class Machine:
    """Holds the measured speed of a machine.

    seconds: those of a sample in one of the processes, by the kind of work: diffusion (a training step), evaluation,
    regression, student, encode, decode, load, feature_step, feature, autoencoder_step; the last three only where the
    recipe has these networks. networks: seconds of diffusion and evaluation of each network. guide: those of the guide.
    """

    device: str
    num_processes: int
    precision: str
    seconds: Mapping[str, float]
    networks: Sequence[tuple[float, float]]
    guide: tuple[float, float]


def count_processes(device: str) -> int:
    """Returns the number of processes that train best: on CPUs a power of two, at most one a core; on GPUs one."""
    if device != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 << (min(cores, MOST_PROCESSES).bit_length() - 1)


def measure_machine(request: Request) -> Machine:
    """Returns the speed of this machine; bf16 is left out where float32 is faster, as on CPUs without it."""
    deadline = time.monotonic() + request.seconds
    num = request.num_processes
    precisions = [request.config["precision"]]
    if request.device == "cpu" and precisions != ["32-true"]:
        precisions.append("32-true")
    with _workers(num) as workers:
        probes = list(workers.map(_probe, repeat(request, num), repeat(precisions, num)))
        found = {precision: mean(probe[precision] for probe in probes) for precision in precisions}
        precision = min(precisions, key=lambda name: found[name])
        size = min(request.batch_size // num, max(1, int(STEP_SECONDS / found[precision])))
        size = 1 << (size.bit_length() - 1)
        config = {**request.config, "precision": precision}
        asked = replace(request, config=config, batch_size=size, seconds=deadline - time.monotonic())
        measured = list(workers.map(_measure, repeat(asked, num)))
    seconds = {what: mean(each[what] for each in measured) for what in measured[0] if isinstance(what, str)}
    known = {
        number: tuple(mean(each[number][kind] for each in measured) for kind in range(2))
        for number in range(-1, len(request.networks))
        if all(number in each for each in measured)
    }
    largest = max(known)
    networks = []
    for number, cost in enumerate(request.costs):
        if number in known:
            networks.append(known[number])
        else:
            networks.append(tuple(each * cost / request.costs[largest] for each in known[largest]))
    return Machine(request.device, num, precision, seconds, networks, known[-1])


def _workers(num: int) -> AbstractContextManager[Executor]:
    """Returns an executor of so many processes that share the cores, or of this process for one."""
    if num == 1:
        return ThreadPoolExecutor(1)
    threads = max(1, torch.get_num_threads() // num)
    return ProcessPoolExecutor(num, get_context("spawn"), _begin_process, (threads,))


def _begin_process(threads: int) -> None:
    torch.set_num_threads(threads)
    quiet_libraries()


def _context(request: Request, network: Mapping[str, Any], precision: str) -> Context:
    config = {
        **request.config,
        "precision": precision,
        "backbone": {**request.config["backbone"], **network},
        "guide": {**request.config["guide"], "backbone": request.guide},
        "trainer": {**request.config["trainer"], "compile": False},
    }
    modality = build(config["modality"], "modality")
    data = AbsentData(modality.shape(), request.label_names)
    return make_context(config, modality, data, data)


def _probe(request: Request, precisions: Sequence[str]) -> dict[str, float]:
    """Returns the seconds of a sample in a training step of the cheapest network, by precision."""
    device, jobs = torch.device(request.device), {}
    for precision in precisions:
        bench = Bench(_context(request, request.networks[0], precision), device, PROBED)
        jobs[precision] = bench.network_jobs()[FIRST]
        jobs[precision]()
    return {precision: min(seconds) / PROBED for precision, seconds in in_turns(jobs, PROBES).items()}


def _time(jobs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Returns the median seconds of each job after a warm-up, in fewer rounds of slow jobs."""
    begun = time.monotonic()
    for job in jobs.values():
        job()
    rounds = min(MOST_ROUNDS, max(1, int(ROUNDS_SECONDS / (time.monotonic() - begun + 1e-9))))
    return {what: median(each) for what, each in in_turns(jobs, rounds).items()}


def _measure(request: Request) -> dict[Any, Any]:
    """Returns seconds of a sample by the kind of work, and of networks by their number (−1: the guide)."""
    begun, device, size = time.monotonic(), torch.device(request.device), request.batch_size
    precision = request.config["precision"]
    context = _context(request, request.networks[0], precision)
    bench = Bench(context, device, size)
    work = {**WORK, bench.student_step: "student"}
    jobs = {name: job for name, job in bench.jobs().items() if name in work}
    found: dict[Any, Any] = {work[what]: seconds / size for what, seconds in _time(jobs).items()}
    found["load"] = _time_reading(context.modality, request.files)
    few = Bench(context, device, min(size, AUTOENCODER_BATCH))
    coding = {what: job for what, job in few.jobs().items() if what in CODING}
    found |= {CODING[what]: seconds / few.batch_size for what, seconds in _time(coding).items()}
    others = other_jobs(context, bench, min(size, FEATURE_BATCH))
    timed = _time({what: job for what, (job, _) in others.items()})
    found |= {what: timed[what] / num for what, (_, num) in others.items()}
    found[0] = (found["diffusion"], found["evaluation"])
    networks = [(-1, request.guide), *list(enumerate(request.networks))[1:]]
    costs = {-1: 1.0, **dict(enumerate(request.costs))}
    for number, network in networks:
        # Warm-up and one round, of a training step and of an evaluation.
        expected = 2 * 1.5 * size * found["diffusion"] * costs[number] / costs[0]
        if number > 0 and time.monotonic() - begun + expected > request.seconds:
            break
        seconds = _time(Bench(_context(request, network, precision), device, size).network_jobs())
        found[number] = tuple(each / size for each in seconds.values())
    return found


def evaluated_seconds(calls: int, guided: float, evaluation: float, measured: float) -> float:
    """Returns the seconds of a sample in all rows of an evaluation.

    calls: evaluations of the guided teacher, which take guided seconds each. evaluation: seconds of the student's.
    measured: seconds in which a sample is decoded and its features are computed.
    """
    return calls * guided + STUDENT_EVALUATIONS * evaluation + ROWS * measured


def _time_reading(modality: Any, files: Iterable[Path]) -> float:
    """Returns the seconds in which a file becomes a sample; files that cannot be read are passed over."""
    generator, begun, num = torch.Generator().manual_seed(0), time.monotonic(), 0
    for path in list(files)[:NUM_READ]:
        try:
            modality.read_transformed(path, generator)
        except Exception:  # whatever a decoder raises: training leaves such files out too
            continue
        num += 1
        if time.monotonic() - begun > READING_SECONDS:
            break
    return (time.monotonic() - begun) / max(1, num)


def other_jobs(context: Context, bench: Bench, size: int) -> dict[str, tuple[Callable[[], object], int]]:
    """Returns steps of the feature extractor and of the autoencoder, and the features of samples, with batch sizes."""
    config, device = context.config, bench.device
    jobs: dict[str, tuple[Callable[[], object], int]] = {}
    sample = torch.rand(size, *context.data.shape, device=device) * 2 - 1
    features = None
    if config["feature_extractor"] is not None and context.num_classes:
        network = {**config["feature_extractor"]["network"], "labels": context.num_classes}
        features = build(network, "feature_extractor").to(device)
        labels = {name: torch.zeros(size, dtype=torch.int64, device=device) for name in context.num_classes}
        step = _step(bench, "feature_extractor", ClassificationLoss(features), features, (sample, labels))
        jobs = {"feature_step": (step, size), "feature": (partial(_embed, features, sample), size)}
    if context.trains_autoencoder:
        sample = sample[:AUTOENCODER_BATCH]
        autoencoder = build(config["autoencoder"]["network"], "autoencoder").to(device)
        if hasattr(autoencoder, "prepare"):
            autoencoder.prepare([sample])
        given = features if uses_features(config) else None
        loss = build(config["autoencoder"]["loss"], "loss", network=autoencoder, feature_extractor=given).to(device)
        jobs["autoencoder_step"] = (_step(bench, "autoencoder", loss, autoencoder, (sample,)), len(sample))
    return jobs


def _embed(network: Any, sample: Tensor) -> None:
    with torch.inference_mode():
        network.features(sample).cpu()


def _step(bench: Bench, stage: str, loss: Any, model: Any, arguments: tuple[Any, ...]) -> Callable[[], object]:
    """Returns a function that takes a training step of a stage that trains no backbone."""
    from scm_media.fabric import Fabric

    config, device = bench.context.config, bench.device
    precision: Any = "32-true" if stage == "feature_extractor" else config[stage]["precision"] or config["precision"]
    fabric = Fabric(accelerator=device.type, devices=1, precision=precision)
    settings = {"warmup_steps": 0, "decay": "cosine", "ema_std": 0.05} | config[stage]
    task = Task(stage, loss, model, settings, lambda batch: arguments, lambda *_: None)
    optimization = Optimization(fabric, task, {**config["trainer"], "accumulate": 1}, config["seed"])
    return lambda: bench.step(optimization, repeat(arguments))

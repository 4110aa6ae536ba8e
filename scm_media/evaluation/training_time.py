"""Estimates the time that a training takes, from a few steps of its networks that are timed before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from scm_media.evaluation.machine import AUTOENCODER_BATCH, EXCHANGE, TIMED, evaluated_seconds, other_jobs
from scm_media.evaluation.speed import AbsentData, Bench
from scm_media.prompts import LABEL as PROMPT
from scm_media.samplers import SAMPLERS
from scm_media.training.context import Context, make_context
from scm_media.training.fingerprint import stage_settings
from scm_media.training.forecast import Forecast, guided_cost
from scm_media.training.texts import stand_in

FEWEST, MOST_SAMPLES = 16, {"cpu": 16, "cuda": 256}
"""Samples of a timed step at most: on a CPU a larger batch takes longer and says the same; a GPU is only busy with one.
Networks that cannot be timed with the fewest are not timed."""
MOST_SECONDS = 20.0
"""The longest that the steps may be expected to take; larger networks are not timed."""
SLOWEST = {"cpu": 5e9, "cuda": 1e12}
"""Multiply-adds in a second that a device makes at least; others count as a CPU."""
OTHER_STEPS = {"feature_extractor": "feature_step", "autoencoder": "autoencoder_step"}
"""Stages that train no backbone, with the names of their steps among ``other_jobs``."""
STEP_FACTOR, STEPS = 3, 3
"""Forward passes that a step is worth, and the steps that are made: the warm-up, the timed one, and those of other
networks."""


def expected_seconds(context: Context, stages: Sequence[str], multiply_adds: int) -> dict[str, float] | None:
    """Returns the seconds of each stage, of ``latents`` before and of ``evaluation`` after; None if it cannot be told.

    stages: those that are still to be trained; the evaluation of ``num_evaluated`` samples follows where the student is
    one of them and the recipe has features to measure it in. multiply_adds: of one forward pass of one sample. Networks
    are timed with fresh weights and noise, on one device: reading files, previews and validation are not counted. It is
    not told for networks that are taken from elsewhere, or too large to be timed in seconds.
    """
    config, device = context.config, context.device
    if context.source is not None or config["context_parallel"] > 1:
        return None
    size = timed_samples(config, device.type, multiply_adds)
    if size == 0:
        return None
    with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        return _seconds(context, stages, device, size)


def timed_samples(config: Mapping[str, Any], device: str, multiply_adds: int) -> int:
    """Returns the samples of a timed step: those of a device's pass in training, or fewer; 0 for too large networks.

    device: the type of PyTorch's. multiply_adds: of one forward pass of one sample.
    """
    passes = config["num_devices"] * config["num_nodes"] * config["trainer"]["accumulate"]
    kind = device if device in SLOWEST else "cpu"
    size = min(max(1, config["teacher"]["batch_size"] // passes), MOST_SAMPLES[kind])
    most = int(MOST_SECONDS * SLOWEST[kind] / (STEPS * STEP_FACTOR * multiply_adds))
    return min(size, most) if most >= min(size, FEWEST) else 0


def _seconds(context: Context, stages: Sequence[str], device: torch.device, size: int) -> dict[str, float]:
    config = context.config
    devices = config["num_devices"] * config["num_nodes"]
    timed = _without_data(context)
    bench = Bench(timed, device, size)
    step, evaluation = (_time(job) / size for job in bench.network_jobs().values())
    evaluated = config["num_evaluated"] if "student" in stages else 0
    wanted = {OTHER_STEPS[stage] for stage in OTHER_STEPS if stage in stages} | ({"feature"} if evaluated else set())
    jobs = other_jobs(timed, bench, size)
    others = {what: _time(job) / num for what, (job, num) in jobs.items() if what in wanted}
    exchange = EXCHANGE if devices > 1 else 1.0
    forecast = Forecast(config, stages, context.run_dir)
    found = {}
    for stage in stages:
        if stage not in OTHER_STEPS:
            found[stage] = forecast.work.get(stage, 0.0) * step
        elif OTHER_STEPS[stage] in others:
            settings = stage_settings(config, stage)
            found[stage] = settings["max_steps"] * settings["batch_size"] * others[OTHER_STEPS[stage]]
    encodes = config["latents"]["automatic"] and {"teacher", "guide"} & set(stages)
    measures = evaluated and "feature" in others
    few = Bench(timed, device, min(size, AUTOENCODER_BATCH)) if encodes or measures else None
    coding = {} if few is None else {what: (job, few.batch_size) for what, job in few.jobs().items()}
    if encodes:
        job, num = coding["encoding"]
        encoded = (len(context.data) + len(context.held_out)) * config["latents"]["variants"]
        found = {"latents": encoded * _time(job) / num, **found}
    found = {stage: exchange * seconds / devices for stage, seconds in found.items() if seconds > 0}
    if measures:
        job, num = coding["decoding"]
        sampler = SAMPLERS.find(config["sampler"]["teacher"], "sampler.teacher")
        calls, guided = sampler.evaluations(config["sampler"]["teacher_steps"]), guided_cost(config) * evaluation
        seconds = evaluated_seconds(calls, guided, evaluation, _time(job) / num + others["feature"])
        found["evaluation"] = (evaluated + TIMED) * seconds  # by one process, whatever number trained
    return found


def _without_data(context: Context) -> Context:
    """Returns the context of the same networks, whose data are never read, and whose texts need no encoder."""
    names: Mapping[str, tuple[str, ...]] = {
        name: tuple(classes) for name, classes in context.data.label_names.items() if name != PROMPT
    }
    data = AbsentData(context.data.shape, names)
    config: dict[str, Any] = {**context.config, "trainer": {**context.config["trainer"], "compile": False}}
    found = make_context(config, context.modality, data, data)
    stand_in(found)
    return found


def _time(job: Callable[[], object]) -> float:
    """Returns the seconds of a job after a warm-up."""
    job()
    begun = time.perf_counter()
    job()
    return time.perf_counter() - begun

"""The speed of a machine: every kind of work is timed, and networks that time was too short for are extrapolated."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import pytest
import torch
from PIL import Image

from scm_media import recipe
from scm_media.evaluation import machine
from scm_media.evaluation.machine import Request, count_processes, measure_machine
from scm_media.logs import CHATTY
from tests.training.small import SMALL


@pytest.fixture
def request_of_small(tmp_path):
    for number in range(3):
        Image.new("L", (16, 16), number).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"")
    own = [override for override in SMALL if override != "feature_extractor=null"]
    more = ["++guide={backbone: {}, max_steps: 1}", "++trajectories={num: 64}", "++warm_start={max_steps: 1}"]
    losses = [
        "optimizer@student.optimizer=adam",
        "loss@student.loss=distribution_matching",
        "~student.loss.tangent_warmup",
    ]
    base = [override for override in own if not override.startswith("student.loss")]
    config = recipe.compose("image/tiny", [*base, *more, *losses, "sampler.guidance=1.25"])
    return Request(
        config=config,
        networks=[{"width": 16, "depth": 1}, {"width": 64, "depth": 4}, {"width": 128, "depth": 4}],
        guide={"width": 16, "depth": 1},
        costs=[1.0, 60.0, 240.0],
        label_names={"class": ("a", "b")},
        files=sorted(tmp_path.glob("*.png")),
        device="cpu",
        num_processes=1,
        batch_size=16,
    )


def test_every_kind_of_work_is_timed(request_of_small):
    for _ in range(3):  # a step of these networks takes milliseconds, and other work comes between
        found = measure_machine(request_of_small)
        if found.seconds["evaluation"] < found.seconds["diffusion"] < found.seconds["student"]:
            break
    kinds = {"diffusion", "evaluation", "regression", "student", "encode", "decode", "load", "feature_step", "feature"}
    assert found.seconds.keys() == kinds
    assert all(0 < seconds < 1 for seconds in found.seconds.values())
    assert found.seconds["evaluation"] < found.seconds["diffusion"] < found.seconds["student"]
    assert found.networks[0][0] < found.networks[1][0] < found.networks[2][0]
    assert found.networks[0] == (found.seconds["diffusion"], found.seconds["evaluation"])
    assert (found.device, found.num_processes) == ("cpu", 1)
    assert found.precision in ("32-true", request_of_small.config["precision"])


def test_networks_that_time_is_too_short_for_are_extrapolated(request_of_small):
    found = measure_machine(replace(request_of_small, seconds=0.0))
    assert found.networks[2][0] == pytest.approx(240 * found.networks[0][0])
    assert found.networks[1][1] == pytest.approx(60 * found.networks[0][1])
    assert len(found.guide) == 2


def test_the_faster_precision_is_taken(request_of_small, monkeypatch):
    given = replace(request_of_small, config={**request_of_small.config, "precision": "bf16-mixed"}, seconds=0.0)
    for faster in ("bf16-mixed", "32-true"):
        monkeypatch.setattr(
            machine,
            "_probe",
            lambda request, names, best=faster: {name: 1e-3 if name == best else 2e-3 for name in names},
        )
        assert measure_machine(given).precision == faster


def test_reading_passes_over_what_cannot_be_read(request_of_small):
    class Slow:
        def read_transformed(self, path, generator):
            if path.name == "broken.png":
                raise RuntimeError("no picture")
            time.sleep(0.01)

    assert 0.01 <= machine._time_reading(Slow(), request_of_small.files) < 0.05


def test_processes_are_a_power_of_two_within_the_cores(monkeypatch):
    for cores, expected in ((1, 1), (2, 2), (3, 2), (6, 4), (64, 8)):
        monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid, num=cores: set(range(num)), raising=False)
        assert count_processes("cpu") == expected
    assert count_processes("cuda") == 1


@pytest.mark.slow
def test_several_processes_measure_at_once_and_agree(request_of_small, capfd):
    found = measure_machine(replace(request_of_small, num_processes=2))
    assert "Precision" not in capfd.readouterr().err, "libraries tell of themselves"
    assert found.num_processes == 2
    assert all(0 < seconds < 5 for seconds in found.seconds.values())
    assert torch.get_num_threads() >= 1


def test_processes_that_measure_are_quiet_too(logged, monkeypatch):
    # Fabric's own logger prints where none was set up before it was imported, and passes nothing on.
    monkeypatch.setattr(logging.getLogger("lightning_fabric"), "propagate", True)
    machine._begin_process(torch.get_num_threads())
    for name in CHATTY:
        logging.getLogger(name).info("which precision")
        logging.getLogger(name).warning("what is wrong")
    assert logged == ["what is wrong"] * len(CHATTY)

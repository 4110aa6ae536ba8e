"""Reads what ``train`` says before it starts and when it is done, and what it says without a recipe."""

from __future__ import annotations

import re
import shlex

import pytest
import torch

from scm_media import recipe
from scm_media.cli import expected, main
from scm_media.cli.expected import disk_bytes, expectation, find_warnings, free_disk, free_memory
from scm_media.cli.next_steps import after_training
from scm_media.evaluation.training_time import expected_seconds, timed_samples
from scm_media.training.context import prepare
from tests.training.small import SMALL

GIB = 2**30
ENOUGH = (GIB, 4 * GIB)


def context(*more: str):
    return prepare(recipe.compose("image/tiny", [*SMALL, *more]))


def test_nothing_is_warned_of_where_all_fits_or_is_unknown():
    assert find_warnings(ENOUGH, ENOUGH, (1.0, 2.0), "runs") == []
    assert find_warnings((GIB, None), (GIB, None), (None, 2.0), "runs") == []
    assert find_warnings(ENOUGH, ENOUGH, (9.0, None), "runs") == []


def test_memory_disk_and_hours_that_do_not_suffice_are_warned_of():
    (memory,) = find_warnings((8 * GIB, 3 * GIB), ENOUGH, (None, None), "runs")
    assert memory.startswith("warning: about 8 GiB of memory are needed, and 3 GiB are free") and "accumulate" in memory
    (disk,) = find_warnings(ENOUGH, (9 * GIB, 0.5 * GIB), (None, None), "runs/x")
    assert "9 GiB of disk are needed, and 0.5 GiB are free at runs/x: set run_dir" in disk
    (hours,) = find_warnings(ENOUGH, ENOUGH, (3.25, 2.0), "runs")
    assert "about 3.2 hours are expected for training and evaluation, and hours=2 is given" in hours


def test_the_disk_holds_checkpoints_latents_and_trajectories():
    config = recipe.compose("image/folder", ["++data.root=.", "latents.variants=3", "trajectories.num=100"])
    million, latent = 1_000_000, 16 * 8 * 8 * 2
    snapshots = 2 * config["trainer"]["keep_snapshots"]
    each = 4 * million * (1 + 4 * config["trainer"]["keep_checkpoints"] + snapshots)
    assert disk_bytes(config, ["autoencoder"], million, 50, (16, 8, 8)) == 0
    assert disk_bytes(config, ["teacher"], million, 50, (16, 8, 8)) == each + 50 * 3 * latent
    assert disk_bytes(config, ["trajectories"], million, 50, (16, 8, 8)) == 100 * 18 * latent
    without = {**config, "trainer": {**config["trainer"], "snapshot_every": 0}}
    assert disk_bytes(without, ["guide", "student"], million, 0, (16, 8, 8)) == 2 * (each - 4 * million * snapshots)


def test_free_memory_is_what_the_system_says(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:  100 kB\nMemAvailable:   2048 kB\n")
    no_limit = tmp_path / "none"
    assert free_memory(True, tmp_path / "meminfo", no_limit) == 2048 * 1024
    assert free_memory(True, tmp_path / "none", no_limit) is None
    assert free_disk(tmp_path / "not" / "there") == pytest.approx(free_disk(tmp_path), rel=0.05)


def test_a_container_has_the_memory_that_it_is_given(tmp_path):
    meminfo, group = tmp_path / "meminfo", tmp_path / "group"
    meminfo.write_text("MemAvailable:   2048 kB\n")
    group.mkdir()
    (group / "memory.current").write_text("700000\n")
    (group / "memory.stat").write_text("anon 500000\ninactive_file 150000\n")
    for limit, expected_bytes in (("1000000\n", 450_000), ("500000\n", 0), ("9000000\n", 2**21), ("max\n", 2**21)):
        (group / "memory.max").write_text(limit)
        assert free_memory(True, meminfo, group) == expected_bytes, limit


def test_times_are_measured_and_grow_with_the_steps():
    found = expected_seconds(context(), ("autoencoder", "teacher", "student"), 1000)
    assert found.keys() == {"teacher", "student"}, "the autoencoder of pixels has no steps"
    assert 0 < found["teacher"] < found["student"] < 60
    longer = expected_seconds(context("teacher.max_steps=600"), ("teacher",), 1000)
    assert longer["teacher"] > 20 * found["teacher"]


def test_the_evaluation_that_hours_count_is_timed_with_its_samples():
    small = [word for word in SMALL if word != "feature_extractor=null"]
    found = {
        num: expected_seconds(prepare(recipe.compose("image/tiny", [*small, f"num_evaluated={num}"])), stages, 1000)
        for num, stages in ((0, ("student",)), (90, ("student",)), (8890, ("student",)), (91, ("teacher",)))
    }
    assert list(found[90]) == ["student", "evaluation"] and list(found[0]) == ["student"]
    assert list(found[91]) == ["teacher"], "nothing is measured of a run without a student"
    assert 10 < found[8890]["evaluation"] / found[90]["evaluation"] < 200, "45 times as many, with 110 to warm up"


def test_a_gpu_is_timed_with_the_samples_of_a_pass_and_a_cpu_with_few():
    config = recipe.compose("image/tiny", ["teacher.batch_size=512"])
    assert timed_samples(config, "cpu", 1000) == timed_samples(config, "mps", 1000) == 16
    assert timed_samples(config, "cuda", 1000) == 256, "16 samples leave it idle, and each would seem to take longer"
    divided = recipe.compose("image/tiny", ["teacher.batch_size=512", "num_devices=2", "trainer.accumulate=4"])
    assert timed_samples(divided, "cuda", 1000) == 64
    assert 16 < timed_samples(config, "cuda", 10**11) < 256, "a large network keeps a GPU busy with few"
    assert timed_samples(config, "cuda", 10**12) == timed_samples(config, "cpu", 10**10) == 0


def test_times_of_the_networks_before_the_teacher_are_measured_too():
    small = [word for word in SMALL if word != "feature_extractor=null"]
    more = ["autoencoder=kl", "backbone.patch=1", "autoencoder.max_steps=7", "autoencoder.loss.perceptual=gradients"]
    more += [
        "autoencoder.network.width=16",
        "latents.automatic=true",
        "latents.variants=2",
        "autoencoder.num_samples=8",
    ]
    given = prepare(recipe.compose("image/tiny", [*small, *more]))
    found = expected_seconds(given, ("feature_extractor", "autoencoder", "teacher"), 1000)
    assert list(found) == ["latents", "feature_extractor", "autoencoder", "teacher"]
    assert all(0 < seconds < 600 for seconds in found.values())


def test_networks_that_are_too_large_are_not_timed_and_numbers_stay_as_drawn():
    assert expected_seconds(context(), ("teacher",), 10**12) is None
    torch.manual_seed(3)
    drawn = torch.rand(2)
    torch.manual_seed(3)
    expected_seconds(context(), ("teacher",), 1000)  # its context seeds, before the time is measured
    given = context()
    torch.manual_seed(3)
    expected_seconds(given, ("teacher",), 1000)
    assert torch.equal(torch.rand(2), drawn)


def test_what_is_expected_is_said_with_warnings(monkeypatch, tmp_path):
    monkeypatch.setattr(expected, "free_memory", lambda on_cpu: 2**20)
    monkeypatch.setattr(expected, "free_disk", lambda folder: 2**10)
    said = expectation(context(f"run_dir={tmp_path}/a", "hours=1e-7"), ("teacher", "student"))
    assert re.search(
        r"\nexpected: about \d:\d\d min on this machine.*, [\d.]+ MiB of disk in .*/a \(each stage says", said
    )
    assert said.count("\nwarning: ") == 3
    monkeypatch.setattr("scm_media.evaluation.training_time.expected_seconds", lambda *_: 1 / 0)
    assert "expected: a time that is not known yet, " in expectation(context(), ("teacher",))


def test_train_without_a_recipe_says_what_to_do_with_commands_that_exist(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    commands = re.findall(r"^  scm-media (.*?)(?:  |$)", said, flags=re.MULTILINE)
    assert [words.split()[0] for words in commands] == ["recipes", "check", "train", "generate", "train", "generate"]
    assert "image/tiny" in recipe.names() and "Traceback" not in said


def test_the_commands_after_a_training_work_as_they_are_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for taken in ("image-tiny-samples", "image-tiny-model"):
        (tmp_path / taken).mkdir()
    (tmp_path / "image-tiny-model-2").write_text("")
    assert main(["train", "image/tiny", *SMALL, "run_dir=my runs/a"]) == 0
    said = capsys.readouterr().err
    assert "image-tiny-samples-2" in said and "image-tiny-model-3" in said, "the other names are taken"
    assert "'my runs/a' is a model now; next:" in said and "(no figures by scm-media evaluate" in said
    commands = re.findall(r"^  scm-media (.*)$", said, flags=re.MULTILINE)
    assert [each.split()[0] for each in commands] == ["generate", "export"]
    assert main(["evaluate", "my runs/a", "-n", "4"]) == 1
    said = capsys.readouterr().err
    assert "holds no feature_extractor" in said and "figures are measured in one" in said and "not done" not in said
    for each in commands:
        assert main(shlex.split(each)) == 0, each
    assert len(list((tmp_path / "image-tiny-samples-2").glob("*.png"))) == 8
    assert (tmp_path / "image-tiny-model-3" / "model.json").is_file()


def test_a_part_of_a_training_says_what_is_left(tmp_path):
    config = {"run_dir": str(tmp_path), "recipe": "mine", "student": {"max_steps": 9}, "precision": "bf16-mixed"}
    config["num_evaluated"] = 133
    assert "no model yet; the same train command" in after_training(config)
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "weights.safetensors").write_bytes(b"")
    said = after_training(config)
    assert f"scm-media generate {tmp_path} --teacher" in said and "trains what is left" in said
    alone = after_training({**config, "student": {"max_steps": 0}})
    assert "student.max_steps is 0" in alone and "trains what is left" not in alone
    for stage in ("student", "feature_extractor"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "weights.safetensors").write_bytes(b"")
    assert f"  scm-media evaluate {tmp_path} -n 133 --precision bf16\n" in after_training(config)
    said = after_training({**config, "precision": "32-true", "num_evaluated": 0})
    assert f"  scm-media evaluate {tmp_path} -n 100  # the hours of the recipe leave no time for it\n" in said


def test_a_folder_and_an_empty_file_in_place_of_a_recipe_say_how_to_get_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drums").mkdir()
    (tmp_path / "mine.yaml").write_text("")
    assert main(["train", "drums"]) == 1
    assert "drums is a folder, expected a recipe: scm-media recipes --for FOLDER" in capsys.readouterr().err
    assert main(["check", "mine.yaml"]) == 1
    assert "mine.yaml: the file is empty; what was to write it (scm-media recipes" in capsys.readouterr().err


def test_a_run_that_is_not_done_says_so_when_it_is_sampled(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "image/tiny", *SMALL, "run_dir=a", "stage=autoencoder"]) == 0
    assert "a: no model yet; the same train command without stage=" in capsys.readouterr().err
    assert main(["generate", "a", "-n", "2"]) == 1
    assert "its training is not done: the scm-media train command that began it goes on" in capsys.readouterr().err

"""Trajectories of a teacher: they end where its sampler does, are written once, and train what comes after."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

import scm_media
from scm_media import recipe, training, weights
from scm_media.cli import main
from scm_media.conditioning import Conditioning
from scm_media.latents.manifest import shard_file
from scm_media.latents.trajectories import TrajectoryDataset, TrajectoryManifest
from scm_media.samplers import sample_dpm_solver
from scm_media.seeds import mix
from scm_media.settings import Trajectories, WarmStart, default_values
from scm_media.training import encoding
from scm_media.training.context import prepare
from scm_media.training.stages import TASKS
from scm_media.training.trajectories import select_data, write_trajectories
from tests.training.small import SMALL, metrics, same, state, train

PLAIN = (
    "modality.flip=false",
    "+trajectories.num=40",
    "+trajectories.steps=5",
    "+trajectories.batch_size=8",
    "+trajectories.shard_size=16",
    "+trajectories.dtype=float32",
)
WARM = (*PLAIN, "+warm_start.max_steps=6", "+warm_start.batch_size=8")


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    return train(tmp_path_factory.mktemp("taught"), *PLAIN, "student.max_steps=0")


@pytest.fixture
def run_dir(taught, tmp_path):
    """A run with a teacher and its trajectories."""
    return shutil.copytree(taught, tmp_path / "run")


def context_of(run_dir, *overrides):
    return prepare(recipe.compose("image/tiny", [*SMALL, *PLAIN, f"run_dir={run_dir}", *overrides]))


def shards(run_dir):
    files = sorted((run_dir / "trajectories").glob("*.safetensors"))
    return {file.name: weights.digest(weights.read(file)) for file in files}


def test_a_trajectory_ends_where_the_teachers_sampler_ends(run_dir):
    context = context_of(run_dir)
    manifest = TrajectoryManifest.load(run_dir / "trajectories")
    assert len(manifest.times) == 5 and manifest.variants == 6 and manifest.num_shards == 3
    kept = weights.read(shard_file(run_dir / "trajectories", 1)).state
    assert kept["latents"].shape == (16, 6, 1, 16, 16)
    teacher = context.load_trained("teacher")
    for first in (0, 8):
        end, *points = kept["latents"][first : first + 8].unbind(1)
        cond = Conditioning(labels={"class": kept["label.class"][first : first + 8]})
        times = [*manifest.times, 0.0]
        assert torch.allclose(sample_dpm_solver(teacher, context.flow, points[0], times, cond), end, atol=1e-6)
        seen = []
        keep = lambda i, t, x0, seen=seen: seen.append(x0)  # noqa: E731
        sample_dpm_solver(teacher, context.flow, points[0], times, cond, callback=keep)
        for time, point, x0 in zip(times, points, seen, strict=False):
            t = torch.full((8,), time)
            F = teacher(point / context.flow.sigma_data, t, cond)
            assert torch.allclose(context.flow.denoise(point, F, t), x0, atol=1e-5)
    noise = torch.cat([shard["latents"][:, 1] for shard in _read_all(run_dir)])
    assert abs(noise.std().item() - context.flow.sigma_data) < 0.02
    assert len(noise.flatten(1).unique(dim=0)) == 40


def _read_all(run_dir):
    manifest = TrajectoryManifest.load(run_dir / "trajectories")
    return [weights.read(shard_file(run_dir / "trajectories", number)).state for number in range(manifest.num_shards)]


def test_labels_are_those_of_the_data_in_their_proportions(run_dir):
    context = context_of(run_dir)
    labels = torch.cat([shard["label.class"] for shard in _read_all(run_dir)])
    counts = torch.tensor(context.data.label_counts["class"], dtype=torch.float64)
    found = torch.bincount(labels, minlength=len(counts)).double()
    assert (found <= counts).all(), "40 of 64 examples, each at most once"


def test_a_stopped_run_goes_on_and_two_processes_share_the_shards(run_dir):
    before = shards(run_dir)
    (run_dir / "trajectories" / "00001.safetensors").unlink()
    assert write_trajectories(context_of(run_dir))["trajectories"] == 16
    assert shards(run_dir) == before
    for file in (run_dir / "trajectories").glob("*.safetensors"):
        file.unlink()
    assert [write_trajectories(context_of(run_dir), rank, 2)["trajectories"] for rank in (1, 0)] == [16, 24]
    assert shards(run_dir) == before
    assert write_trajectories(context_of(run_dir))["trajectories"] == 0


def test_trajectories_of_another_teacher_or_length_are_refused(run_dir, tmp_path):
    with pytest.raises(ValueError, match=r"the trajectories in .* were made with times .*delete .*trajectories"):
        write_trajectories(context_of(run_dir, "trajectories.steps=6"))
    other = train(tmp_path / "other", *PLAIN, "seed=1", "stage=autoencoder")
    train(other, *PLAIN, "seed=1", "stage=teacher")
    shutil.copy(other / "teacher" / "weights.safetensors", run_dir / "teacher" / "weights.safetensors")
    shutil.rmtree(run_dir / "teacher" / "checkpoints")
    with pytest.raises(ValueError, match=r"were made with teacher [0-9a-f]{16}, the recipe's is"):
        train(run_dir, *WARM, "stage=warm_start")


def test_points_are_chosen_evenly_and_some_trajectories_are_held_out(run_dir):
    context, folder = context_of(run_dir), run_dir / "trajectories"
    data = TrajectoryDataset(folder, context.data, with_points=True)
    held_out = TrajectoryDataset(folder, context.data, "held_out", with_points=True)
    assert (len(data), len(held_out)) == (39, 1) and held_out.part == range(39, 40)
    generators = [torch.Generator().manual_seed(mix(place)) for place in range(2000)]
    batch = data.batch([place % 39 for place in range(2000)], generators)
    times = torch.tensor(data.manifest.times)
    counts = (batch.trajectory.t[:, None] == times).sum(0)
    assert counts.sum() == 2000 and (counts - 400).abs().max() < 4 * (2000 * 0.2 * 0.8) ** 0.5
    assert torch.equal(batch.trajectory.x0, batch.sample) and batch.encoded
    first = data.batch([3])
    assert first.trajectory.t.item() == pytest.approx(data.manifest.times[0])
    kept = weights.read(shard_file(folder, 0)).state["latents"][3]
    assert torch.equal(first.trajectory.x_t[0], kept[1]) and torch.equal(first.sample[0], kept[0])
    assert TrajectoryDataset(folder, context.data).batch([3]).trajectory is None


@pytest.mark.parametrize("other", [False, True], ids=["", "and not from another model's student"])
def test_the_warm_start_learns_and_the_student_starts_from_it(run_dir, taught, other):
    train(
        run_dir,
        *WARM,
        *([f"init_from={taught}"] if other else []),
        "warm_start.max_steps=60",
        "+warm_start.warmup_steps=0",
        "student.max_steps=1",
        "student.optimizer.lr=1e-12",
    )
    losses = [line["loss"] for line in metrics(run_dir / "warm_start") if "loss" in line]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    warm, student, teacher = (state(run_dir, stage) for stage in ("warm_start", "student", "teacher"))
    assert max((warm[name] - student[name]).abs().max().item() for name in warm) < 1e-6
    assert max((warm[name] - teacher[name]).abs().max().item() for name in warm) > 1e-3


def test_an_interrupted_warm_start_ends_in_the_same_weights(run_dir, tmp_path):
    overrides = (*WARM, "stage=warm_start", "+warm_start.decay=constant")
    whole = train(shutil.copytree(run_dir, tmp_path / "whole"), *overrides)
    train(run_dir, *overrides, "warm_start.max_steps=4")
    train(run_dir, *overrides)
    assert same(state(whole, "warm_start"), state(run_dir, "warm_start"))


@pytest.mark.parametrize("fraction", [0.5, 1])
def test_a_student_may_learn_from_what_the_teacher_made(run_dir, fraction):
    overrides = (*PLAIN, f"student.generated={fraction}", "stage=student", "student.max_steps=1")
    if fraction < 1:
        with pytest.raises(ValueError, match="run scm-media encode with this recipe first"):
            train(run_dir, *overrides)
        encoding.encode(context_of(run_dir, "latents.dtype=float32").config)
    context = context_of(run_dir, *overrides[6:])
    mixed = select_data(context, "student", context.latent_cache.open())["train"]
    ends = torch.cat([shard["latents"][:, 0] for shard in _read_all(run_dir)])
    generators = [torch.Generator().manual_seed(mix(place)) for place in range(400)]
    batch = mixed.batch([place % len(mixed) for place in range(400)], generators)
    same_end = (batch.sample[:, None] == ends[None]).flatten(2).all(-1).any(1)
    made = same_end.float().mean().item()
    assert made == pytest.approx(fraction, abs=0.1)
    train(run_dir, *overrides)


def test_guided_trajectories_have_a_scale_each_where_the_student_takes_scales(tmp_path):
    overrides = (*PLAIN, "teacher.loss.label_dropout=0.1", "student.loss.guidance_max=4", "sampler.guidance=2")
    run_dir = train(tmp_path / "run", *overrides, "+warm_start.max_steps=2", "+warm_start.batch_size=8")
    scales = torch.cat([shard["guidance"] for shard in _read_all(run_dir)])
    assert 1 <= scales.min() < 1.5 and 3.5 < scales.max() <= 4
    context = context_of(run_dir, *overrides[6:])
    data = TrajectoryDataset(run_dir / "trajectories", context.data, with_points=True)
    assert torch.equal(data.batch([0, 5]).trajectory.guidance, scales[[0, 5]])


def test_given_parts_are_kept_with_their_trajectory(tmp_path):
    overrides = (*PLAIN, "+conditioning.mask.probability=0.7", "+conditioning.mask.types=[start]")
    run_dir = train(tmp_path / "run", *overrides, "+warm_start.max_steps=2", "+warm_start.batch_size=8")
    kept = _read_all(run_dir)
    masks = torch.cat([shard["mask"] for shard in kept])
    assert masks.dtype == torch.uint8 and 0.4 < (masks.flatten(1).amax(1) > 0).float().mean() < 0.95
    given = torch.cat([shard["given"] for shard in kept])
    assert (given[masks.expand_as(given) == 0] == 0).all() and given.abs().max() > 0.1
    ends = torch.cat([shard["latents"][:, 0] for shard in kept])
    context = context_of(run_dir, *overrides[6:])
    data = TrajectoryDataset(run_dir / "trajectories", context.data, with_points=True)
    batch = data.batch([0, 1, 2])
    assert torch.equal(batch.trajectory.mask, masks[:3].float()) and torch.equal(batch.trajectory.given, given[:3])
    assert torch.equal(batch.sample, ends[:3])
    before = shards(run_dir)
    (run_dir / "trajectories" / "00002.safetensors").unlink()
    torch.manual_seed(99)
    assert write_trajectories(context)["trajectories"] == 8
    assert shards(run_dir) == before


def test_recipes_that_lack_trajectories_are_refused_before_anything_is_written(tmp_path):
    for overrides in (("+warm_start.max_steps=1",), ("student.generated=0.5",), ("loss@student.loss=regression",)):
        with pytest.raises(ValueError, match="need trajectories, and trajectories is null"):
            train(tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="this recipe has none"):
        train(tmp_path / "run", "stage=trajectories")


def test_a_student_is_regressed_on_its_own(run_dir):
    small = [word for word in SMALL if "tangent_warmup" not in word]
    overrides = [
        "loss@student.loss=regression",
        "~student.loss.tangent_warmup",
        "student.max_steps=100",
        "student.optimizer.lr=1e-3",
    ]
    config = recipe.compose(
        "image/tiny", [*small, *PLAIN, f"run_dir={run_dir}", *overrides, "trainer.validate_every=50"]
    )
    training.run(config)
    lines = metrics(run_dir / "student")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])
    assert any("held_out/loss" in line for line in lines)
    assert json.loads((run_dir / "trajectories" / "manifest.json").read_text())["num"] == 40


def test_the_groups_hold_the_defaults_of_the_settings():
    words = ["trajectories=default", "warm_start=regression", "trajectories.steps=8", "warm_start.optimizer.lr=1e-3"]
    config = recipe.compose("image/tiny", words)
    assert config["trajectories"] == {**default_values(Trajectories), "num": 16384, "steps": 8}
    given = default_values(WarmStart)
    given["optimizer"]["lr"] = 1e-3
    given["loss"] |= {"weight": "none", "label_dropout": 0.0}
    assert config["warm_start"] == given


def test_distribution_matching_trains_both_networks_and_resumes_to_the_bit(run_dir, tmp_path):
    small = [word for word in SMALL if "tangent_warmup" not in word]
    overrides = [*small, *WARM, "loss@student.loss=distribution_matching", "~student.loss.tangent_warmup"]
    overrides += ["student.loss.auxiliary_rate=3.0", "trainer.validate_every=3"]

    def go(folder, *more):
        training.run(recipe.compose("image/tiny", [*overrides, f"run_dir={folder}", *more]))
        return folder

    whole = go(shutil.copytree(run_dir, tmp_path / "whole"))
    go(run_dir, "student.max_steps=4")
    go(run_dir)
    assert same(state(whole, "student"), state(run_dir, "student"))
    lines = [line for line in metrics(run_dir / "student") if "gradient_rms" in line]
    assert lines[0]["gradient_rms"] == 0, "the auxiliary network begins as the teacher's copy"
    assert all(0 < line["gradient_rms"] < 10 for line in lines[1:])
    assert all(0 < line["anchor"] < 10 for line in lines)
    assert not any("auxiliary" in name for name in state(run_dir, "student"))


@pytest.mark.parametrize("loss", ["rcm", "discrete_grid"])
def test_variants_of_the_losses_train_and_generate(run_dir, loss):
    small = [word for word in SMALL if "tangent_warmup" not in word]
    overrides = [*small, *PLAIN, f"loss@student.loss={loss}", "~student.loss.tangent_warmup", f"run_dir={run_dir}"]
    training.run(recipe.compose("image/tiny", overrides))
    assert not same(state(run_dir, "student"), state(run_dir, "teacher"))
    assert torch.isfinite(scm_media.load(run_dir, "cpu")(2, steps=2).samples).all()


@pytest.mark.parametrize("stage", ["teacher", "warm_start", "student"])
def test_dropout_acts_on_each_network_that_is_trained_and_not_on_the_teacher(run_dir, stage):
    words = [word for word in SMALL if "tangent_warmup" not in word]
    words += [*(WARM if stage == "warm_start" else PLAIN), "loss@student.loss=distribution_matching"]
    words.append("~student.loss.tangent_warmup")
    context = prepare(recipe.compose("image/tiny", [*words, f"run_dir={run_dir}"]))
    task = TASKS[stage](context)
    task.model.load_state_dict(state(run_dir, "teacher"))  # fresh blocks add nothing, with or without dropout
    data = select_data(context, stage, context.latent_cache.splits)["train"]
    given = task.inputs(data.batch(range(8)))

    def terms(training):
        torch.manual_seed(0)
        return task.loss.train(training)(*given, torch.tensor(1.0))[1]

    trained, validated = terms(True), terms(False)
    assert not torch.allclose(trained["loss"], validated["loss"])
    assert torch.equal(terms(False)["loss"], validated["loss"])
    if stage == "student":
        assert not torch.allclose(trained["anchor"], validated["anchor"])
        assert not any(module.training for module in task.loss.train().teacher.modules())


def test_the_command_solves_what_is_missing_and_says_so(run_dir, capsys):
    (run_dir / "trajectories" / "00001.safetensors").unlink()
    before = shards(run_dir)
    words = ["encode", "image/tiny", "--trajectories", *SMALL, *PLAIN, f"run_dir={run_dir}"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert f"{run_dir}/trajectories: 16 trajectories solved now" in said.out
    assert re.search(r"16 of 40, 5 steps of dpm_solver; they take (?!0 )[\d.]+ [KM]iB in ", said.err)
    assert shards(run_dir).keys() > before.keys()
    assert main(words) == 0
    assert "0 trajectories solved now" in capsys.readouterr().out
    assert main([word for word in words if not word.startswith("+trajectories")]) == 1
    assert "this recipe has no trajectories" in capsys.readouterr().err


def test_processes_of_torchrun_share_the_command(run_dir, monkeypatch, capsys):
    before, waits = shards(run_dir), []
    monkeypatch.setattr(encoding, "wait_until", lambda done: waits.append(done()))
    words = ["encode", "image/tiny", "--trajectories", *SMALL, *PLAIN, f"run_dir={run_dir}"]
    for file in (run_dir / "trajectories").iterdir():
        file.unlink()
    for rank, num in ((0, 24), (1, 16)):
        environment = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "TORCHELASTIC_RUN_ID": "none"}
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        assert main(words) == 0
        assert f"{num} trajectories solved now" in capsys.readouterr().out
    assert shards(run_dir) == before
    assert waits == [False, True], "the first process waits for shards, which it lacks; the other for the manifest"
    (run_dir / "trajectories" / "manifest.json").unlink()
    assert main(words) == 0
    assert waits[2:] == [False], "without a manifest the texts may not be embedded yet"

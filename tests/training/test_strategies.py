"""Two processes that share a batch, or divide the weights as well, train as one process does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from scm_media import weights
from scm_media.training import checkpoints
from tests.training.divided_runs import train
from tests.training.small import flip_last_bits, metrics, state

UNET = (
    "backbone=unet",
    *(f"~backbone.{key}" for key in ("patch", "width", "depth", "num_heads")),
    "backbone.size=nano",
    "modality.size=8",
)


def two_processes(*runs: tuple[object, ...]) -> None:
    """Runs trainings, (folder, override, …) each, one after the other in the same two processes."""
    words = [f"{folder}:{';'.join(map(str, overrides))};num_devices=2" for folder, *overrides in runs]
    start_two("tests.training.divided_runs", *words)


def start_two(module: str, *words: str, succeeds: bool = True) -> str:
    """Runs a module of the tests in two processes of torchrun and returns what they wrote to stderr."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--standalone",
        "-m",
        module,
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert (done.returncode == 0) is succeeds, done.stderr[-3000:]
    return done.stderr


def assert_same(one, other, *stages: str) -> None:
    """Asserts that two runs have the same losses, gradients, validation, snapshots and weights, but for rounding."""
    for stage in stages:
        for name in ("total", "gradient_norm", "held_out/loss"):
            one_by_step, other_by_step = (
                {line["step"]: line[name] for line in metrics(folder / stage) if name in line}
                for folder in (one, other)
            )
            assert len(one_by_step) > 0
            assert other_by_step == pytest.approx(one_by_step, rel=1e-4, abs=1e-7)
        for name, tolerance in {"weights": 1e-4, "snapshots/step-4": 2e-3}.items():  # snapshots are in 16 bits
            found = [weights.read(folder / stage / f"{name}.safetensors").state for folder in (one, other)]
            assert found[0].keys() == found[1].keys()
            assert max((found[0][key] - found[1][key]).abs().max() for key in found[0]) < tolerance
        assert all((folder / stage / "samples" / "step-4.png").exists() for folder in (one, other))


@pytest.mark.slow
def test_divided_weights_train_as_whole_ones_do(tmp_path):
    words = ("trainer.sample_every=4",)
    train(tmp_path / "one", *words)
    two_processes((tmp_path / "fsdp", "strategy=fsdp", *words))
    assert_same(tmp_path / "one", tmp_path / "fsdp", "teacher", "student")
    kept = tmp_path / "fsdp" / "student" / "checkpoints"
    saved = checkpoints.load(kept, 4)["loss"]
    assert {name: value.shape for name, value in state(tmp_path / "one", "student").items()} == {
        name.removeprefix("backbone."): value.shape for name, value in saved.items() if name.startswith("backbone.")
    }
    sizes = [each.stat().st_size for each in sorted((kept / "step-4").glob("*.safetensors"))]
    assert len(sizes) == 2 and min(sizes) / max(sizes) > 0.9, "each device writes its own part"


@pytest.mark.slow
def test_each_strategy_division_and_objective_equals_one_process(tmp_path):
    kinds = {
        "scd": (),
        "sct": ("student.objective=sct",),
        "recompute": ("trainer.gradient_checkpointing=true",),
        "unet": (*UNET, "trainer.gradient_checkpointing=true"),
        "matching": (
            "loss@student.loss=distribution_matching",
            "~student.loss.tangent_warmup",
            "student.loss.step_fractions=[1.0]",
            "trajectories=default",
            "trajectories.num=16",
            "trajectories.batch_size=8",
            "trajectories.shard_size=8",
            "trajectories.steps=2",
            "warm_start=regression",
            "warm_start.max_steps=2",
        ),
        "guided": ("sampler.guidance=2", "teacher.loss.label_dropout=0.5"),
    }
    for name, words in kinds.items():
        train(tmp_path / name, *words)
    shared = ("strategy=fsdp", "context_parallel=2")
    ways = {"ddp": ("strategy=ddp",), "fsdp": ("strategy=fsdp",), "shared": shared}
    runs = [(name, way, num) for name in kinds for way in ways for num in (1, 2) if (name, way) != ("unet", "shared")]
    two_processes(
        *(
            (tmp_path / f"{name}-{way}-{num}", *kinds[name], *ways[way], f"trainer.accumulate={num}")
            for name, way, num in runs
        )
    )
    for name, way, num in runs:
        assert_same(tmp_path / name, tmp_path / f"{name}-{way}-{num}", "teacher", "student")
    assert_same(tmp_path / "scd", tmp_path / "recompute", "teacher", "student")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_checkpoint_of_two_processes_goes_on_with_one_and_back(tmp_path, strategy):
    short = ("teacher.max_steps=2", "student.max_steps=0", "teacher.patience=3", "trainer.validate_every=1")
    long = ("teacher.max_steps=4", *short[1:])
    two, one, straight = tmp_path / "two", tmp_path / "one", tmp_path / "straight"
    train(straight, *long)
    train(one, *short)
    two_processes((two, f"strategy={strategy}", *short), (one, f"strategy={strategy}", *long))
    train(two, *long)
    assert_same(straight, two, "teacher")
    assert_same(straight, one, "teacher")


@pytest.mark.slow
def test_parts_of_a_checkpoint_are_written_whole_or_not_at_all_and_checked(tmp_path, capsys):
    """The run goes on after a device without space, one that is killed, and changed or absent parts."""
    words = (
        "teacher.max_steps=6",
        "student.max_steps=0",
        "trainer.checkpoint_every=2",
        "trainer.keep_checkpoints=3",
        "trainer.sample_every=4",
    )
    divided = (*words, "strategy=fsdp", "num_devices=2")
    straight, run = tmp_path / "straight", tmp_path / "run"
    train(straight, *words)
    kept = run / "teacher" / "checkpoints"
    said = start_two("tests.training.losing_parts", str(run), "full", *divided, succeeds=False)
    assert "step-4 was not saved (File too large); the last good checkpoint is intact" in said
    assert checkpoints.steps(kept) == [2] and not list(kept.glob(".*"))
    said = start_two("tests.training.losing_parts", str(run), "killed", *divided, succeeds=False)
    assert "SIGKILL" in said and checkpoints.steps(kept) == [2]
    two_processes((run, *divided))
    assert checkpoints.steps(kept) == [2, 4, 6]
    assert_same(straight, run, "teacher")

    flip_last_bits(sorted((kept / "step-6").glob("*.safetensors"))[1])
    sorted((kept / "step-4").glob("*.safetensors"))[1].unlink()
    (run / "teacher" / "weights.safetensors").unlink()
    train(run, *words)
    said = capsys.readouterr().err
    assert "step-6 is damaged (shard-00002-model-00001-of-00001.safetensors does not have its digest, SHA-256)" in said
    assert "step-4 is damaged (its parts are not shard-00001-" in said and "goes on from step-2" in said
    assert_same(straight, run, "teacher")


@pytest.mark.slow
def test_weights_of_blocks_are_gathered_in_the_type_that_they_are_used_in(tmp_path):
    words = ("precision=bf16-mixed",)
    divided = ("num_devices=2", "strategy=fsdp", *words)
    start_two("tests.training.held_by_ranks", str(tmp_path / "fsdp"), *divided)
    two_processes((tmp_path / "fsdp-unet", *divided, *UNET))
    train(tmp_path / "one", *words)
    train(tmp_path / "one-unet", *words, *UNET)
    for rank in range(2):
        held = json.loads((tmp_path / "fsdp" / f"held-{rank}.json").read_text())
        for stage in ("teacher", "student"):
            assert held[stage]["types"] == {"attention": "torch.bfloat16", "modulation": "torch.float32"}
    for kind in ("", "-unet"):
        for stage in ("teacher", "student"):
            one, other = (metrics(tmp_path / f"{name}{kind}" / stage) for name in ("one", "fsdp"))
            for name, tolerance in {"total": 1e-4, "gradient_norm": 2e-2}.items():  # weights are rounded in between
                expected = [line[name] for line in one if name in line]
                found = [line[name] for line in other if name in line]
                assert found == pytest.approx(expected, rel=tolerance, abs=1e-6)


@pytest.mark.slow
def test_a_device_holds_half_of_all_weights_and_of_the_tokens_that_are_shared(tmp_path):
    words = ("num_devices=2", "strategy=fsdp")
    start_two("tests.training.held_by_ranks", str(tmp_path / "fsdp"), *words)
    start_two("tests.training.held_by_ranks", str(tmp_path / "shared"), *words, "context_parallel=2")
    start_two("tests.training.held_by_ranks", str(tmp_path / "ddp"), "num_devices=2", "strategy=ddp")
    for kind, share, tokens in (("fsdp", 0.5, 16), ("shared", 0.5, 8), ("ddp", 1.0, 16)):
        for rank in range(2):
            held = json.loads((tmp_path / kind / f"held-{rank}.json").read_text())
            assert held.keys() == {"teacher", "student"} and held["student"].keys() >= {"teacher", "moments"}
            for stage in held.values():
                assert stage.pop("tokens") == tokens
                assert set(stage.pop("awaited")) == {kind != "ddp" and rank > 0}
                assert set(stage.pop("types").values()) == {"torch.float32"}
                assert all(value == pytest.approx(share, abs=0.1) for value in stage.values()), (kind, stage)

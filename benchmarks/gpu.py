"""Runs what needs a GPU in one go, the most useful first, and writes each result as it comes.

    PYTHONPATH=. python benchmarks/gpu.py OUT                                  # all stages, on CUDA
    PYTHONPATH=. python benchmarks/gpu.py OUT --toy --device cpu               # the rehearsal, a few minutes
    PYTHONPATH=. python benchmarks/gpu.py OUT --only train --train image/fashion teacher.batch_size=512

Stages, each with a time limit: ``kernel`` (the fused tangent of attention against float64, its time and memory),
``tangents`` (value and tangent of each backbone in float32 and bf16 against float64 on the CPU), ``recipes`` (each tiny
recipe trained, stopped, continued, and drawn from; pictures also without a stop), ``resume`` (how far the weights of
both differ), ``sampling`` (two steps of the 1.5-billion network at batch 1, eager, compiled and as a CUDA graph),
``train`` (a recipe trained, evaluated and exported; ``--train`` says which, with overrides), ``speed`` (training steps
and one evaluation). OUT gets ``results.json`` with the exit codes and seconds, a ``STAGE.txt`` of what each printed,
and the trained model. A stage that has ended well in OUT is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from scm_media import recipe, weights
from scm_media.build import build
from scm_media.conditioning import Conditioning
from scm_media.samplers import sample_consistency
from scm_media.tangent import value_and_tangent
from scm_media.trigflow import TrigFlow

TRANSFORMER, SPACE_TIME = "scm_media.nn.transformer.Transformer", "modalities.video.backbone.SpaceTimeTransformer"
SCM = (sys.executable, "-m", "scm_media")
BACKBONES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "transformer, pictures": (
        {"_target_": TRANSFORMER, "rank": 2, "patch": 2, "width": 256, "depth": 4, "num_heads": 4},
        (4, 64, 64),
    ),
    "transformer, sounds": (
        {"_target_": TRANSFORMER, "rank": 1, "patch": 1, "width": 256, "depth": 4, "num_heads": 4},
        (16, 2048),
    ),
    "space and time, clips": (
        {"_target_": SPACE_TIME, "patch": 2, "width": 256, "depth": 4, "num_heads": 4},
        (4, 8, 32, 32),
    ),
    "EDM2 U-Net, pictures": ({"_target_": "modalities.image.backbone.unet", "size": "nano"}, (4, 32, 32)),
}
"""Backbones and the shapes of their latents; attention has up to 2,048 tokens, where the kernel serves."""
TOY_SHAPES = {1: (16, 64), 2: (4, 16, 16), 3: (4, 4, 8, 8)}
TRAIN = ("image/fashion", "teacher.batch_size=512", "teacher.max_steps=12000", "teacher.optimizer.lr=2e-3")


@dataclass(frozen=True)
class Stage:
    """A stage: its time limit in seconds, and the commands that it runs, or the function that it calls in this process.

    A command is a list of words; the first one that fails ends the stage.
    """

    seconds: float
    commands: Sequence[Sequence[str]] = ()
    call: Callable[[], str] | None = None


def measure_tangents(device: torch.device, toy: bool) -> str:
    """Returns a table: relative errors of value and tangent against float64 on the CPU, for each backbone and type."""
    lines = ["| backbone | type | value | tangent | ms |", "|---|---|---:|---:|---:|"]
    for name, (config, shape) in BACKBONES.items():
        shape = TOY_SHAPES[len(shape) - 1] if toy else shape
        torch.manual_seed(0)
        network = build({**config, "in_channels": shape[0], "labels": {"class": 4}}, "backbone").eval()
        for parameter in network.parameters():  # last layers of zeros would hide every error
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
        u, du, t = torch.randn(2, *shape), torch.randn(2, *shape), torch.tensor([0.6, 1.3])
        given = (u, t, Conditioning(labels={"class": torch.tensor([1, 3])}), du, torch.ones(2))
        exact = _dual(network.double(), *(_to(each, "cpu", torch.float64) for each in given))
        network.float().to(device)
        here = tuple(_to(each, device, torch.float32) for each in given)
        for dtype in (torch.float32, torch.bfloat16):
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                _dual(network, *here)
                begun = time.perf_counter()
                found = _dual(network, *here)
            errors = [((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]
            figures = " | ".join(f"{error:.1e}" for error in errors)
            lines.append(f"| {name} | {str(dtype)[6:]} | {figures} | {1000 * (time.perf_counter() - begun):.1f} |")
    return "\n".join(lines)


def compare_resumed(work: Path) -> str:
    """Returns, for each stage of pictures, how far the weights of a stopped run are from those of a straight one.

    Kernels of a GPU may add in another order each time, so that small differences are no fault there.
    """
    lines = []
    for stage in ("teacher", "student"):
        stopped, straight = (
            weights.read(work / name / stage / "weights.safetensors").state for name in ("image", "image-straight")
        )
        worst = max((stopped[name].double() - straight[name].double()).abs().max().item() for name in straight)
        lines.append(f"{stage}: largest difference {worst}")
    return "\n".join(lines)


def measure_sampling(device: torch.device, toy: bool) -> str:
    """Returns a table: milliseconds of two steps at batch 1 under bf16 autocast, the first time and later."""
    config = recipe.compose("image/imagenet512-xxl", ["data.root=none"])["backbone"]
    config = {**config, "in_channels": 4, "labels": {"class": 1000}, **({"size": "nano"} if toy else {})}
    cond = Conditioning(labels={"class": torch.tensor([3])}).to(device)
    noise = torch.randn(1, 4, 64, 64, device=device) * 0.5
    lines = ["| how | first call, ms | later, ms |", "|---|---:|---:|"]
    modes = [("eager", {}), ("compiled", {"dynamic": False})]
    modes += [("CUDA graph", {"dynamic": False, "mode": "reduce-overhead"})] if device.type == "cuda" else []
    for how, options in modes:
        torch.compiler.reset()
        torch.manual_seed(0)
        network = build(config, "backbone").eval().to(device)
        if options:
            network.compile(**options)

        def call(u: torch.Tensor, t: torch.Tensor, c: Conditioning, network: Any = network) -> torch.Tensor:
            torch.compiler.cudagraph_mark_step_begin()
            return network(u, t, c).clone()

        def sample(call: Any = call) -> float:
            begun = time.perf_counter()
            sample_consistency(call, TrigFlow(), noise, [1.56, 1.1], cond)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return 1000 * (time.perf_counter() - begun)

        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            first, *later = (sample() for _ in range(3 if toy else 21))
        lines.append(f"| {how} | {first:.1f} | {statistics.median(later):.2f} |")
    return "\n".join(lines)


def _dual(network: Any, u: Any, t: Any, cond: Any, du: Any, dt: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns value and tangent on the CPU, for times without a direction of the labels."""
    dual = value_and_tangent(network, u, t, cond, du, dt, "one_pass")
    return dual.value.detach().cpu(), dual.tangent.detach().cpu()


def _to(value: Any, device: torch.device | str, dtype: torch.dtype) -> Any:
    return value.to(device) if isinstance(value, Conditioning) else value.to(device, dtype)


def make_stages(out: Path, device: torch.device, toy: bool, train: Sequence[str]) -> dict[str, Stage]:
    """Returns the stages by name, in their order."""
    work, kind = out / "work", device.type
    attention = [sys.executable, "benchmarks/attention.py", "--device", kind, "--lengths"]
    attention += ["600", "--repeats", "1"] if toy else ["1024", "4096", "16384"]
    tiny = []
    for modality in ("image", "audio", "video"):
        run = str(work / modality)
        words = [*SCM, "train", f"{modality}/tiny", f"device={kind}", f"run_dir={run}", "logger=none"]
        stop = ["teacher.max_steps=5", "student.max_steps=0"]
        words += ["autoencoder.max_steps=20"] if toy and "max_steps" in _autoencoder(f"{modality}/tiny") else []
        whole = words if not toy else [*words, "teacher.max_steps=8", "student.max_steps=8"]
        tiny += [[*words, *stop], whole]
        if modality == "image":
            tiny.append([f"run_dir={work / 'image-straight'}" if word == f"run_dir={run}" else word for word in whole])
        tiny.append([*SCM, "generate", run, "-n", "4", "--device", kind, "--out", str(work / f"{modality}-samples")])
    run, model = str(work / "trained"), out / "trained.safetensors"
    trained = [
        [*SCM, "train", *train, f"device={kind}", f"run_dir={run}"],
        [*SCM, "evaluate", run, "--device", kind, "--batch-size", "512", *(["-n", "64"] if toy else [])],
        [*SCM, "export", run, str(model), "--format", "safetensors", "--overwrite"],
    ]
    bench = [*SCM, "bench", "image/tiny" if toy else "image/imagenet512-s", "--device", kind]
    return {
        "kernel": Stage(90, [[*attention, "--dtype", dtype] for dtype in ("bfloat16", "float32")]),
        "tangents": Stage(60, call=lambda: measure_tangents(device, toy)),
        "recipes": Stage(180, tiny),
        "resume": Stage(10, call=lambda: compare_resumed(work)),
        "sampling": Stage(120, call=lambda: measure_sampling(device, toy)),
        "train": Stage(420, trained),
        "speed": Stage(90, [[*bench, *(["--repeats", "1", "--batch-size", "2"] if toy else ["--batch-size", "16"])]]),
    }


def _autoencoder(name: str) -> Any:
    return recipe.compose(name)["autoencoder"]


def run_stage(name: str, stage: Stage, out: Path) -> dict[str, Any]:
    """Returns the result of a stage, whose output is written to ``NAME.txt``: seconds, and the commands' exit codes.

    A command that runs past the stage's limit is interrupted, so that a training saves its checkpoint, and has the exit
    code None.
    """
    begun, codes = time.monotonic(), []
    with (out / f"{name}.txt").open("w") as log:
        if stage.call is not None:
            log.write(f"{stage.call()}\n")
            codes.append(0)
        for words in stage.commands:
            log.write(f"$ {' '.join(words)}\n")
            log.flush()
            left = stage.seconds - (time.monotonic() - begun)
            codes.append(_run(words, log, left) if left > 0 else None)
            if codes[-1] != 0:
                break
    return {"seconds": round(time.monotonic() - begun, 1), "codes": codes, "well": all(code == 0 for code in codes)}


def _run(words: Sequence[str], log: Any, seconds: float) -> int | None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (".", os.environ.get("PYTHONPATH"))))}
    with subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=environment) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            return None


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Returns the card and the versions that figures belong to."""
    found: dict[str, Any] = {"torch": torch.__version__, "device": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        found |= {"card": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        found["driver"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Runs the stages; returns 1 where one of them did not end well."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--device", default="cuda")
    arguments.add_argument("--toy", action="store_true", help="small shapes and few steps")
    arguments.add_argument("--only", nargs="+", metavar="STAGE", help="these stages; default: all")
    arguments.add_argument("--train", nargs="+", metavar="WORD", help="a recipe and overrides for the stage train")
    given = arguments.parse_args(words)
    device, toy = torch.device(given.device), given.toy
    given.out.mkdir(parents=True, exist_ok=True)
    train = given.train or (("image/tiny", "teacher.max_steps=8", "student.max_steps=8") if toy else TRAIN)
    stages, file = make_stages(given.out, device, toy, train), given.out / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    results["machine"] = describe_machine(device)
    for name in given.only or stages:
        if name not in stages:
            arguments.error(f"there is no stage {name}; there are {', '.join(stages)}")
        if results.get(name, {}).get("well"):
            print(f"{name}: ended well before", flush=True)
            continue
        try:
            results[name] = run_stage(name, stages[name], given.out)
        except Exception as error:  # of a stage in this process: the others run all the same
            results[name] = {"well": False, "error": f"{type(error).__name__}: {error}"}
        file.write_text(json.dumps(results, indent=2))
        print(f"{name}: {results[name]}", flush=True)
    return 0 if all(results[name]["well"] for name in given.only or stages) else 1


if __name__ == "__main__":
    sys.exit(main())

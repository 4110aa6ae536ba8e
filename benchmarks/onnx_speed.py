"""Times a student in onnxruntime against PyTorch, on one core.

    scm-media export image/fashion fashion-onnx --format onnx
    OMP_NUM_THREADS=1 python benchmarks/onnx_speed.py image/fashion fashion-onnx

Prints seconds of the processor for one sample, the least of several rounds, with the decoder. The noise is drawn
before, and both start from the same.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

import scm_media

ROUNDS = 20


def least_seconds(sample: Callable[[], object]) -> float:
    """Returns the least processor time of a call; other programs on the core do not count."""
    sample()
    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        sample()
        found.append(time.process_time() - begun)
    return min(found)


def main() -> None:
    """Prints a table of batch sizes and numbers of steps."""
    parser = argparse.ArgumentParser(description="Times a student in onnxruntime against PyTorch.")
    parser.add_argument("model")
    parser.add_argument("folder", type=Path, help="what scm-media export --format onnx wrote")
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    manifest = json.loads((parsed.folder / "manifest.json").read_text())
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    network, decoder = (
        ort.InferenceSession(parsed.folder / manifest[part]["file"], options) for part in ("network", "decoder")
    )
    pipeline = scm_media.load(parsed.model, "cpu")
    student, autoencoder = pipeline.network("student"), pipeline.network("autoencoder")
    print("| batch | steps | PyTorch, ms | onnxruntime, ms | ratio |\n|---:|---:|---:|---:|---:|")
    for batch in (1, 16):
        cond = pipeline.conditioning([pipeline.labels.resolve(None, 0, index) for index in range(batch)])
        values = {name: label.numpy() for name, label in cond.labels.items()}
        for steps in (1, 2):
            times = manifest["steps"][str(steps)]
            noises = [pipeline.flow.prior((batch, *manifest["latent_shape"])) for _ in times]

            def by_torch(times=times, noises=noises, cond=cond) -> np.ndarray:
                x0 = scm_media.sample_consistency(student, pipeline.flow, lambda step: noises[step], times, cond)
                with torch.inference_mode():
                    return autoencoder.decode(x0).numpy()

            def by_onnx(times=times, noises=noises, values=values) -> np.ndarray:
                x0 = None
                for step, at in enumerate(times):
                    x_t = noises[step].numpy()
                    if x0 is not None:
                        x_t = np.float32(np.cos(at)) * x0 + np.float32(np.sin(at)) * x_t
                    feeds = {"x_t": x_t, "t": np.full(len(x_t), at, np.float32), **values}
                    (x0,) = network.run(None, feeds)
                return decoder.run(None, {"latents": x0})[0]

            difference = np.abs(by_torch() - by_onnx()).max()
            assert difference < 1e-2, f"the samples differ by {difference}"
            first, second = (1000 * least_seconds(sample) / batch for sample in (by_torch, by_onnx))
            print(f"| {batch} | {steps} | {first:.2f} | {second:.2f} | {first / second:.2f} |")


if __name__ == "__main__":
    main()

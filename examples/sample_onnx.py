"""Samples a consistency model in a few steps by numpy and onnxruntime alone.

    scm-media export image/fashion fashion-onnx --format onnx
    python examples/sample_onnx.py fashion-onnx -n 8 --steps 2 --label class=Bag --out samples

Neither PyTorch nor scm-media is imported. Pictures and clips are written by Pillow, sounds by the standard library.
Sample k of a seed starts from the same noise as in ``scm-media generate``.
"""

from __future__ import annotations

import argparse
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

AT_ONCE = 16
"""Samples of a batch, where network and decoder take as many."""


class FewStepSampler:
    """The network and the decoder in a folder that ``scm-media export --format onnx`` wrote."""

    def __init__(self, folder: Path) -> None:
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if self.manifest["decoder"] is None:
            raise SystemExit(f"{folder} has no decoder: {self.manifest['decoder_left_out']}")
        self.sessions = {
            part: ort.InferenceSession(str(folder / self.manifest[part]["file"]), providers=["CPUExecutionProvider"])
            for part in ("network", "decoder")
        }
        self.inputs = self.manifest["network"]["inputs"][2:]  # the first two are x_t and t
        self.texts: dict[str, np.ndarray] = {}
        self.prompts: list[str] = []
        if (texts := self.manifest.get("texts")) is not None:
            self.texts = dict(np.load(folder / texts["embeddings"]))
            self.prompts = json.loads((folder / texts["prompts"]).read_text(encoding="utf-8"))

    def sample(
        self, steps: int, seed: int, indices: range, given: dict[str, str], prompt: str | None = None
    ) -> np.ndarray:
        """Returns samples ``(B, C, *S)`` in [-1, 1] with these indices of a seed; prompt: one of ``self.prompts``."""
        manifest, shape = self.manifest, self.manifest["latent_shape"]
        if str(steps) not in manifest["steps"]:
            raise SystemExit(f"steps must be one of {', '.join(manifest['steps'])}, got {steps}")
        values = {entry["name"]: choose_values(entry, given, seed, indices) for entry in self.inputs}
        self.put_texts(values, prompt, seed, indices)
        x0: Any = None
        for step, time in enumerate(manifest["steps"][str(steps)]):
            x_t = manifest["sigma_data"] * np.stack([draw_noise(seed, index, step, shape) for index in indices])
            if step:
                x_t = np.cos(time) * x0 + np.sin(time) * x_t
            times = np.full(len(indices), time, np.float32)
            x0 = self._run("network", x_t=x_t.astype(np.float32), t=times, **values)
        return self._run("decoder", latents=x0)

    def put_texts(self, values: dict[str, np.ndarray], prompt: str | None, seed: int, indices: range) -> None:
        """Puts the embeddings of a text, or of drawn ones, in the place of no text."""
        if prompt is not None and prompt not in self.prompts:
            raise SystemExit(f"{prompt!r} is not one of the {len(self.prompts)} texts of {self.manifest['name']}")
        for place, index in enumerate(indices if self.prompts else ()):
            drawn = int(np.random.default_rng([seed, index]).integers(len(self.prompts)))
            row = drawn if prompt is None else self.prompts.index(prompt)
            for name in values.keys() & self.texts.keys():
                values[name][place, : len(self.texts[name][row])] = self.texts[name][row]

    def batches(self, num: int) -> list[range]:
        """Returns the indices of samples, batch by batch."""
        limits = [self.manifest[part]["batch"] for part in self.sessions]
        size = min([AT_ONCE, *(limit for limit in limits if limit != "any")])
        return [range(first, min(first + size, num)) for first in range(0, num, size)]

    def _run(self, part: str, /, **inputs: np.ndarray) -> np.ndarray:
        (output,) = self.sessions[part].run(None, inputs)
        return output


def draw_noise(seed: int, index: int, step: int, shape: list[int]) -> np.ndarray:
    """Returns standard normal noise that depends on seed, sample and step alone."""
    generator = np.random.Generator(np.random.Philox(key=seed | index << 64 | step << 112))
    return generator.standard_normal(shape, dtype=np.float32)


def choose_values(entry: dict[str, Any], given: dict[str, str], seed: int, indices: range) -> np.ndarray:
    """Returns the values of an input; labels that are not given are drawn evenly from their classes or their range."""
    name, shape = entry["name"], [len(indices), *entry["shape"][1:]]
    text = given.get(name)
    if classes := entry.get("classes"):
        if text is not None and text not in classes:
            raise SystemExit(f"{name} has no class {text!r}; it has: {', '.join(classes)}")
        drawn = [np.random.default_rng([seed, index]).integers(len(classes)) for index in indices]
        return np.array([classes.index(text)] * len(indices) if text is not None else drawn, np.int64)
    if text is not None:
        return np.full(shape, float(text), np.float32)
    if entry["kind"] == "label" and entry["range"]:
        return np.array([np.random.default_rng([seed, i]).uniform(*entry["range"]) for i in indices], np.float32)
    return np.full(shape, float(entry.get("default", "nan")), entry["dtype"])


def write(manifest: dict[str, Any], sample: np.ndarray, path: Path) -> Path:
    """Writes one sample ``(C, *S)`` as PNG, WAV or GIF and returns the file."""
    if manifest["modality"] == "audio":
        path = path.with_suffix(".wav")
        sample = sample / max(1.0, float(np.abs(sample).max()))  # above full scale it would wrap round
        with wave.open(str(path), "wb") as file:
            file.setnchannels(sample.shape[0])
            file.setsampwidth(2)
            file.setframerate(manifest["sample_rate"])
            file.writeframes(np.round(sample.T * 32767).astype("<i2").tobytes())
        return path
    from PIL import Image

    pixels = np.round((sample + 1) * 127.5).clip(0, 255).astype(np.uint8)
    frames = np.moveaxis(pixels, 0, -1) if pixels.shape[0] == 3 else pixels[0]  # (T, H, W, 3), or without T or 3
    if manifest["modality"] == "image":
        path = path.with_suffix(".png")
        Image.fromarray(frames).save(path)
        return path
    path = path.with_suffix(".gif")
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=round(1000 / manifest["frame_rate"]), loop=0)
    return path


def main() -> None:
    """Writes the samples that the command line asks for."""
    parser = argparse.ArgumentParser(description="Samples a consistency model by numpy and onnxruntime alone.")
    parser.add_argument("folder", type=Path, help="what scm-media export --format onnx wrote")
    parser.add_argument("-n", "--num", type=int, default=4)
    parser.add_argument("--steps", type=int, help="default: the model's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--label", nargs="*", default=[], metavar="NAME=VALUE", help="default: drawn")
    parser.add_argument("--prompt", help="one of the texts in texts.json; default: drawn")
    parser.add_argument("--out", type=Path, default=Path("samples"))
    parsed = parser.parse_args()
    sampler = FewStepSampler(parsed.folder)
    given = dict(pair.partition("=")[::2] for pair in parsed.label)
    if unknown := given.keys() - {entry["name"] for entry in sampler.inputs}:
        raise SystemExit(f"the model has no input {', '.join(sorted(unknown))}")
    parsed.out.mkdir(parents=True, exist_ok=True)
    steps = sampler.manifest["default_steps"] if parsed.steps is None else parsed.steps
    for indices in sampler.batches(parsed.num):
        samples = sampler.sample(steps, parsed.seed, indices, given, parsed.prompt)
        for index, sample in zip(indices, samples, strict=True):
            print(write(sampler.manifest, sample, parsed.out / f"{parsed.seed}-{index}"))


if __name__ == "__main__":
    main()

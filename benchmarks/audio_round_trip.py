"""Measures round trips through front ends of sound, and their speed on one core.

    python benchmarks/audio_round_trip.py [FOLDER] [--rate 22050] [--seconds 1] [--num 64] [--trained WEIGHTS ...]

FOLDER: sounds of any kind, NUM of them drawn by a fixed seed; without it struck notes, tones and noise are made.
--trained: weights.safetensors that a stage autoencoder left (a vocoder, a spectral autoencoder, anything fitted).

snr: 10 log10(Σx² / Σ(x − y)²), median and worst over samples. lsd: log-spectral distance, the mean over frames of the
root mean square over frequencies of 20 log10(|X| / |Y|) (window 1024, hop 256; bins below −80 dB count as −80).
after noise: the lsd with white noise of a twentieth of the latents' standard deviation added to them, like a
generator's errors. encode, decode: seconds of sound a second of processor time, in batches of 64, the median of
several runs.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalities.audio import AudioModality, ComplexSpectrogram, LogMelSpectrogram
from modalities.audio.fourier import FourierFrames
from scm_media import weights
from scm_media.build import build

BATCH, RUNS, FLOOR, DISTURBANCE = 64, 3, 1e-4, 0.05


def main() -> None:
    """Measures each front end on the same samples and prints one row for each."""
    commands = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands.add_argument("folder", type=Path, nargs="?")
    commands.add_argument("--rate", type=int, default=22050)
    commands.add_argument("--seconds", type=float, default=1.0)
    commands.add_argument("--num", type=int, default=64)
    commands.add_argument("--trained", type=Path, nargs="*", default=[])
    asked = commands.parse_args()
    torch.set_num_threads(1)
    modality = AudioModality(asked.rate, asked.seconds, multiple=4096, crop="start")
    samples = synthesise(modality, asked.num) if asked.folder is None else read(modality, asked.folder, asked.num)
    print(f"{len(samples)} samples of {samples.shape[-1] / asked.rate:.2f} s at {asked.rate} Hz\n")
    print("| front end | latent | numbers a second | snr median / worst | lsd | after noise | encode | decode |")
    print("|---|---|---|---|---|---|---|---|")
    for name, front in front_ends(asked.rate).items():
        with torch.no_grad():
            front.fit(samples.split(BATCH))
        print(row(name, front, samples, asked.rate), flush=True)
    for file in asked.trained:
        component = weights.read(file)
        front = build(component.config, "autoencoder")
        weights.load_into(front, component.state, file)
        print(row(str(file.parent.parent.name), front.eval(), samples, asked.rate), flush=True)


def front_ends(rate: int) -> dict[str, Any]:
    """Returns front ends by name; their scales are fitted to the samples."""
    return {
        "complex 512/256, equalise 0": ComplexSpectrogram(equalise=0.0),
        "complex 512/256, equalise 0.5": ComplexSpectrogram(),
        "complex 512/256, equalise 1": ComplexSpectrogram(equalise=1.0),
        "complex 512/256, exponent 0.3": ComplexSpectrogram(exponent=0.3),
        "complex 512/256, exponent 1": ComplexSpectrogram(exponent=1.0),
        "complex 1024/256": ComplexSpectrogram(window=1024),
        "complex 1024/512": ComplexSpectrogram(window=1024, hop=512),
        "complex 512/256, phase advance": ComplexSpectrogram(phase="advance"),
        "complex 1024/512, phase advance": ComplexSpectrogram(window=1024, hop=512, phase="advance"),
        "log-mel 80": LogMelSpectrogram(rate),
        "log-mel 128": LogMelSpectrogram(rate, num_mels=128),
        "log-mel 128, quietest 1e-3": LogMelSpectrogram(rate, num_mels=128, quietest=1e-3),
        "log-mel 128, as audio/notes": LogMelSpectrogram(
            rate, num_mels=128, quietest=1e-3, magnitude_iterations=12, phase_iterations=4
        ),
        "log-mel 128, random phases, 32": LogMelSpectrogram(rate, num_mels=128, phase="random", phase_iterations=32),
    }


def row(name: str, front: Any, samples: Tensor, rate: int) -> str:
    """Returns a line of the table."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        latent = torch.cat([front.encode(batch) for batch in samples.split(BATCH)])
        made = torch.cat([front.decode(batch) for batch in latent.split(BATCH)])
        disturbance = DISTURBANCE * latent.std() * torch.randn(latent.shape, generator=generator)
        disturbed = torch.cat([front.decode(batch) for batch in (latent + disturbance).split(BATCH)])
        sound = samples[:BATCH]
        encode = speed(lambda: front.encode(sound), sound, rate)
        decode = speed(lambda: front.decode(latent[:BATCH]), sound, rate)
    power, error = samples.square().sum((1, 2)), (samples - made).square().sum((1, 2)).clamp(min=1e-20)
    ratio = 10 * (power / error).log10()
    shape, numbers = " × ".join(map(str, latent.shape[1:])), latent[0].numel() / (samples.shape[-1] / rate)
    return (
        f"| {name} | {shape} | {numbers:,.0f} | {ratio.median():.1f} / {ratio.min():.1f} dB | "
        f"{log_spectral_distance(samples, made):.2f} dB | {log_spectral_distance(samples, disturbed):.2f} dB | "
        f"{encode:,.0f} × | {decode:,.0f} × |"
    )


def speed(work: Callable[[], Tensor], sound: Tensor, rate: int) -> float:
    """Returns seconds of sound per second of processor time, which other processes change little."""
    work()
    taken = []
    for _ in range(RUNS):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return len(sound) * sound.shape[-1] / rate / statistics.median(taken)


def log_spectral_distance(wanted: Tensor, made: Tensor) -> float:
    """Returns the distance in dB, the mean over frames and samples."""
    frames = FourierFrames(1024, 256)
    one, other = (20 * frames.analyse(x).abs().clamp(min=FLOOR).log10() for x in (wanted, made))
    return (one - other).square().mean(-1).sqrt().mean().item()


def read(modality: AudioModality, folder: Path, num: int) -> Tensor:
    """Returns ``num`` sounds of a folder that are not silent, cut or padded to the modality's length."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in modality.suffixes)
    if not files:
        raise SystemExit(f"{folder} holds no sound")
    random.Random(0).shuffle(files)
    samples = (modality.transform(modality.read(path)) for path in files)
    return torch.stack(list(itertools.islice((clip for clip in samples if clip.abs().max() > 0.01), num)))


def synthesise(modality: AudioModality, num: int) -> Tensor:
    """Returns a third each of struck notes whose last third is silence, steady tones, and noise."""
    channels, length = modality.shape()
    moments = torch.arange(length, dtype=torch.float64) / modality.sample_rate
    generator = torch.Generator().manual_seed(0)
    samples = []
    for number in range(num):
        pitch, kind = 110 * 2 ** (number % 48 / 12), number % 3
        if kind == 0:
            parts = [
                torch.sin(2 * math.pi * pitch * n * moments) * torch.exp(-4 * n * moments) / n for n in range(1, 9)
            ]
            clip = 0.4 * torch.stack(parts).sum(0) * (moments < 2 / 3 * moments[-1])
        elif kind == 1:
            clip = 0.8 * torch.sin(2 * math.pi * pitch * moments)
        else:
            clip = 0.2 * torch.randn(length, generator=generator, dtype=torch.float64)
        samples.append(clip.clamp(-1, 1).float().expand(channels, -1))
    return torch.stack(samples)


if __name__ == "__main__":
    main()

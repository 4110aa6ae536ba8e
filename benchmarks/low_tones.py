"""Measures how far a log-mel front end moves the pitch of low harmonic tones.

    python benchmarks/low_tones.py

A tone has ten harmonics of falling amplitude and lasts two seconds at 22,050 Hz. It is encoded and decoded by
``LogMelSpectrogram`` with the iterations of audio/notes; librosa's YIN measures the pitch of its middle. A row is one
front end, a column the semitones of a range. The numbers are cents, the median and the largest distance of the tones of
a range. "none" is the tone itself, and what the measurement adds.
"""

from __future__ import annotations

import argparse
import math

import librosa
import numpy as np
import torch

from modalities.audio import ComplexSpectrogram, LogMelSpectrogram

RATE, SECONDS = 22050, 2.0
RANGES = {
    "55–78 Hz": range(33, 40),
    "82–123 Hz": range(40, 48),
    "131–247 Hz": range(48, 60),
    "262–494 Hz": range(60, 72),
}
"""Names of ranges, and their MIDI numbers."""
FRONT_ENDS = ((1024, 256, 80), (1024, 256, 128), (2048, 256, 128), (2048, 512, 256), (2048, 256, 256), (4096, 512, 256))
"""Window, hop, num_mels; the second one is that of audio/notes."""
EDGE = 0.25
"""Seconds at either end that are left out."""


def make_tone(hertz: float) -> torch.Tensor:
    """Returns a harmonic tone ``(1, 1, T)``."""
    time = torch.arange(round(SECONDS * RATE) // 1024 * 1024, dtype=torch.float64) / RATE
    return sum(0.3 / n * torch.sin(2 * math.pi * n * hertz * time + n * n) for n in range(1, 11)).float()[None, None]


def measure_cents(front: torch.nn.Module | None, pitch: int) -> float:
    """Returns how many cents a tone is off after a front end has encoded and decoded it."""
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    tone = make_tone(hertz)
    if front is not None:
        front.fit([tone])
        tone = front.decode(front.encode(tone))
    found = librosa.yin(tone.flatten().numpy(), fmin=hertz / 1.5, fmax=hertz * 1.5, sr=RATE, frame_length=4096)
    edge = round(EDGE * RATE / 1024)
    return abs(float(np.median(1200 * np.log2(found[edge:-edge] / hertz))))


def main() -> None:
    """Prints the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows: dict[str, torch.nn.Module | None] = {"none": None, "complex 512/256": ComplexSpectrogram(1, 512, 256)}
    for window, hop, num_mels in FRONT_ENDS:
        keys = {"window": window, "hop": hop, "num_mels": num_mels}
        rows[f"log-mel {num_mels}, {window}/{hop}"] = LogMelSpectrogram(
            RATE, quietest=1e-3, magnitude_iterations=12, phase_iterations=4, **keys
        )
    print("| front end | " + " | ".join(RANGES) + " |\n|---|" + "---:|" * len(RANGES))
    for name, front in rows.items():
        found = [[measure_cents(front, pitch) for pitch in pitches] for pitches in RANGES.values()]
        print(
            f"| {name} | " + " | ".join(f"{np.median(each):.0f}, {max(each):.0f}" for each in found) + " |", flush=True
        )


if __name__ == "__main__":
    main()

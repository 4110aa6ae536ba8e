"""Wraps aiSFX, a feature extractor that was trained on libraries of sound effects, for a second opinion on figures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from modalities.audio.mel_scale import mel_filters
from scm_media.parts import part

WEIGHTS_SHA256 = "499ea75909c932a2f94c35fa722fa4fabc5bcb7e84917209cc5f7402627b7eb5"
RATE = 44_100
WINDOW, HOP, NUM_BANDS = 2048, 1024, 96
BLOCK, BLOCK_HOP = 100, 50
"""Frames that the network sees at once (2.3 s), and the step from block to block; each has 512 features."""

LARGEST = 9.457798957824707
"""The largest value of the compressed mel spectrograms of its training, by which they are divided."""


@part("feature_extractor")
class AiSFX(nn.Module):
    """Computes the 512 features by which aiSFX tells sound effects apart, averaged over blocks of 2.3 s.

    sample_rate: of the sounds in Hz; they are resampled to 44.1 kHz, and channels are averaged. Sounds shorter than a
    block are followed by silence; longer ones are cut into whole blocks, half a block apart, so that only figures of
    sounds of one length compare. Levels are not normalised. One core of an AMD EPYC (Zen 4) takes about 20 blocks a
    second.
    Source: Ma & Lerch 2022, "Representation Learning for the Automatic Indexing of Sound Effects Libraries" (ISMIR),
    model X-Sequential-CE: log10(1 + 10⁴ · power) in 96 HTK mel bands. Architecture and weights come from the installed
    package aisfx, and from nowhere else. Raises ValueError when it is not installed, or has another checkpoint than
    the one that published figures were measured with.
    """

    num_features = 512

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        try:
            from aisfx.models.cnn2d import EmbeddingNet
        except ImportError as error:
            raise ValueError(
                f"the features aisfx need the package {error.name}, which is not installed: "
                "pip install --no-deps aisfx==0.1.2 (its pins of other packages are not needed)"
            ) from error
        if sample_rate < 1:
            raise ValueError(f"sample_rate must be in Hz, got {sample_rate}")
        self.sample_rate = sample_rate
        self.network = EmbeddingNet("max", 3, 1, 64)
        self.network.load_state_dict(_read(_checkpoint()))
        self.register_buffer("taper", torch.hann_window(WINDOW), persistent=False)
        filters = mel_filters(RATE, WINDOW, NUM_BANDS, scale="htk", unit_sum=True)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)
        self.eval().requires_grad_(False)

    def spectrogram(self, sample: Tensor) -> Tensor:
        """Returns the network's input ``(B, frames, 96)``, about 0 to 1, for waveforms ``(B, C, T)`` in [-1, 1]."""
        wave = sample.float().mean(1)
        if self.sample_rate != RATE:
            import soxr

            resampled = soxr.resample(wave.T.cpu().numpy(), self.sample_rate, RATE)
            wave = torch.from_numpy(resampled).T.to(wave)
        wave = functional.pad(wave, (WINDOW // 2, WINDOW // 2))
        power = torch.fft.rfft(wave.unfold(-1, WINDOW, HOP) * self.taper).abs() ** 2
        return torch.log10(1 + 1e4 * (power @ self.filters.T)) / LARGEST

    def features(self, sample: Tensor) -> Tensor:
        """Returns features ``(B, 512)`` of waveforms ``(B, C, T)`` in [-1, 1]."""
        seen = self.spectrogram(sample)
        seen = functional.pad(seen, (0, 0, 0, max(0, BLOCK - seen.shape[1])))
        blocks = seen.unfold(1, BLOCK, BLOCK_HOP).transpose(-1, -2)
        with flush_denormals():
            features = self.network(blocks.flatten(0, 1).contiguous())
        return features.unflatten(0, blocks.shape[:2]).mean(1)

    def logits(self, sample: Tensor) -> dict[str, Tensor]:
        """Returns no scores: the network knows categories of sound effects, not a model's labels."""
        return {}


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Treats denormal numbers as zero inside the block, and restores the former setting behind it.

    The network's activations underflow, which makes a CPU several times slower. The setting belongs to the thread and
    PyTorch does not report it, so that a multiplication has to find it out.
    """
    before = bool(torch.tensor([1e-40]).mul(0.5).eq(0))
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _checkpoint() -> Path:
    """Returns the file in which the installed package keeps its weights."""
    found = find_spec("aisfx")
    assert found is not None and found.origin is not None, "it was imported"
    return Path(found.origin).parent / "models" / "checkpoint.pth"


def _read(file: Path) -> dict[str, Tensor]:
    """Returns the embedding network's weights; runs nothing that the pickle may hold."""
    content = file.read_bytes() if file.is_file() else b""
    found = hashlib.sha256(content).hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(
            f"{file} has the SHA-256 {found[:12]}…, expected {WEIGHTS_SHA256[:12]}…: figures would not compare; "
            "install it again: pip install --force-reinstall --no-deps aisfx==0.1.2"
        )
    # Beside the weights the file counts the classes of its data sets, as NumPy's numbers.
    numbers = [(np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype(np.int64))]
    with torch.serialization.safe_globals(numbers):
        state, _ = torch.load(file, map_location="cpu", weights_only=True)
    own = "embedding_net."
    return {name.removeprefix(own): value for name, value in state.items() if name.startswith(own)}

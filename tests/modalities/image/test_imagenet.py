"""The network that was trained on ImageNet: the installed package's weights, what it sees, and when it is refused."""

from __future__ import annotations

import sys

import pytest
import torch

from modalities.image import imagenet
from modalities.image.imagenet import EfficientNetLite0


@pytest.fixture(scope="module")
def network():
    return EfficientNetLite0()


def _disc(size: int, red: float, green: float, blue: float) -> torch.Tensor:
    axis = torch.linspace(-1, 1, size)
    inside = (axis[:, None] ** 2 + axis**2 < 0.5).float()
    colour = torch.tensor([red, green, blue])[:, None, None]
    return inside * colour - (1 - inside)


@torch.inference_mode()
def test_features_have_1280_dimensions_and_tell_pictures_apart(network):
    red, green = _disc(64, 1.0, -0.8, -0.8), _disc(64, -0.8, 1.0, -0.8)
    dimmed = _disc(64, 0.95, -0.8, -0.8)
    features = network.features(torch.stack([red, dimmed, green]))
    assert features.shape == (3, 1280)
    assert (features[0] - features[1]).norm() < 0.5 * (features[0] - features[2]).norm()
    assert network.logits(red[None]) == {}


@torch.inference_mode()
def test_the_weights_are_trained_ones(network):
    """ImageNet's scores of an orange disc on white: an orange, a ball or a like thing, and not evenly spread."""
    picture = _disc(224, 1.0, 0.2, -0.9)
    scores = network.network._fc(network.features(picture[None]))[0].softmax(0)
    assert scores.max() > 0.05
    assert scores.topk(50).values.sum() > 0.5


@torch.inference_mode()
@pytest.mark.parametrize(("size", "seen"), [(28, 64), (64, 64), (80, 80), (300, 224)])
def test_small_pictures_are_enlarged_and_large_ones_shrunk(network, monkeypatch, size, seen):
    shapes = []
    monkeypatch.setattr(
        network.network, "extract_features", lambda pixels: shapes.append(tuple(pixels.shape)) or pixels[:, :, :2, :2]
    )
    network.features(torch.zeros(1, 1, size, size))
    assert shapes == [(1, 3, seen, seen)]


@torch.inference_mode()
def test_pixels_are_scaled_as_it_was_trained(network, monkeypatch):
    monkeypatch.setattr(network.network, "extract_features", lambda pixels: pixels)
    ends = torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 3, 64, 64)
    assert network.features(ends)[:, 0].tolist() == pytest.approx([(0 - 127) / 128, (255 - 127) / 128])


def test_another_weight_file_is_refused(tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match=r"weights.pth has the SHA-256 .*expected 579344248a93"):
        imagenet._read(file)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ValueError, match=r"efficientnet_lite_pytorch.*pip install 'scm-media\[metrics\]'"):
        EfficientNetLite0()

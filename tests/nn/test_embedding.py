from __future__ import annotations

import math

import pytest
import torch

from scm_media.conditioning import NO_LABEL
from scm_media.nn.dual import DualTensor
from scm_media.nn.embedding import LabelEmbedding, PositionEmbedding, ScalarEmbedding, SinusoidalFeatures
from tests.nn.test_dual import by_differences, check, pair


def test_time_features_carry_the_tangent():
    t = DualTensor(pair(5).value.detach(), pair(5).tangent)
    features = SinusoidalFeatures(16)
    value, tangent = by_differences(features, t)
    torch.testing.assert_close(features(t).value, value)
    torch.testing.assert_close(features(t).tangent, tangent, rtol=1e-8, atol=1e-8)
    check(ScalarEmbedding(8).double(), t)


def test_frequencies_run_from_a_quarter_to_eight_in_equal_ratios():
    frequencies = SinusoidalFeatures(16).frequencies
    assert frequencies[0].item() == pytest.approx(0.25)
    assert frequencies[-1].item() == pytest.approx(8.0)
    ratios = frequencies[1:] / frequencies[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(15))


def test_the_slope_of_the_features_is_bounded():
    t = torch.linspace(0, math.pi / 2, 50)
    features = SinusoidalFeatures(32)(DualTensor(t, torch.ones(50)))
    assert features.tangent.abs().max() < 8.01 * math.sqrt(2)
    assert 0.5 < features.value.square().mean() < 2


def test_time_stays_float32_under_autocast():
    t = DualTensor(torch.tensor([0.3, 1.2]), torch.ones(2))
    layer = ScalarEmbedding(8)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(t)
    assert low.value.dtype == low.tangent.dtype == torch.float32
    torch.testing.assert_close(low.tangent, layer(t).tangent, rtol=0, atol=0)


def labels():
    torch.manual_seed(0)
    return LabelEmbedding({"class": 3, "pitch": 0}, 8)


LIKE = torch.zeros(2, 8)


def test_labels_add_up_and_an_absent_one_has_an_embedding_of_its_own():
    layer = labels()
    torch.nn.init.normal_(layer.absent["pitch"])
    none = layer({}, LIKE)
    given = {"class": torch.tensor([2, NO_LABEL]), "pitch": torch.tensor([0.5, math.nan])}
    embedded = layer(given, LIKE)
    torch.testing.assert_close(embedded[1], none[1])
    alone = [layer({name: label}, LIKE) for name, label in given.items()]
    torch.testing.assert_close(embedded, alone[0] + alone[1] - none)
    assert (embedded[0] - none[0]).abs().max() > 0.1


def test_a_scalar_is_embedded_in_its_own_unit():
    torch.manual_seed(0)
    plain = LabelEmbedding({"velocity": 0}, 8)
    scaled = LabelEmbedding({"velocity": 0}, 8, units={"velocity": 64.0})
    scaled.load_state_dict(plain.state_dict())
    torch.testing.assert_close(
        scaled({"velocity": torch.tensor([32.0, 96.0])}, LIKE), plain({"velocity": torch.tensor([0.5, 1.5])}, LIKE)
    )
    with pytest.raises(ValueError, match=r"positive numbers of labels without classes, got class 2, velocity 0"):
        LabelEmbedding({"velocity": 0, "class": 3}, 8, units={"class": 2, "velocity": 0})


def test_an_absent_scalar_leaves_gradients_finite():
    layer = labels()
    layer({"pitch": torch.tensor([math.nan, 1.0])}, LIKE).square().sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in layer.parameters())


def test_unknown_labels_are_refused_with_those_known():
    with pytest.raises(ValueError, match=r"\['colour'\].*\['class', 'pitch'\]"):
        labels()({"colour": torch.zeros(2, dtype=torch.int64)}, LIKE)


@pytest.mark.parametrize("sizes", [(5,), (3, 4), (2, 3, 2)])
def test_every_place_has_a_position_of_its_own(sizes):
    torch.manual_seed(0)
    positions = PositionEmbedding(len(sizes), 16)(sizes, torch.zeros(()))
    assert positions.shape == (math.prod(sizes), 16)
    distances = torch.cdist(positions, positions) + 10 * torch.eye(positions.shape[0])
    assert distances.min() > 0.05

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from modalities.image.autoencoder import PixelAutoencoder
from modalities.image.modality import ImageModality
from scm_media.conditioning import Conditioning
from scm_media.nn.dual import DualTensor, apply_linear
from scm_media.nn.transformer import Transformer
from scm_media.testing import _check_edits, check_autoencoder, check_backbone, check_modality
from tests.pipeline.waves import FadingWaveModality


def pictures(num=64):
    return (torch.randn(num, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.3).clamp(-1, 1)


def fitted():
    autoencoder = PixelAutoencoder(3)
    autoencoder.fit([pictures()])
    return autoencoder


def test_our_own_classes_conform(tmp_path):
    check_modality(ImageModality(size=8, channels=3), tmp_path, pictures()[0])
    check_autoencoder(fitted(), pictures())
    cond = Conditioning(labels={"class": torch.tensor([0, 1, -1])})
    check_backbone(Transformer(3, 2, patch=2, width=16, depth=1, num_heads=2, labels={"class": 2}), (3, 8, 8), cond)


def test_a_modality_that_loses_its_metadata_is_found(tmp_path):
    modality = ImageModality(size=8, channels=3)
    write = modality.write
    modality.write = lambda path, sample, metadata: write(path, sample, {})
    with pytest.raises(AssertionError, match="metadata"):
        check_modality(modality, tmp_path, pictures()[0])


def test_a_modality_that_reads_wrongly_is_found(tmp_path):
    modality = ImageModality(size=8, channels=3)
    read = modality.read
    modality.read = lambda path: read(path).flip(-1)
    with pytest.raises(AssertionError, match="change a sample"):
        check_modality(modality, tmp_path, pictures()[0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda figures: {"level": figures["brightness"]},
            r"statistics\(\) has \['level'\], but .*'contrast', 'sharpness'",
        ),
        (
            lambda figures: {name: each[:1] for name, each in figures.items()},
            r"'brightness'\] is \(1,\), expected \(2,\)",
        ),
        (lambda figures: {name: each.double() for name, each in figures.items()}, "must be float32"),
        (lambda figures: {name: each / 0 for name, each in figures.items()}, "must be finite"),
        (lambda figures: {name: each.mean().expand(len(each)) for name, each in figures.items()}, "a sample's own"),
    ],
)
def test_figures_of_single_samples_are_held_to_their_contract(tmp_path, wrong, message):
    modality = ImageModality(size=8, channels=3)
    statistics = modality.statistics
    modality.statistics = lambda samples: wrong(statistics(samples))
    with pytest.raises(AssertionError, match=message):
        check_modality(modality, tmp_path, pictures()[0])


def test_a_header_that_promises_less_than_is_read_is_found(tmp_path):
    modality = ImageModality(size=8, channels=3)
    modality.count_values = lambda path: 3 * 8 * 8
    check_modality(modality, tmp_path, pictures()[0])
    modality.count_values = lambda path: 3 * 8 * 8 - 1
    with pytest.raises(AssertionError, match=r"count_values\(\) must be at least .* 192 values, or None; got 191"):
        check_modality(modality, tmp_path, pictures()[0])


def test_what_edits_lean_on_is_held_to():
    wave = torch.sin(torch.arange(32.0))[None]
    _check_edits(FadingWaveModality(), wave)
    wrong = FadingWaveModality()
    wrong.size_options = {"duration": replace(wrong.size_options["duration"], rate=1.0)}
    with pytest.raises(
        AssertionError, match="size option duration: a sample has 32 positions along axis -1, but default × rate is 2"
    ):
        _check_edits(wrong, wave)
    wrong = FadingWaveModality()
    wrong.blend = lambda known, made, mask: 0.5 * (known + made)
    with pytest.raises(AssertionError, match="whose mask is 1 all over"):
        _check_edits(wrong, wave)


def test_latents_of_another_deviation_are_found():
    with pytest.raises(AssertionError, match=r"\[0, 1, 2\].*sigma_data = 1"):
        check_autoencoder(fitted(), pictures(), sigma_data=1.0)


class Scaled(nn.Module):
    """A backbone whose tangent or batch can be made wrong."""

    accepts_dual = True

    def __init__(self, wrong):
        super().__init__()
        self.weight, self.wrong = nn.Parameter(torch.ones(())), wrong

    def forward(self, u, t, cond):
        F = apply_linear(lambda v: self.weight * v, u)
        if self.wrong == "tangent" and isinstance(u, DualTensor):
            F.tangent.mul_(1.01)
        if self.wrong == "batch":
            F = apply_linear(lambda v: v - v.mean(0, keepdim=True), F)
        return F


def test_a_backbone_with_text_is_checked_with_text():
    class Numb(Transformer):
        """Forgets the tangent where there is a text."""

        def forward(self, u, t, cond):
            out = super().forward(u, t, cond)
            if isinstance(out, DualTensor) and cond.tokens is not None:
                out.tangent.mul_(1.01)
            return out

    options = {"patch": 2, "width": 16, "depth": 1, "num_heads": 2, "text": {"tokens": 3, "pooled": 4}}
    check_backbone(Transformer(1, 2, **options), (1, 4, 4))
    with pytest.raises(AssertionError, match="by differences"):
        check_backbone(Numb(1, 2, **options), (1, 4, 4))


def test_a_linear_backbone_conforms():
    check_backbone(Scaled(None), (2, 5))


@pytest.mark.parametrize(("wrong", "message"), [("tangent", "by differences"), ("batch", "sample in a batch")])
def test_a_wrong_backbone_is_found(wrong, message):
    with pytest.raises(AssertionError, match=message):
        check_backbone(Scaled(wrong), (2, 5))


@pytest.mark.parametrize(
    ("offered", "words"),
    [
        (
            {"read_transformed": lambda path, generator: (torch.zeros(3, 8, 8), None)},
            r"transform\(read\(\)\) differ by",
        ),
        (
            {"validate": lambda path: None},
            r"validate\(\) of broken\.png, which is missing or broken, must raise ValueError",
        ),
    ],
)
def test_a_modality_that_reads_a_part_otherwise_or_takes_what_is_broken_is_found(tmp_path, offered, words):
    modality = ImageModality(size=8, channels=3)
    for name, method in offered.items():
        setattr(modality, name, method)
    with pytest.raises(AssertionError, match=words):
        check_modality(modality, tmp_path, pictures()[0])

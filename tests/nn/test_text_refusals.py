"""Texts that do not fit a backbone are refused, and compiled backbones with text are right or refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scm_media.nn.dual import DualTensor
from scm_media.training.compiling import compile_backbone
from tests.nn.backbones import LABELS, LATENTS, fresh_transformer, inputs, transformer, unet
from tests.nn.texts import FRESH, MAKERS, WIDTHS, called, rank_of, widths

each_network = pytest.mark.parametrize("make", MAKERS)


@each_network
@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ({"tokens": 5}, {"tokens": torch.zeros(3, 4, 6)}, r"width 6, and this backbone was built for width 5"),
        ({"pooled": 7}, {"pooled": torch.zeros(3, 8)}, r"width 8, and this backbone was built for width 7"),
        ({"tokens": 5}, {"tokens": torch.zeros(3, 5)}, r"must have the shape \(B, L, d\), got \(3, 5\)"),
        ({"pooled": 7}, {"pooled": torch.zeros(3, 1, 7)}, r"must have the shape \(B, p\), got \(3, 1, 7\)"),
        ({"pooled": 7}, {"tokens": torch.zeros(3, 4, 5)}, "text as tokens, and this backbone takes pooled"),
        ({"tokens": 5}, {"pooled": torch.zeros(3, 7)}, "text as pooled, and this backbone takes tokens"),
        (None, {"pooled": torch.zeros(3, 7), "tokens": torch.zeros(3, 4, 5)}, "tokens and pooled, .* takes no text"),
    ],
)
def test_texts_that_do_not_fit_are_refused(make, text, given, message):
    u, t, cond = inputs(rank_of(make))
    with pytest.raises(ValueError, match=message):
        make(rank_of(make), text=text)(u.value, t.value, replace(cond, **given))


@each_network
def test_a_mask_of_another_length_is_refused(make):
    net, u, t, cond = called(make)
    with pytest.raises(ValueError, match=r"token_mask \(3, 2\) must have an entry for each of the tokens \(3, 4\)"):
        net(u.value, t.value, replace(cond, token_mask=cond.token_mask[:, :2]))


@pytest.mark.parametrize("text", [{"words": 3}, {"tokens": 0}])
def test_widths_of_other_things_are_refused(text):
    with pytest.raises(ValueError, match=r"keys tokens and pooled, .* got (words: 3|tokens: 0)"):
        transformer(1, text=text)


@pytest.mark.slow
@pytest.mark.parametrize("make", [transformer, unet])
def test_compiled_it_has_the_same_value_and_tangent(make):
    net = FRESH[make](rank_of(make), text=WIDTHS)
    compile_backbone(net, LATENTS[rank_of(make)], LABELS, "32-true")
    u, t, cond = called(make)[1:]
    u, t = (DualTensor(x.value.float(), x.tangent.float()) for x in (u, t))
    assert net(u, t, replace(cond, labels={})).value.shape == u.value.shape
    assert net._compiled_call_impl is not None


def test_a_compiled_tangent_that_ignores_the_text_is_refused(monkeypatch):
    class Deaf(type(fresh_transformer(1))):
        """Takes no notice of texts once it carries a pair."""

        def forward(self, u, t, cond):
            return super().forward(u, t, replace(cond, tokens=None) if isinstance(u, DualTensor) else cond)

        def compile(self, **options):
            """Stays as it is: what is compiled is of no matter here."""

    net = fresh_transformer(1, text=widths("tokens"))
    net.__class__ = Deaf
    with pytest.raises(ValueError, match=r"the compiled value differs from float64"):
        compile_backbone(net, LATENTS[1], LABELS, "32-true")

"""Text as an input of a backbone: its tangent, its padding, samples without it, and what a new network makes of it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch

from scm_media.adapters.checkpointing import enable_checkpointing
from scm_media.conditioning import Conditioning
from scm_media.nn.dual import DualTensor
from scm_media.nn.text import text_widths
from scm_media.testing import check_backbone
from tests.nn.backbones import LATENTS, RANKS, clips, inputs, transformer, unet
from tests.nn.texts import FRESH, MAKERS, WAYS, WIDTHS, called, rank_of, widths, with_text

OLD = {transformer: (46, 1931.3556), unet: (60, 36584.0271), clips: (60, 2572.685)}
each_network = pytest.mark.parametrize("make", MAKERS)
each_way = pytest.mark.parametrize("way", WAYS)
in_each_rank = pytest.mark.parametrize(
    ("make", "rank"), [(make, rank) for make in MAKERS for rank in (RANKS if make is not clips else [3])]
)
EVERYONE = torch.ones(3, dtype=torch.bool)


def forward_mode(net, u, t, cond):
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), torch.no_grad():
        return torch.func.jvp(lambda x, s: net(x, s, cond), (u.value, t.value), (u.tangent, t.tangent))


@in_each_rank
@each_way
def test_the_tangent_of_one_pass_is_that_of_two(make, rank, way):
    net = make(rank, text=widths(way), guidance=True)
    u, t, cond = inputs(rank)
    valid = torch.ones(3, 1, *LATENTS[rank][1:], dtype=torch.float64)
    valid[1, ..., 4:] = 0
    cond = replace(with_text(cond, way), padding_mask=valid, guidance=torch.tensor([1.0, 2.0, 3.0]).double())
    pair = net(u, t, cond)
    value, tangent = forward_mode(net, u, t, cond)
    torch.testing.assert_close(pair.value, value, rtol=1e-9, atol=1e-9)
    assert (pair.tangent - tangent).norm() < 1e-9 * tangent.norm()
    assert not pair.tangent.requires_grad
    changed = net(u, t, replace(cond, **{name: getattr(cond, name).flip(0) for name in WAYS[way]}))
    assert (changed.tangent - pair.tangent).norm() > 1e-3 * tangent.norm(), "the text bends the tangent"


@each_network
def test_texts_of_many_tokens_have_the_same_tangent(make, monkeypatch):
    net, u, t, cond = called(make)
    few = net(u, t, cond)
    monkeypatch.setattr("scm_media.nn.attention.SHORT", 1)
    many = net(u, t, cond)
    torch.testing.assert_close(many.tangent, few.tangent)
    torch.testing.assert_close(many.value, few.value)


@each_network
@each_way
def test_it_conforms_to_the_contract_of_a_backbone(make, way):
    net, _, _, cond = called(make, way)
    check_backbone(net, LATENTS[rank_of(make)], cond)


@each_network
@each_way
def test_the_gradients_are_those_of_two_passes_and_reach_every_weight(make, way):
    net, u, t, cond = called(make, way)

    def gradients(F, tangent):
        loss = (F - F.detach() - tangent / (tangent.norm() + 0.1)).square().mean()
        return torch.autograd.grad(loss, list(net.parameters()))

    pair = net(u, t, cond)
    ours = gradients(pair.value, pair.tangent)
    theirs = gradients(net(u.value, t.value, cond), forward_mode(net, u, t, cond)[1])
    for (name, _), mine, other in zip(net.named_parameters(), ours, theirs, strict=True):
        assert mine.abs().max() > 0, name
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@each_network
@pytest.mark.parametrize("filling", [3.0, math.nan])
def test_tokens_that_are_padding_change_nothing(make, filling):
    net, u, t, cond = called(make)
    before = net(u, t, cond)
    filled = torch.where(cond.token_mask[..., None], cond.tokens, filling)
    pooled = cond.pooled.clone()
    pooled[1] = filling  # of the sample whose text was dropped
    after = net(u, t, replace(cond, tokens=filled, pooled=pooled))
    assert torch.equal(after.value, before.value) and torch.equal(after.tangent, before.tangent)
    longer = torch.nn.functional.pad(cond.tokens, (0, 0, 0, 3), value=filling)
    mask = torch.nn.functional.pad(cond.token_mask, (0, 3))
    torch.testing.assert_close(net(u, t, replace(cond, tokens=longer, token_mask=mask)).value, before.value)
    after.value.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())


@each_network
@each_way
def test_every_token_and_vector_matters_to_its_own_sample(make, way):
    net, u, t, cond = called(make, way)
    before = net(u.value, t.value, cond)
    for name in WAYS[way]:
        field = getattr(cond, name).clone()
        field[0, 0] += 1.0
        changed = (net(u.value, t.value, replace(cond, **{name: field})) - before).flatten(1).abs().amax(1)
        assert changed[0] > 1e-3 and changed[1:].max() < 1e-12


@each_network
@each_way
def test_dropped_texts_are_as_no_text(make, way):
    net, u, t, cond = called(make, way)
    without = replace(cond, tokens=None, pooled=None, token_mask=None)
    expected = net(u, t, without)
    given = replace(cond, token_mask=None)  # everyone has a text
    all_dropped = replace(given.drop(EVERYONE), labels=cond.labels)
    for found in (net(u, t, all_dropped), net(u, t, replace(all_dropped, tokens=None, pooled=None))):
        torch.testing.assert_close(found.value, expected.value)
        torch.testing.assert_close(found.tangent, expected.tangent)
    with_all = net(u, t, given).value
    some_dropped = net(u, t, replace(given.drop(torch.tensor([False, True, False])), labels=cond.labels)).value
    torch.testing.assert_close(some_dropped[1], expected.value[1])
    torch.testing.assert_close(some_dropped[[0, 2]], with_all[[0, 2]])
    assert (with_all - expected.value).flatten(1).abs().amax(1).min() > 1e-3


@each_network
@each_way
def test_the_null_is_learned_from_samples_without_text_alone(make, way):
    net, u, t, cond = called(make, way)
    nulls = {name: each for name, each in net.named_parameters() if ".null." in name}
    assert len(nulls) == len(WAYS[way])
    before = net(u.value, t.value, cond)
    F = before.detach()
    for sample in (0, 1):
        gradients = torch.autograd.grad(before[sample].square().sum(), list(nulls.values()), retain_graph=True)
        assert all((gradient.abs().max() > 0) == (sample == 1) for gradient in gradients)
    for null in nulls.values():
        with torch.no_grad():
            null += 1.0
            changed = (net(u.value, t.value, cond) - F).flatten(1).abs().amax(1)
            null -= 1.0
        assert changed[1] > 1e-4 and changed[[0, 2]].max() < 1e-12


@each_network
@each_way
def test_a_network_starts_as_the_one_without_text(make, way):
    rank = rank_of(make)
    plain, told = (FRESH[make](rank, text=text).double() for text in (None, widths(way)))
    state = plain.state_dict()
    assert state.keys() < told.state_dict().keys()
    assert all(torch.equal(told.state_dict()[name], value) for name, value in state.items()), "one seed, one network"
    for each in (plain, told):
        each.load_state_dict(make(rank).state_dict(), strict=False)
    u, t, cond = inputs(rank)
    found, expected = told(u, t, with_text(cond, way)), plain(u, t, cond)
    torch.testing.assert_close(found.value, expected.value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.tangent, expected.tangent, rtol=1e-12, atol=1e-12)
    assert found.value.abs().max() > 0.01


@each_network
def test_without_text_nothing_is_new(make):
    """Number of tensors and sum of absolute weights are those of the networks before there was text."""
    net = FRESH[make](rank_of(make))
    state = net.state_dict()
    assert (len(state), pytest.approx(sum(each.double().abs().sum().item() for each in state.values()))) == OLD[make]
    restored = FRESH[make](rank_of(make), text=None)
    restored.load_state_dict(state)
    assert text_widths(net) == text_widths(restored) == {}
    assert text_widths(FRESH[make](rank_of(make), text=WIDTHS)) == WIDTHS


@each_network
def test_one_step_lets_text_have_an_effect(make):
    net, u, t, cond = called(make)
    new = FRESH[make](rank_of(make), text=WIDTHS).double()
    for name, value in net.state_dict().items():  # all but what begins at zero
        if (own := new.state_dict()[name]).abs().max() > 0 or "text" not in name:
            own.copy_(value)
    start = new(u.value, t.value, cond)
    optimizer = torch.optim.SGD(new.parameters(), 1e-2)
    start.square().mean().backward()
    optimizer.step()
    without = replace(cond, token_mask=torch.zeros_like(cond.token_mask))
    for name in WIDTHS:
        moved = replace(cond, **{name: getattr(cond, name) + 1.0})
        assert (new(u.value, t.value, moved) - new(u.value, t.value, cond)).abs().max() > 1e-7, name
    assert torch.isfinite(new(u.value, t.value, without)).all()


@each_network
def test_a_network_of_one_way_leaves_the_other_out(make):
    u, t, cond = inputs(rank_of(make))
    for way in ("tokens", "pooled"):
        net = make(rank_of(make), text=widths(way))
        both = with_text(cond)
        alone = replace(both, **{name: None for name in WIDTHS if name != way})
        assert torch.equal(net(u.value, t.value, both), net(u.value, t.value, alone))


@each_network
@each_way
def test_blocks_that_are_computed_again_give_the_same(make, way):
    net, u, t, cond = called(make, way, dropout=0.3)
    again = copy.deepcopy(net)
    enable_checkpointing(again)
    results = []
    for each in (net, again):
        torch.manual_seed(1)
        pair = each.train()(u, t, cond)
        pair.value.square().sum().backward()
        results.append((pair.value.detach(), pair.tangent, *(parameter.grad for parameter in each.parameters())))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@each_network
def test_bfloat16_is_near_float32(make):
    net, u, t, cond = called(make, dtype=torch.float32)
    u, t = (DualTensor(x.value.float(), x.tangent.float()) for x in (u, t))
    cond = replace(cond, labels={"class": cond.labels["class"], "pitch": cond.labels["pitch"].float()})
    exact, c = net(u, t, cond), net.condition(t, cond)
    with torch.autocast("cpu", torch.bfloat16):
        low, low_c = net(u, t, cond), net.condition(t, cond)
    assert low.value.dtype == low.tangent.dtype == torch.float32
    assert torch.equal(low_c.value, c.value), "the text does not narrow the path of time"
    assert (low.value - exact.value).norm() < 0.05 * exact.value.norm()
    assert (low.tangent - exact.tangent).norm() < 0.05 * exact.tangent.norm()


@pytest.mark.parametrize("make", [transformer, *(pytest.param(make, marks=pytest.mark.slow) for make in (unet, clips))])
def test_it_is_captured_whole_by_the_compiler(make):
    net, u, t, cond = called(make)
    captured = torch.compile(net, backend="eager", fullgraph=True)
    expected, got = net(u, t, cond), captured(u, t, cond)
    torch.testing.assert_close(got.value, expected.value)
    torch.testing.assert_close(got.tangent, expected.tangent)


def test_dropping_tells_who_has_a_pooled_text():
    cond = Conditioning(pooled=torch.ones(3, 2))
    dropped = cond.drop(torch.tensor([True, False, False]))
    assert dropped.token_mask.tolist() == [[False], [True], [True]]
    assert dropped.drop(torch.tensor([False, True, False])).token_mask.tolist() == [[False], [False], [True]]
    assert dropped[1:].token_mask.tolist() == [[True], [True]]
    assert Conditioning().drop(EVERYONE).token_mask is None

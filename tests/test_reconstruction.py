"""Tests the loss of an autoencoder: its terms, and a critic that is trained in the same backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scm_media.nn.kl_autoencoder import KLAutoencoder, gaussian_kl, gradient_distance
from scm_media.reconstruction import ReconstructionLoss, feature_error, psnr

STEP = torch.tensor(0.0)


class Blur:
    """Features that are the means of a sample's quarters."""

    def features(self, sample):
        return nn.functional.adaptive_avg_pool2d(sample, 2).flatten(1)


def network(rank: int = 2) -> KLAutoencoder:
    made = KLAutoencoder(1, 2, rank=rank, strides=[2], widths=(8,), depth=1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made


def gradients(loss: ReconstructionLoss, sample, step=STEP) -> dict[str, torch.Tensor]:
    loss.zero_grad()
    torch.manual_seed(3)
    loss(sample, step)[0].backward()
    return {name: parameter.grad.clone() for name, parameter in loss.named_parameters()}


def test_psnr_and_feature_error_by_hand():
    sample = torch.zeros(2, 1, 4, 4)
    assert torch.allclose(
        psnr(sample, sample + torch.tensor([0.2, 0.02])[:, None, None, None]), torch.tensor([20.0, 40.0])
    )
    assert psnr(sample + 1, sample + 7)[0] == 10 * torch.tensor(4 / 1e-10).log10()  # clipped, so that nothing is wrong
    assert feature_error(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 5.0]])).item() == pytest.approx(1 / 25)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_the_loss_is_the_weighted_sum_of_its_terms_at_every_rank(rank, distance):
    loss = ReconstructionLoss(network(rank), distance=distance, perceptual_weight=0.3, kl_weight=0.01)
    sample = torch.randn(5, 1, *([8] * rank)).clamp(-1, 1)
    value, terms = loss(sample, STEP)
    expected = terms["reconstruction"] + 0.3 * terms["perceptual"] + 0.01 * terms["kl"]
    assert torch.allclose(terms["loss"], expected)
    assert torch.allclose(value, expected.mean())
    assert torch.allclose(terms["kl"], gaussian_kl(*loss.network.posterior(sample)), atol=1e-6)
    assert all(term.shape == (5,) and not term.requires_grad for term in terms.values())


def test_features_of_the_feature_extractor_take_the_place_of_gradients():
    net, sample = network(), torch.randn(4, 1, 8, 8).clamp(-1, 1)
    torch.manual_seed(5)
    terms = ReconstructionLoss(net, Blur())(sample, STEP)[1]
    torch.manual_seed(5)
    mean, log_variance = net.posterior(sample)
    made = net.synthesize(mean + (log_variance / 2).exp() * torch.randn_like(mean))
    assert torch.allclose(terms["perceptual"], feature_error(Blur().features(sample), Blur().features(made)), rtol=1e-5)


def test_gradients_are_taken_where_they_are_asked_for_with_a_feature_extractor_or_without():
    net, sample = network(), torch.randn(4, 1, 8, 8).clamp(-1, 1)
    found = []
    for feature_extractor, asked in ((Blur(), "gradients"), (None, "gradients"), (None, "features")):
        torch.manual_seed(5)
        found.append(ReconstructionLoss(net, feature_extractor, perceptual=asked)(sample, STEP)[1]["perceptual"])
    torch.manual_seed(5)
    mean, log_variance = net.posterior(sample)
    made = net.synthesize(mean + (log_variance / 2).exp() * torch.randn_like(mean))
    for terms in found:
        assert torch.allclose(terms, gradient_distance(made - sample), rtol=1e-5)
    with pytest.raises(ValueError, match=r"autoencoder.loss.perceptual must be 'features' or 'gradients', got 'looks'"):
        ReconstructionLoss(net, perceptual="looks")


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_one_backward_pass_gives_both_players_their_own_gradients(rank):
    """Held against two separate losses: the hinge loss of the critic, and the distance minus its scaled score."""
    net, sample = network(rank), torch.randn(4, 1, *([8] * rank)).clamp(-1, 1)
    loss = ReconstructionLoss(net, perceptual_weight=0.0, kl_weight=0.0, adversarial_weight=0.7)
    found = gradients(loss, sample)

    torch.manual_seed(3)
    mean, log_variance = net.posterior(sample)
    made = net.synthesize(mean + (log_variance / 2).exp() * torch.randn_like(mean))
    distance, score = (made - sample).abs().mean(), -loss.discriminator(made).mean()
    pulls = [torch.autograd.grad(term, made, retain_graph=True)[0].norm() for term in (distance, score)]
    own = list(net.parameters())
    of_network = torch.autograd.grad(distance + 0.7 * pulls[0] / pulls[1] * score, own)
    for (name, _), expected in zip(net.named_parameters(), of_network, strict=True):
        assert torch.allclose(found[f"network.{name}"], expected, rtol=1e-4, atol=1e-6), name

    critic = loss.discriminator
    hinge = (1 - critic(sample)).relu().mean() + (1 + critic(made.detach())).relu().mean()
    of_critic = torch.autograd.grad(hinge, list(critic.parameters()))
    for (name, _), expected in zip(critic.named_parameters(), of_critic, strict=True):
        assert torch.allclose(found[f"discriminator.{name}"], expected, rtol=1e-4, atol=1e-6), name


def test_before_its_start_the_critic_takes_part_with_no_gradient():
    net, sample = network(), torch.randn(4, 1, 8, 8).clamp(-1, 1)
    late = ReconstructionLoss(net, adversarial_weight=1.0, adversarial_start=10)
    without = ReconstructionLoss(net)
    early, plain = gradients(late, sample, torch.tensor(9.0)), gradients(without, sample)
    assert all(torch.equal(early[name], plain[name]) for name in plain)
    assert all(early[name].abs().max() == 0 for name in early if name.startswith("discriminator"))
    begun = gradients(late, sample, torch.tensor(10.0))
    # A fresh critic's hinges are all open: samples and reconstructions pull its last bias alike.
    moved = begun.keys() - {f"discriminator.layers.{len(late.discriminator.layers) - 1}.bias"}
    assert all(begun[name].abs().max() > 0 for name in moved)


def learn(loss: ReconstructionLoss, part: nn.Module, sample: torch.Tensor, num: int = 40) -> dict[str, float]:
    """Trains a part of a loss, and gives the terms of the last step."""
    optimizer = torch.optim.Adam(part.parameters(), lr=5e-3)
    for _ in range(num):
        loss.zero_grad()
        value, terms = loss(sample, STEP)
        value.backward()
        optimizer.step()
    return {name: term.mean().item() for name, term in terms.items()}


def test_the_critic_learns_to_tell_and_the_network_to_please_it():
    sample = (torch.rand(16, 1, 4, 4).round() * 2 - 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    loss = ReconstructionLoss(network(), perceptual_weight=0.0, kl_weight=0.0, adversarial_weight=1.0)
    told = learn(loss, loss.discriminator, sample)
    assert told["score_real"] > told["score_made"] + 1
    pleased = learn(loss, loss.network, sample)
    assert pleased["score_made"] > told["score_made"] + 0.5


def test_both_players_learn_under_one_optimiser():
    sample = (torch.rand(16, 1, 4, 4).round() * 2 - 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    loss = ReconstructionLoss(network(), perceptual_weight=0.0, kl_weight=0.0, adversarial_weight=0.2)
    first = loss(sample, STEP)[1]["reconstruction"].mean().item()
    both = learn(loss, loss, sample)
    assert both["reconstruction"] < 0.6 * first
    assert both["score_real"] > both["score_made"] + 0.2


def test_a_distance_of_ones_own_is_the_sum_of_its_terms_and_pulls_the_critics_weight():
    def distance(sample, made):
        apart = (made - sample).flatten(1)
        return {"near": apart.abs().mean(1), "far": 2 * apart.square().mean(1)}

    net, sample = network(), torch.randn(4, 1, 8, 8).clamp(-1, 1)
    loss = ReconstructionLoss(net, distance=distance, perceptual_weight=0, kl_weight=0, adversarial_weight=0.7)
    _value, terms = loss(sample, STEP)
    assert torch.allclose(terms["reconstruction"], terms["near"] + terms["far"])
    assert torch.allclose(terms["loss"], terms["reconstruction"])
    found = gradients(loss, sample)

    torch.manual_seed(3)
    mean, log_variance = net.posterior(sample)
    made = net.synthesize(mean + (log_variance / 2).exp() * torch.randn_like(mean))
    whole, score = sum(distance(sample, made).values()).mean(), -loss.discriminator(made).mean()
    pulls = [torch.autograd.grad(term, made, retain_graph=True)[0].norm() for term in (whole, score)]
    expected = torch.autograd.grad(whole + 0.7 * pulls[0] / pulls[1] * score, list(net.parameters()))
    for (name, _), wanted in zip(net.named_parameters(), expected, strict=True):
        assert torch.allclose(found[f"network.{name}"], wanted, rtol=1e-4, atol=1e-6), name


def test_a_critic_of_ones_own_judges_where_there_is_a_weight():
    critic = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(1, 1, 1))
    assert ReconstructionLoss(network(), adversarial_weight=0.1, critic=critic).discriminator is critic
    without = ReconstructionLoss(network(), critic=critic)
    assert without.discriminator is None
    assert not any(parameter is weight for parameter in without.parameters() for weight in critic.parameters())


def test_held_out_terms_need_no_gradient_and_name_the_same_figures():
    loss = ReconstructionLoss(network(), adversarial_weight=1.0, adversarial_start=5)
    sample = torch.randn(4, 1, 8, 8).clamp(-1, 1)
    trained = loss(sample, STEP)[1]
    with torch.no_grad():
        held_out = loss(sample, torch.tensor(float("inf")))[1]
    assert held_out.keys() == trained.keys()
    assert held_out["score_real"].abs().max() > 0


def test_what_is_no_weight_or_distance_is_refused():
    with pytest.raises(ValueError, match=r"autoencoder\.loss\.distance must be 'l1' or 'l2', got 'l3'"):
        ReconstructionLoss(network(), distance="l3")
    with pytest.raises(ValueError, match=r"autoencoder\.loss\.kl_weight must not be negative, got -1"):
        ReconstructionLoss(network(), kl_weight=-1)

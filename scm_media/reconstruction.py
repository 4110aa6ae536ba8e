"""The loss of autoencoders: distance, perceptual distance, KL divergence and a discriminator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from scm_media import draws
from scm_media.interfaces import FeatureExtractor
from scm_media.nn.discriminator import PatchDiscriminator
from scm_media.nn.kl_autoencoder import KLAutoencoder, gaussian_kl, gradient_distance
from scm_media.parts import part

Distance = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""``(sample, reconstruction) -> terms``: ``(B, C, *S)`` to terms ``(B,)`` by name, whose sum is the distance."""

_PEAK = 2.0
"""The range of samples, which lie in [-1, 1]."""


def psnr(sample: Tensor, reconstruction: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio of each sample ``(B,)`` in dB; reconstructions are clipped to [-1, 1]."""
    error = (reconstruction.float().clamp(-1, 1) - sample.float()).square().flatten(1).mean(1)
    return 10 * (_PEAK**2 / error.clamp(min=1e-10)).log10()


def feature_error(features: Tensor, other: Tensor) -> Tensor:
    """Returns ‖other − features‖² / ‖features‖² of each sample ``(B,)`` for features ``(B, d)``."""
    features, other = features.float(), other.float()
    return (other - features).square().sum(1) / features.square().sum(1).clamp(min=1e-6)


@part("loss", distance="distance", critic="critic")
class ReconstructionLoss(nn.Module):
    """Distance + perceptual distance + KL divergence from N(0, 1), with an optional discriminator.

    network: a ``KLAutoencoder``, or a module with its ``posterior``, ``synthesize``, ``channels`` and ``rank``.
    distance: "l1" or "l2", averaged over a sample, or a ``Distance``, whose terms are reported by name.
    perceptual: the term that perceptual_weight multiplies; "features", the error of the feature extractor's features,
    or "gradients", the distance of gradients at several scales, which is also used without a feature extractor.
    kl_weight: the weight of the divergence in nats, averaged over the entries of a latent.
    adversarial_weight: 0 for no discriminator; otherwise, from step adversarial_start on, the discriminator's gradient
    with respect to the reconstruction is scaled to this many times the norm of the distance's. critic: the
    discriminator, which returns scores ``(B, 1, *patches)``; a ``PatchDiscriminator`` by default.

    One optimiser trains autoencoder and discriminator in one backward pass. The discriminator sees reconstructions
    without the autoencoder's graph, so that its hinge loss trains it alone. The gradient of −mean(score) with respect
    to the reconstruction is computed separately and passed on to the autoencoder as a constant. Raises ValueError for
    unknown names and negative weights. Source: Rombach et al. 2021 (arXiv 2112.10752), section 3.1.
    """

    def __init__(
        self,
        network: KLAutoencoder,
        feature_extractor: FeatureExtractor | None = None,
        distance: Literal["l1", "l2"] | Distance = "l1",
        perceptual: Literal["features", "gradients"] = "features",
        perceptual_weight: float = 0.1,
        kl_weight: float = 1e-4,
        adversarial_weight: float = 0.0,
        adversarial_start: int = 0,
        critic: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not callable(distance) and distance not in ("l1", "l2"):
            raise ValueError(f"autoencoder.loss.distance must be 'l1' or 'l2', got {distance!r}")
        if perceptual not in ("features", "gradients"):
            raise ValueError(f"autoencoder.loss.perceptual must be 'features' or 'gradients', got {perceptual!r}")
        weights = {"perceptual": perceptual_weight, "kl": kl_weight, "adversarial": adversarial_weight}
        for name, weight in weights.items():
            if not weight >= 0:
                raise ValueError(f"autoencoder.loss.{name}_weight must not be negative, got {weight}")
        self.network, self.distance = network, distance
        # In a tuple, outside the module tree: the feature extractor is frozen, and is not wrapped, saved or trained.
        self._feature_extractor = (feature_extractor if perceptual == "features" else None,)
        self.perceptual_weight, self.kl_weight = perceptual_weight, kl_weight
        self.adversarial_weight, self.adversarial_start = adversarial_weight, adversarial_start
        self.discriminator: nn.Module | None = None
        if adversarial_weight > 0:
            self.discriminator = critic or PatchDiscriminator(network.channels, network.rank)

    @property
    def feature_extractor(self) -> FeatureExtractor | None:
        """Returns the frozen feature extractor; None without one."""
        return self._feature_extractor[0]

    def forward(self, sample: Tensor, step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss over samples ``(B, C, *S)`` at a training step, a scalar tensor, and its terms.

        The terms ``(B,)`` are: loss (without the discriminator), reconstruction, perceptual, kl, psnr in dB, and the
        discriminator's scores.
        """
        mean, log_variance = self.network.posterior(sample)
        code = mean + (log_variance / 2).exp() * draws.randn_like(mean)
        made = self.network.synthesize(code).float()
        distances, perceptual = self._distances(sample, made), self._perceptual(sample, made)
        distance, kl = torch.stack(list(distances.values())).sum(0), gaussian_kl(mean, log_variance)
        each = distance + self.perceptual_weight * perceptual + self.kl_weight * kl
        terms = {**distances, "loss": each, "reconstruction": distance, "perceptual": perceptual, "kl": kl}
        terms = {name: term.detach() for name, term in terms.items()} | {"psnr": psnr(sample, made.detach())}
        loss = each.mean()
        if self.discriminator is not None:
            discriminator_loss, scores = self._discriminator_loss(
                self.discriminator, sample, made, bool(step >= self.adversarial_start)
            )
            loss, terms = loss + discriminator_loss, terms | scores
        return loss, terms

    def _distances(self, sample: Tensor, made: Tensor) -> Mapping[str, Tensor]:
        if callable(self.distance):
            return self.distance(sample, made)
        difference = made - sample
        size = difference.abs() if self.distance == "l1" else difference.square()
        return {"reconstruction": size.flatten(1).mean(1)}

    def _perceptual(self, sample: Tensor, made: Tensor) -> Tensor:
        if self.feature_extractor is None:
            return gradient_distance(made - sample)
        with torch.no_grad():
            wanted = self.feature_extractor.features(sample)
        return feature_error(wanted, self.feature_extractor.features(made))

    def _discriminator_loss(
        self, critic: nn.Module, sample: Tensor, made: Tensor, active: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the discriminator's hinge loss with its gradient for the autoencoder, and mean scores ``(B,)``.

        Both are 0 before the discriminator is active.
        """
        if not active:
            # Every parameter takes part in every step, because data parallelism waits for each gradient.
            zero = sum((parameter.sum() for parameter in critic.parameters()), sample.new_zeros(())) * 0
            zeros = sample.new_zeros(len(sample))
            return zero, {"score_real": zeros, "score_made": zeros}
        trains = torch.is_grad_enabled()
        constant = made.detach().requires_grad_(trains)
        score_made, score_real = critic(constant).float(), critic(sample).float()
        loss = (1 - score_real).relu().mean() + (1 + score_made).relu().mean()
        if trains:
            (gradient,) = torch.autograd.grad(-score_made.mean(), constant, retain_graph=True)
            distance = torch.stack(list(self._distances(sample, constant).values())).sum(0)
            (reference,) = torch.autograd.grad(distance.mean(), constant)
            factor = self.adversarial_weight * reference.norm() / gradient.norm().clamp(min=1e-12)
            # The value is 0; the gradient with respect to the reconstruction is factor · gradient.
            loss = loss + ((made - constant.detach()) * (factor * gradient)).sum()
        scores = {"score_real": score_real, "score_made": score_made}
        return loss, {name: score.detach().flatten(1).mean(1) for name, score in scores.items()}

"""What an autoencoder minimises: distance, perceptual distance, a small divergence, and a critic's judgement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from scm_media.interfaces import FeatureExtractor
from scm_media.nn.discriminator import PatchDiscriminator
from scm_media.nn.kl_autoencoder import KLAutoencoder, gaussian_kl, gradient_distance
from scm_media.parts import part

Distance = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""Samples and their reconstructions ``(B, C, *S)`` to terms ``(B,)`` by name, whose sum is the distance."""

_PEAK = 2.0
"""Samples lie in [-1, 1]."""


def psnr(sample: Tensor, reconstruction: Tensor) -> Tensor:
    """Peak signal to noise ratio of each clip ``(B,)`` in dB, of samples in [-1, 1]; reconstructions are clipped."""
    error = (reconstruction.float().clamp(-1, 1) - sample.float()).square().flatten(1).mean(1)
    return 10 * (_PEAK**2 / error.clamp(min=1e-10)).log10()


def feature_error(features: Tensor, other: Tensor) -> Tensor:
    """‖other − features‖² / ‖features‖² of each clip ``(B,)``, for features ``(B, d)``."""
    features, other = features.float(), other.float()
    return (other - features).square().sum(1) / features.square().sum(1).clamp(min=1e-6)


@part("loss", distance="distance", critic="critic")
class ReconstructionLoss(nn.Module):
    """Reconstruction + perceptual distance + divergence from N(0, 1), and optionally a critic (Rombach et al. 2021).

    network: a ``KLAutoencoder``, or a module with its ``posterior``, ``synthesize``, ``channels`` and ``rank``.
    distance: "l1" or "l2", averaged over a clip, or a ``Distance``, whose terms are reported by name.
    perceptual: "features" of the feature extractor, whose error is weighed by perceptual_weight, or "gradients": the
    distance of gradients at several scales, which is taken without an feature extractor too. kl_weight: of the
    divergence in nats, averaged over a latent's places.
    adversarial_weight: 0 for no critic; otherwise, from step adversarial_start on, the critic's pull on the
    reconstructions has this many times the norm of the distance's pull. critic: gives scores ``(B, 1, *patches)`` of
    samples, by default a ``PatchDiscriminator``.

    Autoencoder and critic are trained by one optimiser in one backward pass. The critic sees reconstructions without
    the autoencoder's graph, so that the hinge loss reaches the critic alone; the slope of its scores with respect to
    the picture is taken on the way, and given to the autoencoder as a constant: that is the gradient of −mean(score),
    and nothing of it reaches the critic.
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
        # Held out of the module tree: the feature extractor is frozen and must not be wrapped, saved or trained with
        # the rest.
        self._feature_extractor = (feature_extractor if perceptual == "features" else None,)
        self.perceptual_weight, self.kl_weight = perceptual_weight, kl_weight
        self.adversarial_weight, self.adversarial_start = adversarial_weight, adversarial_start
        self.discriminator: nn.Module | None = None
        if adversarial_weight > 0:
            self.discriminator = critic or PatchDiscriminator(network.channels, network.rank)

    @property
    def feature_extractor(self) -> FeatureExtractor | None:
        """The frozen feature network, if there is one."""
        return self._feature_extractor[0]

    def forward(self, sample: Tensor, step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss over samples ``(B, C, *S)`` at a training step (a scalar tensor: the critic starts by it).

        Terms of each clip: loss (without the critic), reconstruction, perceptual, kl, psnr, and the critic's scores.
        """
        mean, log_variance = self.network.posterior(sample)
        code = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        made = self.network.synthesize(code).float()
        distances, perceptual = self._distances(sample, made), self._perceptual(sample, made)
        distance, kl = torch.stack(list(distances.values())).sum(0), gaussian_kl(mean, log_variance)
        each = distance + self.perceptual_weight * perceptual + self.kl_weight * kl
        terms = {**distances, "loss": each, "reconstruction": distance, "perceptual": perceptual, "kl": kl}
        terms = {name: term.detach() for name, term in terms.items()} | {"psnr": psnr(sample, made.detach())}
        loss = each.mean()
        if self.discriminator is not None:
            judgement, scores = self._discriminator_loss(
                self.discriminator, sample, made, bool(step >= self.adversarial_start)
            )
            loss, terms = loss + judgement, terms | scores
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
        """The critic's hinge loss and its pull on the reconstructions; scores ``(B,)`` of both, 0 before the start."""
        if not active:
            # Every parameter takes part in every step: data parallelism waits for each one's gradient.
            none = sum((parameter.sum() for parameter in critic.parameters()), sample.new_zeros(())) * 0
            zeros = sample.new_zeros(len(sample))
            return none, {"score_real": zeros, "score_made": zeros}
        trains = torch.is_grad_enabled()
        picture = made.detach().requires_grad_(trains)
        of_made, of_real = critic(picture).float(), critic(sample).float()
        loss = (1 - of_real).relu().mean() + (1 + of_made).relu().mean()
        if trains:
            (pull,) = torch.autograd.grad(-of_made.mean(), picture, retain_graph=True)
            distance = torch.stack(list(self._distances(sample, picture).values())).sum(0)
            (plain,) = torch.autograd.grad(distance.mean(), picture)
            strength = self.adversarial_weight * plain.norm() / pull.norm().clamp(min=1e-12)
            # Its value says nothing: what counts is its gradient, strength · pull, with respect to the picture.
            loss = loss + ((made - picture.detach()) * (strength * pull)).sum()
        scores = {"score_real": of_real, "score_made": of_made}
        return loss, {name: score.detach().flatten(1).mean(1) for name, score in scores.items()}

"""Distribution matching: a student's samples are moved to where the teacher's density exceeds their own."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from scm_media import draws
from scm_media.conditioning import Conditioning
from scm_media.guidance import Guided
from scm_media.interfaces import Backbone
from scm_media.losses import ConsistencyLoss, DistillationLoss, Terms, masked_mean_square
from scm_media.nn.dual import without_dropout
from scm_media.nn.embedding import PlainConditioning, as_conditioning
from scm_media.parts import part
from scm_media.timesteps import LogNormalTimesteps, TimestepDistribution
from scm_media.trajectories import Trajectory
from scm_media.trigflow import TrigFlow, broadcast_time

FLOOR = 1e-3
"""Added to the mean distance that a gradient is divided by, in units of sigma_data."""
CONSISTENCY_TIMES = (0.0, 2.0)
"""Mean and standard deviation of the log-normal times of the consistency anchor, for a sigma_data of 0.5."""


@part("loss", timesteps="timesteps")
class DistributionMatchingLoss(DistillationLoss):
    """Matches the distribution of a student's samples with the teacher's (DMD2, Yin et al. 2024, arXiv 2405.14867).

    The student makes samples x as at inference: f(z, t_max), and some of them renoised to times in ``later_times``, in
    falling order, and denoised once more at each. Noised again to x_τ, they have two estimates of x0: D of the teacher,
    and D' of an auxiliary network that learns the student's samples by the diffusion loss, beginning with the teacher's
    weights. The last step is trained by the gradient of KL(student ‖ teacher) for x, each sample's on its own scale,

        (D'(x_τ) − D(x_τ)) / mean|x − D(x_τ)|                   (DMD, Yin et al. 2024, arXiv 2311.18828, equation 8).

    The loss is the sum of the student's and the auxiliary network's. Their parameters are apart, and Adam's steps do
    not depend on the scale of either.

    teacher: as it is sampled, guidance included; the auxiliary network is a copy without the guidance. matching: the
    weight of the matching, which does not reach the auxiliary network. anchor: the
    weight of a second loss of the student, which keeps it on the teacher's trajectories; 0 for none. anchor_loss: this
    loss, "regression" on the ends of trajectories (``RegressionLoss``), or "consistency" on the ends as data
    (``ConsistencyLoss`` with r = 1 and stratified times of mean 0 and standard deviation 2, as rCM joins the two; Zheng
    et al. 2025, arXiv 2510.08431): its objective has matching 0.01 and anchor 1. timesteps: of τ; log-normal with mean
    −0.8 and standard deviation 1.5 where None. step_fractions: the fractions of the samples that are made in one, two,
    three … steps. later_times: the range, in radians, of the times after the first. sigma_max: the noise level that
    sampling starts from, t_max = atan(sigma_max / sigma_data). auxiliary_rate: the auxiliary network's learning rate,
    in units of the student's.
    guidance_max: the highest guidance scale of the trajectories, where the student takes each one's scale as an input,
    as the auxiliary network then does too; None for none. matching_guidance: the guidance scale of D in the matching;
    None for the teacher's own. Guided estimates are not the scores of what a guided teacher samples.

    Raises ValueError without a teacher that can be copied, for settings out of range, and as ``ConsistencyLoss``.
    """

    default_timesteps = (-0.8, 1.5)
    uses_trajectories: ClassVar[bool] = True

    def __init__(
        self,
        backbone: Backbone,
        flow: TrigFlow | None = None,
        timesteps: TimestepDistribution | None = None,
        *,
        teacher: Backbone | None = None,
        matching: float = 1.0,
        anchor: float = 0.5,
        anchor_loss: Literal["regression", "consistency"] = "regression",
        step_fractions: Sequence[float] = (0.5, 0.5),
        later_times: tuple[float, float] = (0.4, 1.4),
        sigma_max: float = 80.0,
        auxiliary_rate: float = 2.0,
        guidance_max: float | None = None,
        matching_guidance: float | None = None,
    ) -> None:
        super().__init__(backbone, teacher, flow, timesteps, "none", 0.0)
        network: Any = teacher.backbone if isinstance(teacher, Guided) else teacher
        if not isinstance(network, nn.Module):
            raise ValueError(
                "DistributionMatchingLoss needs a teacher that is a torch.nn.Module, of which it trains a copy: set "
                "student.objective=scd, or choose another loss"
            )
        if not (all(each >= 0 for each in step_fractions) and math.isclose(sum(step_fractions), 1, abs_tol=1e-6)):
            raise ValueError(
                "step_fractions must be fractions of at least 0 that add up to 1, for one, two, three … steps; got "
                f"{list(step_fractions)}"
            )
        if not (matching >= 0 and anchor >= 0):
            raise ValueError(f"matching and anchor must be weights of at least 0, got {matching} and {anchor}")
        if anchor_loss not in ("regression", "consistency"):
            raise ValueError(f"anchor_loss must be 'regression' or 'consistency', got {anchor_loss!r}")
        if not 0 < later_times[0] <= later_times[1] < self.flow.time_from_sigma(sigma_max):
            raise ValueError(
                f"later_times must be two times in radians, in order, below atan(sigma_max / sigma_data) = "
                f"{self.flow.time_from_sigma(sigma_max):.4f}; got {later_times}"
            )
        if guidance_max is not None and not guidance_max > 1:
            raise ValueError(f"guidance_max must be above 1, or null for no guidance as an input; got {guidance_max}")
        if not auxiliary_rate > 0:
            raise ValueError(f"auxiliary_rate must be positive, got {auxiliary_rate}: 1 is the student's own rate")
        self._freeze(teacher)
        # In a tuple, outside the module tree, which has the teacher's networks already.
        self._real: tuple[Any] = (teacher if matching_guidance is None else _rescale(teacher, matching_guidance),)
        if hasattr(backbone, "twin"):  # a student that shares the teacher's weights has another one that does
            self.auxiliary = backbone.twin()
        else:
            copied: Any = copy.deepcopy(network if guidance_max is None else backbone)
            wide = torch.promote_types(next(copied.parameters()).dtype, torch.float32)  # the teacher may have 16 bits
            self.auxiliary = copied.to(wide).requires_grad_(True).train()
            own = network.state_dict()
            added = {name: torch.zeros_like(each) for name, each in copied.state_dict().items() if name not in own}
            self.auxiliary.load_state_dict({**own, **(added if guidance_max is not None else {})})
        self.auxiliary_rate = auxiliary_rate
        self.matching, self.anchor = matching, anchor
        self.step_fractions, self.later_times = tuple(step_fractions), tuple(later_times)
        self.t_max = self.flow.time_from_sigma(sigma_max)
        self.anchor_loss = anchor_loss
        # In a tuple, outside the module tree, which has its networks already.
        self._consistency = (self._consistency_loss(),) if anchor and anchor_loss == "consistency" else ()

    def limit_times(self, sigma: float) -> None:
        """Limits training to a noise level, from which the student's samples then start too.

        Raises ValueError where all ``later_times`` have more noise.
        """
        super().limit_times(sigma)
        low, high = self.later_times
        if not low < self.latest_time:
            raise ValueError(
                f"later_times {self.later_times} must begin below {self.latest_time:.4f}, the time of the noise level "
                f"{sigma:g} that sampling starts from (sampler.first_sigma)"
            )
        self.later_times = (low, min(high, self.latest_time))
        self.t_max = min(self.t_max, self.latest_time)
        for loss in self._consistency:
            loss.limit_times(sigma)

    def forward(
        self, trajectory: Trajectory, cond: PlainConditioning = None, step: Tensor | float | None = None
    ) -> tuple[Tensor, Terms]:
        """Returns the loss and its terms for points of trajectories, whose conditioning the samples get.

        The terms are t (the times τ), loss (the auxiliary network's), gradient_rms (of the matching, before it is
        divided), distance (mean|x − D|, in units of sigma_data) and anchor (the squared error of the regression, or the
        root mean square of g). cond: a ``Conditioning``, a mapping of
        labels, one label ``(B,)`` or None.
        """
        cond = as_conditioning(cond, self.backbone, trajectory.x0.device)
        sample = self.generate(trajectory, cond)
        fixed = sample.detach()
        z, t = self.draw(fixed)
        gradient, distance = self.gradient(fixed, self.flow.interpolate(fixed, z, t), t, cond)
        target = fixed - gradient / broadcast_time(distance + FLOOR * self.flow.sigma_data, gradient)
        matching = masked_mean_square(sample - target, cond.loss_mask).mean() / 2

        z, t = self.draw(fixed)  # the auxiliary network is trained at other noise than it was asked about
        F = self.auxiliary(self.flow.interpolate(fixed, z, t) / self.flow.sigma_data, t, cond)
        error = self.flow.sigma_data * F.float() - self.flow.velocity(fixed, z, t)
        fitting = masked_mean_square(error, cond.loss_mask)

        terms = {
            "t": t,
            "loss": fitting.detach(),
            "gradient_rms": masked_mean_square(gradient, cond.loss_mask).sqrt(),
            "distance": distance / self.flow.sigma_data,
        }
        loss = self.matching * matching + fitting.mean()
        if self.anchor:
            anchor, terms["anchor"] = self._anchor(trajectory, cond)
            loss = loss + self.anchor * anchor
        return loss, terms

    def _consistency_loss(self) -> ConsistencyLoss:
        times = LogNormalTimesteps.for_sigma_data(*CONSISTENCY_TIMES, self.flow.sigma_data)
        times = replace(times, stratified=True)
        return ConsistencyLoss(self.backbone, self.flow, times, teacher=self.teacher, tangent_warmup=0)

    def _anchor(self, trajectory: Trajectory, cond: Conditioning) -> tuple[Tensor, Tensor]:
        """Returns the loss that keeps the student on the trajectories, and its values for each sample ``(B,)``."""
        if self._consistency:
            loss, terms = self._consistency[0](trajectory.x0, cond)
            return loss, terms["g_rms"]
        _, error = self.regress(trajectory, cond)
        return error.mean(), error.detach()

    def generate(self, trajectory: Trajectory, cond: Conditioning) -> Tensor:
        """Returns the student's samples ``(B, c, *s)``, with the graph of their last step; given parts are kept.

        The samples of fewer steps come first.
        """
        flow, num = self.flow, len(trajectory.x0)
        x_t, t = draws.randn_like(trajectory.x0) * flow.sigma_data, trajectory.x0.new_full((num,), self.t_max)
        ends = [round(num * sum(self.step_fractions[: steps + 1])) for steps in range(len(self.step_fractions))]
        times = self._later_times(ends, t)
        for step, first in enumerate(ends[:-1]):
            if first == num:
                break
            rest = slice(first, num)
            with torch.no_grad():
                x0 = self._sample(x_t[rest], t[rest], cond[rest], trajectory, rest)
            later = times[rest, step]
            noise = draws.randn_like(trajectory.x0)[rest] * flow.sigma_data
            renoised = flow.interpolate(x0, noise, later)
            x_t, t = torch.cat([x_t[:first], renoised]), torch.cat([t[:first], later])
        return self._sample(x_t, t, cond, trajectory, slice(0, num))

    def _later_times(self, ends: Sequence[int], t: Tensor) -> Tensor:
        """Returns the times ``(B, n)`` after the first of n + 1 steps, falling; fewer steps use the first ones.

        ends: the number of samples of at most one, two, three … steps.
        """
        low, high = self.later_times
        drawn = low + (high - low) * draws.rand(len(t), len(ends) - 1, device=t.device).to(t.dtype)
        for step, end in enumerate(ends[:-1]):
            drawn[:end, step:] = 0.0  # not used: the largest ones come first
        return drawn.sort(1, descending=True).values

    def gradient(self, sample: Tensor, noisy: Tensor, t: Tensor, cond: Conditioning) -> tuple[Tensor, Tensor]:
        """Returns D'(x_τ) − D(x_τ) ``(B, c, *s)`` and mean|x − D(x_τ)| ``(B,)``, without a graph."""
        with torch.no_grad(), without_dropout(self.auxiliary):
            real, own = (self.denoise(network, noisy, t, cond) for network in (*self._real, self.auxiliary))
        distance = (sample - real).abs()
        if cond.loss_mask is not None:
            mask = cond.loss_mask.expand_as(distance)
            return (own - real) * mask, (distance * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)
        return own - real, distance.flatten(1).mean(1)

    def _sample(self, x_t: Tensor, t: Tensor, cond: Conditioning, trajectory: Trajectory, part: slice) -> Tensor:
        """Returns the student's x0 for x_t, with what was given to the trajectories of this part of the batch."""
        with without_dropout(self.backbone):  # samples are made as at inference
            x0 = self.denoise(self.backbone, x_t, t, cond)
        if trajectory.given is None or trajectory.mask is None:
            return x0
        return torch.where(trajectory.mask[part] > 0, trajectory.given[part], x0)


def _rescale(teacher: object, scale: float) -> Guided:
    """Returns a guided teacher at another scale, of the same networks; ValueError for one without a scale."""
    if not isinstance(teacher, Guided) or teacher.scale is None:
        what = "takes each sample's scale" if isinstance(teacher, Guided) else "is not guided"
        raise ValueError(
            f"matching_guidance {scale:g} needs a teacher that is guided at one scale (sampler.guidance), and this one "
            f"{what}: leave it null"
        )
    return Guided(teacher.backbone, scale, teacher.interval, teacher.guide, teacher.negative)

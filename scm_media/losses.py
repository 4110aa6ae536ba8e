"""What a teacher and a student minimise.

Both losses are modules whose forward is the loss and that own the backbone, so that what is wrapped for data
parallelism holds every parameter. They return the loss and, for each clip, the terms that diagnostics are made of.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from scm_media.interfaces import Backbone, Conditioning
from scm_media.nn.embedding import SinusoidalFeatures
from scm_media.parts import part
from scm_media.proposals import TimeProposal
from scm_media.tangent import TangentMethod, value_and_tangent
from scm_media.trigflow import TrigFlow, broadcast_time

Weight = Literal["none", "learned"]
Terms = dict[str, Tensor]
"""Per clip ``(B,)`` and without graph: t, loss, and what else a loss has to show."""


class LearnedWeight(nn.Module):
    """w(t), which starts at 0 and is clamped to [−5, 5] (EDM2, section 2.3: an uncertainty of the loss over t)."""

    def __init__(self, num_frequencies: int = 32, bound: float = 5.0) -> None:
        super().__init__()
        self.features = SinusoidalFeatures(num_frequencies)
        self.linear = nn.Linear(2 * num_frequencies, 1)
        self.bound = bound
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, t: Tensor) -> Tensor:
        """w ``(B,)`` for t ``(B,)``."""
        with torch.autocast(t.device.type, enabled=False):
            return self.linear(self.features(t)).squeeze(-1).clamp(-self.bound, self.bound)


def _learned_weight(weight: Weight) -> LearnedWeight | None:
    if weight not in ("none", "learned"):
        raise ValueError(f"weight must be 'none' or 'learned', got {weight!r}")
    return LearnedWeight() if weight == "learned" else None


def masked_mean_square(x: Tensor, valid: Tensor | None) -> Tensor:
    """mean(x²) of each clip ``(B,)`` over the places that count (``valid`` one): ‖x‖²/D; in float32 or wider."""
    wide = x if x.dtype == torch.float64 else x.float()
    square = wide.square().flatten(1)
    if valid is None:
        return square.mean(1)
    mask = valid.to(square.dtype).expand_as(x).flatten(1)
    return (square * mask).sum(1) / mask.sum(1).clamp(min=1)


class _FlowLoss(nn.Module):
    """What both losses share: the draw of time and noise, and the weighted mean."""

    def __init__(
        self, backbone: Backbone, flow: TrigFlow, proposal: TimeProposal, weight: Weight, label_dropout: float
    ) -> None:
        super().__init__()
        self.backbone, self.flow, self.proposal = backbone, flow, proposal
        self.weight = _learned_weight(weight)
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout must lie in [0, 1], got {label_dropout}")
        self.label_dropout = label_dropout

    def draw(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Noise z like x0 and times ``(B,)``, from the global random state."""
        t = self.proposal.sample(x0.shape[0], self.flow.sigma_data).to(x0)
        return torch.randn_like(x0) * self.flow.sigma_data, t

    def drop_labels(self, cond: Conditioning, num: int, device: torch.device) -> Conditioning:
        """The conditioning without its labels for a random share ``label_dropout`` of the clips."""
        if self.label_dropout == 0:
            return cond
        return cond.drop(torch.rand(num, device=device) < self.label_dropout)


@part("loss", proposal="proposal")
class DiffusionLoss(_FlowLoss):
    """mean[ e^{w(t)} ‖sigma_data F − v‖²/D − w(t) ]: the teacher's loss (sCM, equation 3, with EDM2's weighting)."""

    def __init__(
        self,
        backbone: Backbone,
        flow: TrigFlow,
        proposal: TimeProposal,
        weight: Weight = "learned",
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__(backbone, flow, proposal, weight, label_dropout)

    def forward(self, x0: Tensor, cond: Conditioning, step: Tensor) -> tuple[Tensor, Terms]:
        """The loss over latents x0 ``(B, c, *s)``; step is not used: the loss is the same at every step."""
        z, t = self.draw(x0)
        cond = self.drop_labels(cond, x0.shape[0], x0.device)
        x_t = self.flow.interpolate(x0, z, t)
        F = self.backbone(x_t / self.flow.sigma_data, t, cond)
        error = masked_mean_square(self.flow.sigma_data * F.float() - self.flow.velocity(x0, z, t), cond.counted)
        w = torch.zeros_like(t) if self.weight is None else self.weight(t)
        loss = (w.exp() * error - w).mean()
        return loss, {"t": t, "loss": error.detach(), "weight": w.detach()}


@part("loss", proposal="proposal")
class ConsistencyLoss(_FlowLoss):
    """The continuous-time consistency loss, by distillation (sCD) or from data (sCT); sCM, algorithm 1.

    g = −cos² t (sigma_data F⁻ − dx/dt) − r · (cos t sin t x_t + sigma_data · cos t sin t dF⁻/dt), then normalised;
    loss = mean[ e^{w(t)} ‖F − F⁻ − g‖²/D − w(t) ]. F⁻ is F without its graph. dx/dt is the teacher's velocity
    sigma_data F_teacher, or v = cos t z − sin t x0 where there is no teacher.

    norm "rms": g / (rms(g) + norm_constant); "l2": g / (‖g‖ + norm_constant). r rises from 0 to 1 over the first
    ``tangent_warmup`` steps (0: it is 1 from the first step on). weight "learned": w stays 0 until r is 1 and is
    clamped. guidance_max: each clip's scale s is drawn from U[1, guidance_max] and given to student and teacher as
    ``cond.guidance``, so that one student makes clips of any scale (sCM, section 5.2; Meng et al. 2023, arXiv
    2210.03142); by distillation alone. Raises ValueError for settings out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        teacher: nn.Module | None,
        flow: TrigFlow,
        proposal: TimeProposal,
        norm: Literal["rms", "l2"] = "rms",
        norm_constant: float = 0.1,
        weight: Weight = "none",
        tangent_warmup: int = 500,
        tangent_method: TangentMethod = "one_pass",
        label_dropout: float = 0.0,
        guidance_max: float | None = None,
    ) -> None:
        super().__init__(backbone, flow, proposal, weight, label_dropout)
        if guidance_max is not None and not guidance_max > 1:
            raise ValueError(f"guidance_max must be above 1, or null for no guidance as an input; got {guidance_max}")
        if guidance_max is not None and teacher is None:
            raise ValueError(
                f"guidance_max {guidance_max} needs a teacher, whose guidance is distilled: set student.objective=scd, "
                "or leave it null"
            )
        if norm not in ("rms", "l2"):
            raise ValueError(f"norm must be 'rms' or 'l2', got {norm!r}")
        if not tangent_warmup >= 0:
            raise ValueError(f"tangent_warmup must be a number of steps of at least 0, got {tangent_warmup}")
        # Held out of the module tree: the teacher is frozen and must not be wrapped, saved or averaged with the rest.
        self._teacher = (teacher,)
        self.norm, self.norm_constant = norm, norm_constant
        self.tangent_warmup, self.tangent_method = tangent_warmup, tangent_method
        self.guidance_max = guidance_max

    @property
    def teacher(self) -> nn.Module | None:
        """The frozen teacher of distillation; none when training from data."""
        return self._teacher[0]

    def draw_guidance(self, cond: Conditioning, num: int, device: torch.device) -> Conditioning:
        """The conditioning with a guidance scale for each clip, where scales are an input; as it is elsewhere."""
        if self.guidance_max is None:
            return cond
        return replace(cond, guidance=1 + (self.guidance_max - 1) * torch.rand(num, device=device))

    def direction(self, x0: Tensor, z: Tensor, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """dx/dt along the trajectory: the teacher's, or the data's own velocity.

        At known places it is the data's own in any case: what is given has one value, and every trajectory ends there.
        """
        if self.teacher is None:
            return self.flow.velocity(x0, z, t)
        with torch.no_grad():
            dxdt = self.flow.sigma_data * self.teacher(x_t / self.flow.sigma_data, t, cond).to(x_t.dtype)
        return dxdt if cond.known is None else torch.where(cond.known > 0, self.flow.velocity(x0, z, t), dxdt)

    def residual(self, x_t: Tensor, dxdt: Tensor, F: Tensor, dF: Tensor, t: Tensor, r: Tensor | float) -> Tensor:
        """g before it is normalised, for dF = cos t sin t · dF/dt; zero for an exact consistency function at r = 1."""
        t = broadcast_time(t, x_t)
        cos, sin = torch.cos(t), torch.sin(t)
        sigma = self.flow.sigma_data
        return -cos.square() * (sigma * F - dxdt) - r * (cos * sin * x_t + sigma * dF)

    def warmup(self, step: Tensor) -> Tensor:
        """Returns r in [0, 1] at a training step, a scalar tensor like ``step``."""
        if self.tangent_warmup == 0:
            return torch.ones_like(step, dtype=torch.float32)
        return (step / self.tangent_warmup).clamp(max=1.0)

    def normalize(self, g: Tensor, counted: Tensor | None) -> Tensor:
        """g over its root mean square (or its norm) plus ``norm_constant``."""
        size = masked_mean_square(g, counted).sqrt()
        if self.norm == "l2":
            num = g[0].numel() if counted is None else counted.expand_as(g).flatten(1).sum(1)
            size = size * torch.as_tensor(num, device=g.device, dtype=g.dtype).sqrt()
        return g / (broadcast_time(size, g) + self.norm_constant)

    def forward(self, x0: Tensor, cond: Conditioning, step: Tensor) -> tuple[Tensor, Terms]:
        """The loss over latents x0 ``(B, c, *s)`` at a training step (a scalar tensor: r follows from it)."""
        z, t = self.draw(x0)
        cond = self.draw_guidance(self.drop_labels(cond, x0.shape[0], x0.device), x0.shape[0], x0.device)
        x_t = self.flow.interpolate(x0, z, t)
        dxdt = self.direction(x0, z, x_t, t, cond)
        speed = torch.cos(t) * torch.sin(t)
        sigma = self.flow.sigma_data
        pair = value_and_tangent(
            self.backbone, x_t / sigma, t, cond, broadcast_time(speed, x_t) * dxdt / sigma, speed, self.tangent_method
        )
        F, F_minus, dF = pair.value.float(), pair.value.detach().float(), pair.tangent.float()
        r = self.warmup(step)
        with torch.no_grad():
            g = self.residual(x_t, dxdt, F_minus, dF, t, r)
            target = F_minus + self.normalize(g, cond.counted)
        w = torch.zeros_like(t) if self.weight is None else self.weight(t) * (r >= 1)
        error = masked_mean_square(F - target, cond.counted)
        loss = (w.exp() * error - w).mean()
        terms = {
            "t": t,
            "loss": error.detach(),
            "weight": w.detach(),
            "g_rms": masked_mean_square(g, cond.counted).sqrt(),
            "dF_dt_rms": masked_mean_square(dF, cond.counted).sqrt() / speed.clamp(min=1e-4),
        }
        return loss, terms

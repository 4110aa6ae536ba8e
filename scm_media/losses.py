"""The losses of diffusion teachers and of consistency students.

All losses are modules whose forward is the loss and that own the backbone, so that what is wrapped for data
parallelism holds every parameter. They return the loss and, for each sample, the terms that diagnostics are made of.

``flow`` and ``timesteps`` (the distribution of training times) have defaults: ``TrigFlow.of`` the networks, and a
log-normal distribution that gives the same times for every ``sigma_data``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from scm_media import draws
from scm_media.conditioning import Conditioning
from scm_media.guidance import Guided
from scm_media.hidden_features import HiddenLayer, feature_distance
from scm_media.interfaces import Backbone
from scm_media.nn.embedding import PlainConditioning, as_conditioning
from scm_media.parts import part
from scm_media.tangent import TangentMethod, value_and_tangent
from scm_media.timesteps import LogNormalTimesteps, TimestepDistribution
from scm_media.trajectories import Trajectory
from scm_media.trigflow import TrigFlow, broadcast_time
from scm_media.weighting import LearnedWeight

FEATURE_TIME = 0.2
"""The time in radians of the noise under which hidden features are compared."""
Weight = Literal["none", "learned"]
Terms = dict[str, Tensor]
"""Values of each sample ``(B,)`` without graph, by name: t, loss, and further diagnostics of a loss."""


def masked_mean_square(x: Tensor, loss_mask: Tensor | None) -> Tensor:
    """Returns mean(x²) of each sample ``(B,)`` where ``loss_mask`` is one, ‖x‖²/D, in float32 or wider."""
    wide = x if x.dtype == torch.float64 else x.float()
    square = wide.square().flatten(1)
    if loss_mask is None:
        return square.mean(1)
    mask = loss_mask.to(square.dtype).expand_as(x).flatten(1)
    return (square * mask).sum(1) / mask.sum(1).clamp(min=1)


class FlowLoss(nn.Module):
    """Holds the backbone and the settings that the losses share, and draws times, noise and dropped labels."""

    default_timesteps: ClassVar[tuple[float, float]]
    """Mean and standard deviation of the log-normal timesteps for a sigma_data of 0.5."""
    uses_trajectories: ClassVar[bool] = False
    """True for a loss that takes a ``Trajectory`` in place of x0."""
    measures_error: ClassVar[bool] = True
    """True for a loss that is an error on its examples, and so lower on held-out data the better the network is."""

    def __init__(
        self,
        backbone: Backbone,
        teacher: Backbone | None,
        flow: TrigFlow | None,
        timesteps: TimestepDistribution | None,
        weight: Weight,
        label_dropout: float,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.flow = TrigFlow.of(backbone, teacher) if flow is None else flow
        default = LogNormalTimesteps.for_sigma_data(*self.default_timesteps, self.flow.sigma_data)
        self.timesteps = default if timesteps is None else timesteps
        if weight not in ("none", "learned"):
            raise ValueError(f"weight must be 'none' or 'learned', got {weight!r}")
        self.weight = LearnedWeight() if weight == "learned" else None
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout must lie in [0, 1], got {label_dropout}")
        self.label_dropout = label_dropout
        self.latest_time = math.inf

    def limit_times(self, sigma: float) -> None:
        """Limits training to the noise level ``sigma``: times of more noise are lowered to its time.

        The network then learns to begin with noise alone at this level, so sampling must start there. It is for
        students whose output x0 magnifies the network's errors where there is much noise: by sigma / sigma_data for a
        network that predicts noise.
        """
        self.latest_time = self.flow.time_from_sigma(sigma)

    def draw(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Returns noise z like x0 and times ``(B,)``; ``draws`` says where they come from."""
        t = self.timesteps.sample(x0.shape[0], self.flow.sigma_data).to(x0)
        return draws.randn_like(x0) * self.flow.sigma_data, t.clamp(max=self.latest_time)

    def denoise(self, network: Backbone, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Returns a network's x0 ``(B, c, *s)`` for x_t, in float32 or wider."""
        return self.flow.denoise(x_t, network(x_t / self.flow.sigma_data, t, cond).float(), t)

    def regress(self, trajectory: Trajectory, cond: Conditioning) -> tuple[Tensor, Tensor]:
        """Returns the backbone's f(x_t, t) ``(B, c, *s)`` at points of trajectories, and its squared error ``(B,)``."""
        t = trajectory.t.clamp(max=self.latest_time)
        x0 = self.denoise(self.backbone, trajectory.x_t, t, cond)
        return x0, masked_mean_square(x0 - trajectory.x0, cond.loss_mask)

    def drop_labels(self, cond: Conditioning, num: int, device: torch.device) -> Conditioning:
        """Returns the conditioning without its labels for a random fraction ``label_dropout`` of the samples."""
        if self.label_dropout == 0:
            return cond
        return cond.drop(draws.rand(num, device=device) < self.label_dropout)


@part("loss", timesteps="timesteps")
class DiffusionLoss(FlowLoss):
    """The teacher's loss mean[ e^{w(t)} ‖sigma_data F − v‖²/D − w(t) ] (sCM, equation 3, with EDM2's weighting).

    flow, timesteps: ``TrigFlow.of(backbone)`` and log-normal times of mean −0.8 and standard deviation 1.5 where None.
    A dropped label is ``NO_LABEL`` (−1), or NaN for a label of real numbers: the backbone must know it, or
    ``label_dropout`` be 0.
    """

    default_timesteps = (-0.8, 1.5)

    def __init__(
        self,
        backbone: Backbone,
        flow: TrigFlow | None = None,
        timesteps: TimestepDistribution | None = None,
        weight: Weight = "learned",
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__(backbone, None, flow, timesteps, weight, label_dropout)

    def forward(
        self, x0: Tensor, cond: PlainConditioning = None, step: Tensor | float | None = None
    ) -> tuple[Tensor, Terms]:
        """Returns the loss over latents x0 ``(B, c, *s)`` and its terms; the loss is the same at every step.

        cond: a ``Conditioning``, a mapping of labels, one label ``(B,)`` or None; ``as_conditioning`` says how each
        reaches the backbone.
        """
        cond = as_conditioning(cond, self.backbone, x0.device)
        z, t = self.draw(x0)
        cond = self.drop_labels(cond, x0.shape[0], x0.device)
        x_t = self.flow.interpolate(x0, z, t)
        F = self.backbone(x_t / self.flow.sigma_data, t, cond)
        error = masked_mean_square(self.flow.sigma_data * F.float() - self.flow.velocity(x0, z, t), cond.loss_mask)
        w = torch.zeros_like(t) if self.weight is None else self.weight(t)
        loss = (w.exp() * error - w).mean()
        return loss, {"t": t, "loss": error.detach(), "weight": w.detach()}


class DistillationLoss(FlowLoss):
    """Holds a frozen teacher, which follows ``.to()``, ``.double()`` and the like of the loss."""

    measures_error = False

    def _freeze(self, teacher: Backbone | None) -> None:
        """Keeps a teacher, frozen; ValueError where the student shares its parameters or has none to train."""
        _check_trainable(self.backbone, teacher)
        if isinstance(teacher, nn.Module):
            teacher.eval().requires_grad_(False)
        # In a tuple, outside the module tree: the teacher must not be wrapped, saved or averaged with the rest.
        self._teacher = (teacher,)

    @property
    def teacher(self) -> Backbone | None:
        """Returns the frozen teacher of distillation; None when training from data."""
        return self._teacher[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        if recurse and isinstance(self.teacher, nn.Module):  # .to(), .double(), .cuda() and the like all end here
            self.teacher._apply(fn)
        return super()._apply(fn, recurse)


@part("loss", timesteps="timesteps")
class ConsistencyLoss(DistillationLoss):
    """The continuous-time consistency loss, by distillation (sCD) or from data (sCT); sCM, algorithm 1.

    teacher: the network that is distilled; None trains from data. A module is frozen and put into evaluation mode, and
    follows ``.to()``, ``.double()`` and the like of the loss. It is no part of the loss's parameters and state, so that
    it is neither saved, averaged nor wrapped. flow, timesteps: ``TrigFlow.of(backbone, teacher)`` and log-normal times
    of mean −1.0 and standard deviation 1.4 where None.

    g = −cos² t (sigma_data F⁻ − dx/dt) − r · (cos t sin t x_t + sigma_data · cos t sin t dF⁻/dt), then normalised;
    loss = mean[ e^{w(t)} ‖F − F⁻ − g‖²/D − w(t) ]. F⁻ is F without its graph. dx/dt is the teacher's velocity
    sigma_data F_teacher, or v = cos t z − sin t x0 where there is no teacher.

    norm "rms": g / (rms(g) + norm_constant); "l2": g / (‖g‖ + norm_constant). r rises from 0 to 1 over the first
    ``tangent_warmup`` steps (0: it is 1 from the first step on). weight "learned": w stays 0 until r is 1 and is
    clamped. guidance_max: each clip's scale s is drawn from U[1, guidance_max] and given to student and teacher as
    ``cond.guidance``, so that one student makes clips of any scale (sCM, section 5.2; Meng et al. 2023, arXiv
    2210.03142); by distillation alone.

    Raises ValueError for settings out of range, for a student that shares parameters with its teacher, and for one
    whose parameters are all frozen.
    """

    default_timesteps = (-1.0, 1.4)

    def __init__(
        self,
        backbone: Backbone,
        flow: TrigFlow | None = None,
        timesteps: TimestepDistribution | None = None,
        *,
        teacher: Backbone | None = None,
        norm: Literal["rms", "l2"] = "rms",
        norm_constant: float = 0.1,
        weight: Weight = "none",
        tangent_warmup: int = 500,
        tangent_method: TangentMethod = "one_pass",
        label_dropout: float = 0.0,
        guidance_max: float | None = None,
    ) -> None:
        super().__init__(backbone, teacher, flow, timesteps, weight, label_dropout)
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
        self._freeze(teacher)
        self.norm, self.norm_constant = norm, norm_constant
        self.tangent_warmup, self.tangent_method = tangent_warmup, tangent_method
        self.guidance_max = guidance_max

    def draw_guidance(self, cond: Conditioning, num: int, device: torch.device) -> Conditioning:
        """Returns the conditioning with a random guidance scale for each sample if the student takes scales."""
        if self.guidance_max is None:
            return cond
        return replace(cond, guidance=1 + (self.guidance_max - 1) * draws.rand(num, device=device))

    def trajectory_velocity(self, x0: Tensor, z: Tensor, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Returns dx/dt of the trajectory: of the teacher's ODE, or without a teacher the velocity of the path.

        Where the latent is given it is always the velocity of the path, because every trajectory ends at its value.
        """
        if self.teacher is None:
            return self.flow.velocity(x0, z, t)
        with torch.no_grad():
            dxdt = self.flow.sigma_data * self.teacher(x_t / self.flow.sigma_data, t, cond).to(x_t.dtype)
        return dxdt if cond.mask is None else torch.where(cond.mask > 0, self.flow.velocity(x0, z, t), dxdt)

    def unnormalized_tangent(
        self, x_t: Tensor, dxdt: Tensor, F: Tensor, dF: Tensor, t: Tensor, r: Tensor | float
    ) -> Tensor:
        """Returns g before normalisation for dF = cos t sin t · dF/dt; at r = 1 exact students have g = 0."""
        t = broadcast_time(t, x_t)
        cos, sin = torch.cos(t), torch.sin(t)
        sigma = self.flow.sigma_data
        return -cos.square() * (sigma * F - dxdt) - r * (cos * sin * x_t + sigma * dF)

    def warmup(self, step: Tensor | float | None) -> Tensor:
        """Returns r in [0, 1] at a training step, a scalar tensor; ValueError for no step where r depends on it."""
        if step is None:
            if self.tangent_warmup > 0:
                raise ValueError(
                    f"the first {self.tangent_warmup} steps raise the tangent's weight, so the loss needs the step's "
                    "number: loss(x0, cond, step=step), or ConsistencyLoss(…, tangent_warmup=0)"
                )
            step = 0
        step = torch.as_tensor(step)
        if self.tangent_warmup == 0:
            return torch.ones_like(step, dtype=torch.float32)
        return (step / self.tangent_warmup).clamp(max=1.0)

    def normalize(self, g: Tensor, loss_mask: Tensor | None) -> Tensor:
        """Returns g divided by its root mean square (or its norm) plus ``norm_constant``."""
        size = masked_mean_square(g, loss_mask).sqrt()
        if self.norm == "l2":
            num = g[0].numel() if loss_mask is None else loss_mask.expand_as(g).flatten(1).sum(1)
            size = size * torch.as_tensor(num, device=g.device, dtype=g.dtype).sqrt()
        return g / (broadcast_time(size, g) + self.norm_constant)

    def forward(
        self, x0: Tensor, cond: PlainConditioning = None, step: Tensor | float | None = None
    ) -> tuple[Tensor, Terms]:
        """Returns the loss over latents x0 ``(B, c, *s)`` at a training step, counted from 0, and its terms.

        cond: a ``Conditioning``, a mapping of labels, one label ``(B,)`` or None; ``as_conditioning`` says how each
        reaches student and teacher. step: a number or a scalar tensor. Raises ValueError for no step while
        ``tangent_warmup`` is above 0.
        """
        r = self.warmup(step)
        cond = as_conditioning(cond, self.backbone, x0.device)
        z, t = self.draw(x0)
        cond = self.draw_guidance(self.drop_labels(cond, x0.shape[0], x0.device), x0.shape[0], x0.device)
        x_t = self.flow.interpolate(x0, z, t)
        dxdt = self.trajectory_velocity(x0, z, x_t, t, cond)
        cos_sin = torch.cos(t) * torch.sin(t)
        sigma = self.flow.sigma_data
        dual = value_and_tangent(
            self.backbone,
            x_t / sigma,
            t,
            cond,
            broadcast_time(cos_sin, x_t) * dxdt / sigma,
            cos_sin,
            self.tangent_method,
        )
        F, F_minus, dF = dual.value.float(), dual.value.detach().float(), dual.tangent.float()
        with torch.no_grad():
            g = self.unnormalized_tangent(x_t, dxdt, F_minus, dF, t, r)
            target = F_minus + self.normalize(g, cond.loss_mask)
        w = torch.zeros_like(t) if self.weight is None else self.weight(t) * (r >= 1)
        error = masked_mean_square(F - target, cond.loss_mask)
        loss = (w.exp() * error - w).mean()
        terms = {
            "t": t,
            "loss": error.detach(),
            "weight": w.detach(),
            "g_rms": masked_mean_square(g, cond.loss_mask).sqrt(),
            "dF_dt_rms": masked_mean_square(dF, cond.loss_mask).sqrt() / cos_sin.clamp(min=1e-4),
        }
        return loss, terms


@part("loss")
class RegressionLoss(DistillationLoss):
    """The regression on the ends of the teacher's trajectories, mean[ e^{w(t)} ‖f(x_t, t) − x0‖²/D − w(t) ].

    f(x_t, t) = cos t x_t − sin t sigma_data F is the student's x0, and (x_t, t, x0) a point of a trajectory and its
    end. It is the objective of Consistency Mid-Training (Hu et al. 2025, arXiv 2509.24526) and gives a warm start for
    the other losses. weight "learned": w(t) is learned as by ``DiffusionLoss``.

    feature_weight: the weight of a second term, the distance of the hidden features that the teacher's network has of
    the student's x0 and of the end, both with the same noise of time 0.2 rad (the diffusion network's own features as
    a perceptual loss; Lin & Yang 2024, arXiv 2401.00110). feature_layer: the layer's name; None for the middle block.
    Without this term the teacher is never called. Raises ValueError for a weight below 0, without a teacher for a
    weight above 0, and for a layer that the network has not.
    """

    default_timesteps = (-1.0, 1.4)
    uses_trajectories = True
    measures_error = True

    def __init__(
        self,
        backbone: Backbone,
        flow: TrigFlow | None = None,
        *,
        teacher: Backbone | None = None,
        weight: Weight = "none",
        label_dropout: float = 0.0,
        feature_weight: float = 0.0,
        feature_layer: str | None = None,
    ) -> None:
        super().__init__(backbone, teacher, flow, None, weight, label_dropout)
        if not feature_weight >= 0:
            raise ValueError(f"feature_weight must be at least 0, got {feature_weight}")
        self.feature_weight = feature_weight
        self._freeze(teacher if feature_weight else None)
        if not feature_weight:
            return
        network = teacher.backbone if isinstance(teacher, Guided) else teacher
        if not isinstance(network, nn.Module):
            raise ValueError("feature_weight needs a teacher that is a torch.nn.Module, whose features it compares")
        self._features = (network, HiddenLayer(network, feature_layer))  # in a tuple, outside the module tree

    def forward(
        self, trajectory: Trajectory, cond: PlainConditioning = None, step: Tensor | float | None = None
    ) -> tuple[Tensor, Terms]:
        """Returns the loss over points of trajectories and its terms; the loss is the same at every step.

        cond: a ``Conditioning``, a mapping of labels, one label ``(B,)`` or None.
        """
        t = trajectory.t
        cond = as_conditioning(cond, self.backbone, t.device)
        x0, error = self.regress(trajectory, self.drop_labels(cond, len(t), t.device))
        w = torch.zeros_like(t) if self.weight is None else self.weight(t)
        loss, terms = (w.exp() * error - w).mean(), {"t": t, "loss": error.detach(), "weight": w.detach()}
        if self.feature_weight:
            distance = self._feature_distance(x0, trajectory.x0, cond)
            loss, terms["features"] = loss + self.feature_weight * distance.mean(), distance.detach()
        return loss, terms

    @property
    def read_network(self) -> nn.Module | None:
        """Returns the network whose hidden features the loss reads, None for none."""
        return self._features[0] if self.feature_weight else None

    def _feature_distance(self, x0: Tensor, end: Tensor, cond: Conditioning) -> Tensor:
        """Returns the distance ``(B,)`` of the teacher's hidden features of two samples ``(B, c, *s)``."""
        network, layer = self._features
        z, t = draws.randn_like(end) * self.flow.sigma_data, end.new_full((len(end),), FEATURE_TIME)
        if cond.loss_mask is not None:
            x0 = torch.where(cond.loss_mask > 0, x0, end)
        with layer.reading() as found:
            for sample, graph in ((x0, True), (end, False)):
                with torch.set_grad_enabled(graph and torch.is_grad_enabled()):
                    network(self.flow.interpolate(sample, z, t) / self.flow.sigma_data, t, cond)
        if len(found) != 2:
            raise ValueError(
                f"the layer {layer.name!r} was called {len(found)} times for two samples, expected 2; name another one"
            )
        return feature_distance(*found)


def _check_trainable(backbone: Backbone, teacher: Backbone | None) -> None:
    """Raises ValueError if student and teacher share parameters, or all of the student's are frozen."""
    own = list(backbone.parameters()) if isinstance(backbone, nn.Module) else []
    other = {id(each) for each in teacher.parameters()} if isinstance(teacher, nn.Module) else set()
    if any(id(each) in other for each in own):
        raise ValueError(
            "student and teacher share parameters, and the teacher is frozen: make the student with "
            "copy.deepcopy(teacher)"
        )
    if own and not any(each.requires_grad for each in own):
        raise ValueError(
            "no parameter of the student requires a gradient, as in a copy of a frozen teacher: call "
            "student.requires_grad_(True).train()"
        )

"""MeanFlow: a flow map by the identity of average velocities, from data or from a teacher."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from scm_media.interfaces import Backbone
from scm_media.losses import Terms, masked_mean_square
from scm_media.nn.embedding import PlainConditioning, as_conditioning
from scm_media.parts import part
from scm_media.tangent import TangentMethod
from scm_media.timesteps import TimestepDistribution
from scm_media.trigflow import TrigFlow
from scm_media.two_times import TwoTimeLoss, linear_scale


@part("loss", timesteps="timesteps")
class MeanFlowLoss(TwoTimeLoss):
    """The MeanFlow loss by distillation or from data (Geng et al. 2025, arXiv 2505.13447, equations 6 to 11).

    On the linear path (``scm_media.two_times`` has the change of variables) the average velocity U from τ back to ρ
    fulfils U = V − (τ − ρ) dU/dτ. The right side, of the network without its graph, is the target of U. In units of F,

        loss = mean[ c(t)² ‖F − F⁻ − g‖²/D / (c(t)² ‖F − F⁻ − g‖²/D + weight_constant)^weight_power ],
        g = (c(t) / c(s)) · (cos Δ (v − F⁻) − r sin Δ (u + dF⁻/dt)),        Δ = t − s,  c(t) = cos t + sin t,

    where the denominator has no graph. dF/dt is along (v, 1) at a fixed s. The network is given s as
    ``Conditioning.target``. v is the teacher's F, or (cos t z − sin t x0) / sigma_data where there is no teacher.

    improved: dF/dt follows the network's own velocity F(u, t, t) in the place of v, so that the noise of the data's
    velocity is in the target alone and is not multiplied by the network's derivatives (improved MeanFlow, Geng et al.
    2025, arXiv 2512.02012, the compound velocity U + (τ − ρ) dU/dτ against V). It costs one more evaluation. With a
    teacher, whose velocity has no such noise, it gains nothing.

    timesteps: t and s are two draws in order; log-normal with mean −1.0 and standard deviation 1.4 where None (the
    paper's is mean −1.1, standard deviation 1.0). instantaneous: the fraction of the samples whose s is t, which learn
    the velocity; the paper has 0.75. to_data: the fraction whose s is 0, which learn the consistency function.
    weight_power 1 and weight_constant 0.001 are the paper's, 0 is no weight. tangent_warmup: r rises from 0 to 1 over
    so many steps; the paper has none. The other arguments are those of ``ConsistencyLoss``.

    Raises ValueError for settings out of range, for a network without an input for s, and as ``ConsistencyLoss``.
    """

    default_timesteps: ClassVar[tuple[float, float]] = (-1.0, 1.4)

    def __init__(
        self,
        backbone: Backbone,
        flow: TrigFlow | None = None,
        timesteps: TimestepDistribution | None = None,
        *,
        teacher: Backbone | None = None,
        improved: bool = False,
        instantaneous: float = 0.5,
        to_data: float = 0.25,
        weight_power: float = 1.0,
        weight_constant: float = 1e-3,
        tangent_warmup: int = 0,
        tangent_method: TangentMethod = "one_pass",
        label_dropout: float = 0.0,
        guidance_max: float | None = None,
    ) -> None:
        super().__init__(
            backbone,
            flow,
            timesteps,
            teacher=teacher,
            instantaneous=instantaneous,
            to_data=to_data,
            tangent_warmup=tangent_warmup,
            tangent_method=tangent_method,
            label_dropout=label_dropout,
            guidance_max=guidance_max,
        )
        if not (weight_power >= 0 and weight_constant > 0):
            raise ValueError(
                f"weight_power must be at least 0 and weight_constant above 0, got {weight_power} and {weight_constant}"
            )
        self.improved, self.weight_power, self.weight_constant = improved, weight_power, weight_constant

    def forward(
        self, x0: Tensor, cond: PlainConditioning = None, step: Tensor | float | None = None
    ) -> tuple[Tensor, Terms]:
        """Returns the loss over latents x0 ``(B, c, *s)`` at a training step, counted from 0, and its terms.

        The terms are t, loss (the squared error of U), gap (t − s) and g_rms. cond, step: as for ``ConsistencyLoss``.
        """
        r = self.warmup(step)
        cond = as_conditioning(cond, self.backbone, x0.device)
        z, t, s = self.draw_times(x0)
        cond = self.draw_guidance(self.drop_labels(cond, len(x0), x0.device), len(x0), x0.device)
        x_t = self.flow.interpolate(x0, z, t)
        dxdt, followed = self.velocities(x0, z, x_t, t, cond, self.improved)
        F, g = self.eulerian(x_t, dxdt, followed, (t, s), cond, r)
        error = linear_scale(t).square() * masked_mean_square(F - F.detach() - g, cond.loss_mask)
        weight = (error.detach() + self.weight_constant) ** -self.weight_power
        g_rms = masked_mean_square(g, cond.loss_mask).sqrt()
        return (weight * error).mean(), {"t": t, "loss": error.detach(), "gap": t - s, "g_rms": g_rms}

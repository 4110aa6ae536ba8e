"""The consistency loss beside the regression, which keeps a student on the teacher's trajectories."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from scm_media.interfaces import Backbone
from scm_media.losses import ConsistencyLoss, Terms, Weight
from scm_media.nn.embedding import PlainConditioning, as_conditioning
from scm_media.parts import part
from scm_media.tangent import TangentMethod
from scm_media.timesteps import TimestepDistribution
from scm_media.trajectories import Trajectory
from scm_media.trigflow import TrigFlow


@part("loss", timesteps="timesteps")
class AnchoredConsistencyLoss(ConsistencyLoss):
    """Adds the regression on the ends of trajectories to the consistency loss: loss + anchor · ‖f(x_t, t) − x0‖²/D.

    The consistency loss takes the ends as data. The regression holds the student where the tangent alone would let it
    drift, as flow-anchored consistency models hold theirs by the flow's loss (Peng et al. 2025, arXiv 2507.03738).
    anchor: the weight; it is divided by sigma_data². The other arguments are those of ``ConsistencyLoss``. Raises
    ValueError for settings out of range, and without a teacher.
    """

    uses_trajectories: ClassVar[bool] = True

    def __init__(
        self,
        backbone: Backbone,
        flow: TrigFlow | None = None,
        timesteps: TimestepDistribution | None = None,
        *,
        teacher: Backbone | None = None,
        anchor: float = 1.0,
        norm: Literal["rms", "l2"] = "rms",
        norm_constant: float = 0.1,
        weight: Weight = "none",
        tangent_warmup: int = 500,
        tangent_method: TangentMethod = "one_pass",
    ) -> None:
        super().__init__(
            backbone,
            flow,
            timesteps,
            teacher=teacher,
            norm=norm,
            norm_constant=norm_constant,
            weight=weight,
            tangent_warmup=tangent_warmup,
            tangent_method=tangent_method,
        )
        if not anchor >= 0:
            raise ValueError(f"anchor must be a weight of at least 0, got {anchor}")
        if teacher is None:
            raise ValueError("AnchoredConsistencyLoss needs the teacher of its trajectories: set student.objective=scd")
        self.anchor = anchor

    def forward(  # type: ignore[override]
        self, trajectory: Trajectory, cond: PlainConditioning = None, step: Tensor | float | None = None
    ) -> tuple[Tensor, Terms]:
        """Returns the loss over points of trajectories, and the terms of both; anchor is the regression's error."""
        cond = as_conditioning(cond, self.backbone, trajectory.x0.device)
        loss, terms = super().forward(trajectory.x0, cond, step)
        error = self.regress(trajectory, cond)[1] / self.flow.sigma_data**2
        return loss + self.anchor * error.mean(), {**terms, "anchor": error.detach()}

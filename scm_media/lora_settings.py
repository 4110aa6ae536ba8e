"""The settings of LoRA students; they need no torch, since recipes have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, ClassVar

from scm_media.bounds import POSITIVE, Bounds
from scm_media.typed import check_value, hints_of

RANK = Bounds(1, 1 << 16, whole=True)


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """The settings of a LoRA student: a layer's weight W becomes W + alpha / rank · B A, with A and B trained.

    targets: None stands for the linear layers and the convolutions (but for depthwise ones) inside the network's
    blocks, which are what it keeps in an ``nn.ModuleList``: attention, feed-forward, and the residual blocks of U-Nets.
    Those under a name that begins with ``norm`` or ``time`` are left out, since they see the noise level and the labels
    alone; embedders, the first and the last layer lie outside the blocks.
    A name in ``targets`` and ``full`` is that of one module ("norm_out.linear") or the end of several ("to_q").
    """

    may_omit_defaults: ClassVar = True
    rank: Annotated[int, RANK, "rank of the two matrices that each layer gets"] = 16
    alpha: Annotated[float | None, POSITIVE, "the matrices' product is multiplied by alpha / rank; null: by 1"] = None
    targets: Annotated[
        Sequence[str] | None,
        "layers that get the matrices, by the ends of their names; null: linear layers and convolutions in the blocks",
    ] = None
    full: Annotated[
        Sequence[str], "modules that are trained whole beside, by the ends of their names, such as the time embedding"
    ] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        hints = hints_of(LoRA)
        for each in fields(self):
            check_value(getattr(self, each.name), hints[each.name], f"lora.{each.name}")

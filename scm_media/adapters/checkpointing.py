"""Gradient checkpointing: activations are computed again where the backward pass needs them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.utils.checkpoint import checkpoint

from scm_media.change_of_variables import ChangeOfVariables
from scm_media.nn.recompute import Blocks


def enable_checkpointing(backbone: Any) -> None:
    """Lets the blocks of a backbone keep their inputs alone, for about a third more time.

    A backbone of this project is a ``Blocks``; in a network of diffusers, what is computed again has the LoRA that it
    was computed with at first, or none. Raises ValueError for other backbones, and for classes of diffusers without
    checkpointing.
    """
    if isinstance(backbone, Blocks):
        backbone.recompute = True
        return
    base = getattr(backbone, "base", backbone)
    network: Any = base.network if isinstance(base, ChangeOfVariables) else None
    if not getattr(network, "_supports_gradient_checkpointing", False):
        name = type(backbone if network is None else network).__name__
        raise ValueError(f"{name} has no gradient checkpointing: set trainer.gradient_checkpointing=false")

    def run(function: Any, *arguments: Any) -> Any:
        switch = base.lora_switch

        def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
            return nullcontext(), nullcontext() if switch is None else switch.using(on)

        on = None if switch is None else switch.on
        return checkpoint(function, *arguments, use_reentrant=False, context_fn=contexts)

    network.enable_gradient_checkpointing(gradient_checkpointing_func=run)

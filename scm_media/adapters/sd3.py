"""Stable Diffusion 3: a rectified flow with text tokens and a pooled vector."""

from __future__ import annotations

from typing import Any

from scm_media.adapters.adapter import Adapter


def _call(network: Any, y: Any, time: Any, cond: Any) -> Any:
    return network(
        hidden_states=y,
        timestep=time,
        encoder_hidden_states=cond.tokens,
        pooled_projections=cond.pooled,
        return_dict=False,
    )[0]


SD3 = Adapter(
    "SD3Transformer2DModel",
    _call,
    lambda config: {"tokens": config["joint_attention_dim"], "pooled": config["pooled_projection_dim"]},
)

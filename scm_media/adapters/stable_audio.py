"""Stable Audio: v-prediction on latents of sounds, with text tokens and vectors of the clip's start and length."""

from __future__ import annotations

from typing import Any

from scm_media.adapters.adapter import Adapter


def _call(network: Any, y: Any, time: Any, cond: Any) -> Any:
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    positions = get_1d_rotary_pos_embed(
        network.config.attention_head_dim // 2, y.shape[-1] + 1, use_real=True, repeat_interleave_real=False
    )
    return network(
        y,
        timestep=time,
        encoder_hidden_states=cond.tokens,
        global_hidden_states=cond.pooled[:, None],
        rotary_embedding=positions,
        return_dict=False,
    )[0]


STABLE_AUDIO = Adapter(
    "StableAudioDiTModel",
    _call,
    lambda config: {"tokens": config["cross_attention_input_dim"], "pooled": config["global_states_input_dim"]},
    lambda config: (config["in_channels"], config["sample_size"]),
)

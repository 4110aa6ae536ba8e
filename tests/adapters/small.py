"""Small random networks of diffusers, with a scheduler and conditioning for two samples each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from scm_media.adapters import ADAPTERS
from scm_media.conditioning import Conditioning

TOKENS, POOLED = 24, 20
VP = {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_schedule": "scaled_linear"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}

KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, ...]]] = {
    "UNet2DModel": (
        {
            "sample_size": 8,
            "block_out_channels": (16, 32),
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
            "attention_head_dim": 8,
            "norm_num_groups": 8,
        },
        {**VP, "_class_name": "DDPMScheduler", "beta_schedule": "linear"},
        (3, 8, 8),
    ),
    "UNet2DConditionModel": (
        {
            "sample_size": 8,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": TOKENS,
            "attention_head_dim": 8,
            "norm_num_groups": 8,
        },
        {**VP, "_class_name": "EulerDiscreteScheduler", "prediction_type": "v_prediction"},
        (4, 8, 8),
    ),
    "DiTTransformer2DModel": (
        {**HEADS, "in_channels": 4, "out_channels": 8, "num_layers": 2, "sample_size": 8, "num_embeds_ada_norm": 10},
        {**VP, "beta_schedule": "linear"},
        (4, 8, 8),
    ),
    "PixArtTransformer2DModel": (
        {
            **HEADS,
            "out_channels": 8,
            "num_layers": 2,
            "sample_size": 8,
            "cross_attention_dim": 32,
            "caption_channels": TOKENS,
            "use_additional_conditions": False,
        },
        {**VP, "_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "linear"},
        (4, 8, 8),
    ),
    "SD3Transformer2DModel": (
        {
            **HEADS,
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "joint_attention_dim": TOKENS,
            "caption_projection_dim": 32,
            "pooled_projection_dim": POOLED,
        },
        FLOW,
        (4, 8, 8),
    ),
    "FluxTransformer2DModel": (
        {
            **HEADS,
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "joint_attention_dim": TOKENS,
            "pooled_projection_dim": POOLED,
            "axes_dims_rope": (4, 6, 6),
            "guidance_embeds": True,
        },
        {**FLOW, "use_dynamic_shifting": True},
        (4, 8, 8),
    ),
    "SanaTransformer2DModel": (
        {
            **HEADS,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 16,
            "cross_attention_dim": 32,
            "caption_channels": TOKENS,
            "sample_size": 8,
        },
        {"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction", "use_flow_sigmas": True},
        (4, 8, 8),
    ),
    "StableAudioDiTModel": (
        {
            **HEADS,
            "sample_size": 16,
            "in_channels": 8,
            "out_channels": 8,
            "num_layers": 2,
            "num_key_value_attention_heads": 1,
            "cross_attention_dim": TOKENS,
            "cross_attention_input_dim": TOKENS,
            "global_states_input_dim": POOLED,
            "time_proj_dim": 16,
        },
        {
            "_class_name": "CosineDPMSolverMultistepScheduler",
            "sigma_min": 0.3,
            "sigma_max": 500,
            "sigma_data": 1.0,
            "prediction_type": "v_prediction",
        },
        (8, 16),
    ),
    "WanTransformer3DModel": (
        {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "in_channels": 4,
            "out_channels": 4,
            "text_dim": TOKENS,
            "freq_dim": 16,
            "ffn_dim": 48,
            "num_layers": 2,
            "rope_max_seq_len": 32,
        },
        {"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction", "use_flow_sigmas": True},
        (4, 2, 4, 4),
    ),
    "LTXVideoTransformer3DModel": (
        {
            **HEADS,
            "in_channels": 8,
            "out_channels": 8,
            "cross_attention_dim": 32,
            "num_layers": 2,
            "caption_channels": TOKENS,
        },
        FLOW,
        (8, 2, 4, 4),
    ),
    "CogVideoXTransformer3DModel": (
        {
            **HEADS,
            "in_channels": 4,
            "out_channels": 4,
            "time_embed_dim": 16,
            "text_embed_dim": TOKENS,
            "num_layers": 2,
            "sample_width": 8,
            "sample_height": 8,
            "sample_frames": 5,
            "max_text_seq_length": 7,
            "use_rotary_positional_embeddings": True,
        },
        {
            "_class_name": "CogVideoXDPMScheduler",
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "snr_shift_scale": 3.0,
        },
        (4, 2, 8, 8),
    ),
}
"""Class: configuration of the network, that of its scheduler, and the shape of its latents."""

CONDITIONS: dict[str, Callable[[], torch.Tensor]] = {
    "tokens": lambda: torch.randn(2, 7, TOKENS, generator=torch.Generator().manual_seed(1)),
    "pooled": lambda: torch.randn(2, POOLED, generator=torch.Generator().manual_seed(2)),
}


def network(name: str) -> Any:
    """A small network of a class, with no weight at zero."""
    import diffusers

    torch.manual_seed(0)
    made = getattr(diffusers, name)(**KINDS[name][0]).eval()
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made


def needs(name: str) -> tuple[str, ...]:
    """The conditioning that the small network of a class needs."""
    return tuple(ADAPTERS[name].inputs(network(name).config))


def conditioning(needs: tuple[str, ...]) -> Conditioning:
    """Conditioning for two samples with what a network needs."""
    given = {name: CONDITIONS[name]() for name in needs if name != "label"}
    return Conditioning(labels={"class": torch.tensor([1, 4])} if "label" in needs else {}, **given)

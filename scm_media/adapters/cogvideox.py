"""CogVideoX: v-prediction on latents of videos, frames before channels, with text tokens."""

from __future__ import annotations

from typing import Any

from scm_media.adapters.adapter import Adapter


def _call(network: Any, y: Any, time: Any, cond: Any) -> Any:
    positions = _positions(network.config, y) if network.config.use_rotary_positional_embeddings else None
    prediction = network(
        hidden_states=y.transpose(1, 2),
        encoder_hidden_states=cond.tokens,
        timestep=time,
        image_rotary_emb=positions,
        return_dict=False,
    )[0]
    return prediction.transpose(1, 2)


def _positions(config: Any, y: Any) -> Any:
    """Returns cos and sin of the places of the latents' tokens, cropped from the grid that the network is made for."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

    size, frames = config.patch_size, y.shape[2]
    grid = (y.shape[-2] // size, y.shape[-1] // size)
    made_for = (config.sample_height // size, config.sample_width // size)
    common = {"embed_dim": config.attention_head_dim, "grid_size": grid, "device": y.device}
    if config.patch_size_t is None:
        corners = get_resize_crop_region_for_grid(grid, made_for[1], made_for[0])
        return get_3d_rotary_pos_embed(crops_coords=corners, temporal_size=frames, **common)
    num = -(-frames // config.patch_size_t)
    return get_3d_rotary_pos_embed(crops_coords=None, temporal_size=num, grid_type="slice", max_size=made_for, **common)


COGVIDEOX = Adapter(
    "CogVideoXTransformer3DModel",
    "transformer",
    _call,
    lambda config: (
        config.in_channels,
        (config.sample_frames - 1) // config.temporal_compression_ratio + 1,
        config.sample_height,
        config.sample_width,
    ),
    needs=("tokens",),
)

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

    size, frames = config.patch_size, y.shape[2]
    grid = (y.shape[-2] // size, y.shape[-1] // size)
    made_for = (config.sample_height // size, config.sample_width // size)
    common = {"embed_dim": config.attention_head_dim, "grid_size": grid, "device": y.device}
    if config.patch_size_t is None:
        return get_3d_rotary_pos_embed(crops_coords=_corners(grid, made_for), temporal_size=frames, **common)
    num = -(-frames // config.patch_size_t)
    return get_3d_rotary_pos_embed(crops_coords=None, temporal_size=num, grid_type="slice", max_size=made_for, **common)


def _corners(grid: tuple[int, int], made_for: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the first and the last corner of the largest centred grid of this shape within the other one."""
    scale = min(made_for[0] / grid[0], made_for[1] / grid[1])
    size = [round(scale * each) for each in grid]
    top, left = (round((outer - inner) / 2) for outer, inner in zip(made_for, size, strict=True))
    return (top, left), (top + size[0], left + size[1])


def _latent_shape(config: Any) -> tuple[int, ...]:
    frames = 1 + (config["sample_frames"] - 1) // config["temporal_compression_ratio"]
    return (config["in_channels"], frames, config["sample_height"], config["sample_width"])


COGVIDEOX = Adapter(
    "CogVideoXTransformer3DModel", _call, lambda config: {"tokens": config["text_embed_dim"]}, _latent_shape
)

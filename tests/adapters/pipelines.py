"""Small random pipelines of diffusers on disk, without text encoders: of pictures, sounds and videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.adapters.small import KINDS, POOLED, TOKENS, network

OOBLECK = {
    "encoder_hidden_size": 16,
    "downsampling_ratios": [2, 4],
    "channel_multiples": [1, 2],
    "decoder_channels": 4,
    "decoder_input_channels": 8,
    "audio_channels": 1,
    "sampling_rate": 1000,
}
WAN = {"base_dim": 4, "dim_mult": [1] * 4, "num_res_blocks": 1, "z_dim": 4}
STATISTICS = {"latents_mean": [0.3, -0.2, 0.1, 0.5], "latents_std": [0.4, 1.2, 2.0, 0.7]}


def picture_pipeline() -> Any:
    """Makes pictures of 8 × 8 pixels without labels."""
    import diffusers

    # The levels of Stable Diffusion: at those of DDPM, the last timestep multiplies the rounding of noise by 157.
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    return diffusers.DDPMPipeline(network("UNet2DModel"), diffusers.DDPMScheduler(**betas))


def sound_pipeline() -> Any:
    """Makes waveforms of 128 samples, for tokens of the width of the small networks."""
    import diffusers

    name = "StableAudioDiTModel"
    torch.manual_seed(1)
    return diffusers.StableAudioPipeline(
        vae=diffusers.AutoencoderOobleck(**OOBLECK),
        text_encoder=None,
        projection_model=diffusers.StableAudioProjectionModel(TOKENS, POOLED // 2, 0, 1),
        tokenizer=None,
        transformer=network(name),
        scheduler=diffusers.CosineDPMSolverMultistepScheduler.from_config(KINDS[name][1]),
    )


def video_pipeline() -> Any:
    """Makes clips of 5 frames of 32 × 32 pixels, for tokens of the width of the small networks."""
    import diffusers

    torch.manual_seed(1)
    return diffusers.WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=diffusers.AutoencoderKLWan(**WAN, **STATISTICS),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=network("WanTransformer3DModel"),
    )


PIPELINES = {"image": picture_pipeline, "audio": sound_pipeline, "video": video_pipeline}


def save_pipeline(kind: str, folder: Path) -> Path:
    """Saves the small pipeline of a modality and returns its folder."""
    PIPELINES[kind]().save_pretrained(folder)
    return folder

"""Turns samples into ComfyUI's pictures, sounds and videos, and those into samples."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from scm_media.modality import Modality

try:
    from comfy_api.latest import InputImpl, Types
except ImportError:  # ComfyUI before its type VIDEO
    InputImpl = Types = None

HAS_VIDEO = InputImpl is not None
GREY_WEIGHTS = (0.299, 0.587, 0.114)


def to_images(samples: Tensor) -> Tensor:
    """Returns samples ``(B, C, H, W)`` in [-1, 1] as an IMAGE: ``(B, H, W, 3)`` in [0, 1], grey ones repeated."""
    shown = ((samples.float() + 1) / 2).clamp(0, 1).movedim(1, -1)
    return shown.expand(*shown.shape[:-1], 3).contiguous()


def to_frames(clip: Tensor) -> Tensor:
    """Returns a clip ``(C, T, H, W)`` in [-1, 1] as an IMAGE of its frames."""
    return to_images(clip.transpose(0, 1))


def to_audio(samples: Tensor, rate: int) -> dict[str, Any]:
    """Returns sounds ``(B, C, T)`` of a rate in Hz as an AUDIO."""
    return {"waveform": samples.float(), "sample_rate": int(rate)}


def to_video(frames: Tensor, rate: float) -> Any:
    """Returns an IMAGE of frames as a VIDEO of a rate in frames a second."""
    fraction = Fraction(rate).limit_denominator(1001)
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, frame_rate=fraction))


def from_images(images: Tensor, modality: Modality) -> Tensor:
    """Returns an IMAGE as samples ``(B, C, H, W)`` of the modality's size, brought to it as files are."""
    return modality.transform_batch(_to_range(images))


def from_masks(masks: Tensor, num: int, modality: Modality) -> Tensor:
    """Returns a MASK as ``num`` samples that are above 0 where pictures are made anew; one mask serves all."""
    masks = _check_masks(masks, num)
    return modality.transform_batch(2 * masks[:, None] - 1).expand(num, -1, -1, -1)


def from_audio(audio: Mapping[str, Any], modality: Modality) -> list[Tensor]:
    """Returns an AUDIO as sounds ``(C, T)`` at the modality's rate and channels, read as a file of it would be.

    Raises ValueError for anything but ``{"waveform": (B, C, T), "sample_rate": int}``, and as the modality's ``read``.
    """
    import soundfile

    found = audio if isinstance(audio, Mapping) else {}
    waveform, rate = found.get("waveform"), found.get("sample_rate")
    if not isinstance(waveform, Tensor) or waveform.ndim != 3 or not waveform.numel() or not isinstance(rate, int):
        raise ValueError(f"an AUDIO is a waveform (B, C, T) and a sample_rate, got {_describe(waveform)} and {rate}")
    sounds = []
    for sound in waveform.float().cpu():
        content = io.BytesIO()
        soundfile.write(content, sound.T.numpy(), rate, "FLOAT", format="WAV")
        sounds.append(modality.decode(content.getvalue(), "audio.wav"))
    return sounds


def from_frames(images: Tensor, modality: Modality) -> Tensor:
    """Returns an IMAGE of frames as a clip ``(C, T, H, W)``; raises ValueError for frames of another size."""
    channels, _, *size = modality.shape()
    frames = _to_range(images)
    _check_size(frames, size)
    if channels == 1:
        frames = torch.einsum("tchw,c->thw", frames, torch.tensor(GREY_WEIGHTS, device=frames.device))[:, None]
    return frames.transpose(0, 1)


def from_frame_masks(masks: Tensor, clip: Tensor) -> Tensor:
    """Returns a MASK as a clip's ``(C, T, H, W)``, above 0 where it is made anew; one mask serves all frames."""
    masks = _check_masks(masks, clip.shape[1])
    _check_size(masks, clip.shape[2:])
    return (2 * masks - 1).expand(clip.shape)


def _to_range(images: Tensor) -> Tensor:
    """Returns an IMAGE as pictures ``(B, 3, H, W)`` in [-1, 1], without their opacity."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[-1] not in (3, 4) or not images.numel():
        raise ValueError(f"an IMAGE is (B, H, W, 3), got {_describe(images)}")
    return 2 * images[..., :3].movedim(-1, 1).float().cpu() - 1


def _check_masks(masks: Tensor, num: int) -> Tensor:
    """Returns a MASK ``(B, H, W)`` or ``(H, W)`` as ``(1, H, W)`` or ``(num, H, W)``, rounded to zero and one."""
    if not isinstance(masks, Tensor) or masks.ndim not in (2, 3) or not masks.numel():
        raise ValueError(f"a MASK is (B, H, W), got {_describe(masks)}")
    masks = masks[None] if masks.ndim == 2 else masks
    if len(masks) not in (1, num):
        raise ValueError(f"got {len(masks)} masks for {num} pictures: give one, or one a picture")
    return (masks.float().cpu() > 0.5).float()


def _check_size(frames: Tensor, size: Sequence[int]) -> None:
    if list(frames.shape[-2:]) != list(size):
        raise ValueError(
            f"got frames or masks of {frames.shape[-1]}×{frames.shape[-2]} pixels, the model takes "
            f"{size[1]}×{size[0]}: bring them to that size before (Upscale Image)"
        )


def _describe(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__

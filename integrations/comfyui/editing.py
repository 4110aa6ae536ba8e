"""Nodes that keep a part of pictures, sounds and clips and make the rest anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.utils
import torch
from torch import Tensor

from scm_media.pipeline import EditRequest
from scm_media.pipeline.records import describe_edit, sample_records

from .media import from_audio, from_frame_masks, from_frames, from_images, from_masks, to_audio, to_images
from .models import CATEGORY, NamedPipeline
from .sampling import (
    SAMPLES,
    RecordedSamples,
    SampleVideo,
    actions_input,
    collect,
    make_request,
    more_inputs,
    number,
    sampling_inputs,
    show_clips,
)

AUDIO_TASKS = ["continue", "prepend", "interpolate", "inpaint"]
VIDEO_TASKS = ["continue", "prepend", "interpolate", "animate", "inpaint"]
TASKS = "continue: the end is kept as the start; prepend: the start as the end; interpolate: both ends are kept"


def _edit(
    model: NamedPipeline, sources: Sequence[Mapping[str, Any]], batch_size: int, inputs: Mapping[str, Any]
) -> RecordedSamples:
    """Returns ``batch_size`` samples of each source; sources: the fields of ``EditRequest`` besides the sampling.

    The samples of all sources are counted through, so that no two have the same noise.
    """
    pipeline, tensors, records = model.pipeline, [], []
    progress = comfy.utils.ProgressBar(batch_size * len(sources))
    for position, source in enumerate(sources):
        sampling = make_request(batch_size, first=position * batch_size, **inputs)
        request = EditRequest(**source, sampling=sampling)
        made = collect(pipeline.edit_batches(request), progress)
        tensors.append(made.samples)
        records += sample_records(pipeline, describe_edit(pipeline, model.name, request), made)
    return RecordedSamples(pipeline, torch.cat(tensors), records)


class EditImages:
    """Makes the masked part of pictures anew."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Makes the white part of a mask anew and keeps the rest. Pictures take the model's size."
    FUNCTION = "edit"
    RETURN_TYPES = ("IMAGE", SAMPLES)
    RETURN_NAMES = ("images", "samples")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Returns the inputs."""
        mask = ("MASK", {"tooltip": "white is made anew; one mask, or one for each picture"})
        inputs = sampling_inputs()
        required = {"model": inputs.pop("model"), "images": ("IMAGE", {}), "mask": mask, **inputs}
        return {"required": required, "optional": more_inputs()}

    def edit(
        self, model: NamedPipeline, images: Tensor, mask: Tensor, batch_size: int, **inputs: Any
    ) -> tuple[Tensor, RecordedSamples]:
        """Returns ``batch_size`` pictures for each one that is given, and their record."""
        modality = model.expect("image").modality
        pictures = from_images(images, modality)
        masks = from_masks(mask, len(pictures), modality)
        pairs = zip(pictures, masks, strict=True)
        sources = [{"task": "inpaint", "source": picture, "mask": each} for picture, each in pairs]
        made = _edit(model, sources, batch_size, inputs)
        return to_images(made.samples), made


class EditAudio:
    """Continues sounds, or makes a stretch of them anew."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Goes on from a sound, leads to it, joins its ends, or makes the stretch from 'start' to 'end' anew."
    FUNCTION = "edit"
    RETURN_TYPES = ("AUDIO", SAMPLES)
    RETURN_NAMES = ("audio", "samples")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Returns the inputs."""
        inputs = sampling_inputs()
        task = (AUDIO_TASKS, {"tooltip": f"{TASKS}; inpaint: start to end is made anew"})
        optional = {
            "keep": number("FLOAT", 0.0, "seconds that are kept; 0: a part that the task chooses", 0, 3600),
            "duration": number("FLOAT", 0.0, "seconds of the new sound, not for inpaint; 0: the model's own", 0, 3600),
            "start": number("FLOAT", 0.0, "with inpaint: seconds from which the sound is made anew", 0, 3600),
            "end": number("FLOAT", 0.0, "with inpaint: seconds up to which it is made anew", 0, 3600),
            **more_inputs(),
        }
        required = {"model": inputs.pop("model"), "audio": ("AUDIO", {}), "task": task, **inputs}
        return {"required": required, "optional": optional}

    def edit(
        self,
        model: NamedPipeline,
        audio: dict[str, Any],
        task: str,
        batch_size: int,
        keep: float = 0.0,
        start: float = 0.0,
        end: float = 0.0,
        **inputs: Any,
    ) -> tuple[dict[str, Any], RecordedSamples]:
        """Returns ``batch_size`` sounds for each one that is given, and their record."""
        modality: Any = model.expect("audio").modality
        region = (start, end) if start or end else None
        inputs["sizes"] = {"duration": inputs.pop("duration", 0.0)}
        sounds = from_audio(audio, modality)
        sources = [{"task": task, "source": each, "keep": keep or None, "region": region} for each in sounds]
        made = _edit(model, sources, batch_size, inputs)
        return to_audio(made.samples, modality.sample_rate), made


class EditVideo:
    """Continues a clip, sets a picture in motion, or makes a part of its frames anew."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Goes on from a clip, leads to it, joins its ends, sets its first frame in motion, or fills a mask."
    FUNCTION = "edit"
    RETURN_TYPES = SampleVideo.RETURN_TYPES
    RETURN_NAMES = SampleVideo.RETURN_NAMES
    OUTPUT_IS_LIST = SampleVideo.OUTPUT_IS_LIST

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Returns the inputs."""
        inputs = sampling_inputs()
        task = (VIDEO_TASKS, {"tooltip": f"{TASKS}; animate: from one frame; inpaint: what the mask marks"})
        optional = {
            "mask": ("MASK", {"tooltip": "with inpaint: white is made anew; one mask, or one for each frame"}),
            "keep": number("INT", 0, "frames that are kept; 0: a part that the task chooses"),
            "frames": number("INT", 0, "length of the new clip, not for inpaint; 0: the model's own"),
            "actions": actions_input(),
            **more_inputs(),
        }
        images = ("IMAGE", {"tooltip": "the frames of one clip, of the model's size and rate"})
        required = {"model": inputs.pop("model"), "images": images, "task": task, **inputs}
        return {"required": required, "optional": optional}

    def edit(
        self,
        model: NamedPipeline,
        images: Tensor,
        task: str,
        batch_size: int,
        keep: int = 0,
        mask: Tensor | None = None,
        **inputs: Any,
    ) -> tuple[Any, ...]:
        """Returns the frames of ``batch_size`` clips, their record, and each clip as a VIDEO."""
        clip = from_frames(images, model.expect("video").modality)
        marked = None if mask is None else from_frame_masks(mask, clip)
        inputs["sizes"] = {"frames": inputs.pop("frames", 0)}
        source = {"task": task, "source": clip, "keep": keep or None, "mask": marked}
        return show_clips(_edit(model, [source], batch_size, inputs))

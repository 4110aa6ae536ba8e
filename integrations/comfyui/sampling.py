"""Nodes that sample pictures, sounds and clips, each with the samples' record for the node that saves them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.utils
from torch import Tensor

from scm_media.bounds import MAX_SEED
from scm_media.pipeline import Pipeline, Samples, SamplingRequest
from scm_media.pipeline.records import describe_sampling, sample_records

from .media import HAS_VIDEO, to_audio, to_frames, to_images, to_video
from .models import CATEGORY, MODEL, NamedPipeline

SAMPLES = "SCM_MEDIA_SAMPLES"
"""The type of ``RecordedSamples`` in graphs."""
NETWORKS = ["student", "teacher"]
LARGEST = 1 << 20


@dataclass(frozen=True)
class RecordedSamples:
    """Samples ``(B, C, *S)`` in [-1, 1] as the model made them, and the record of each."""

    pipeline: Pipeline
    samples: Tensor
    records: list[dict[str, Any]]

    @property
    def modality(self) -> Any:
        """Returns the model's modality, with the attributes of its kind."""
        return self.pipeline.modality


def number(kind: str, default: float, tooltip: str, low: float = 0, high: float = LARGEST, **more: Any) -> Any:
    """Returns the input of a whole ("INT") or other ("FLOAT") number."""
    step = {} if kind == "INT" else {"step": 0.01, "round": False}
    return (kind, {"default": default, "min": low, "max": high, "tooltip": tooltip, **step, **more})


def sampling_inputs() -> dict[str, Any]:
    """Returns the inputs that all nodes which sample have."""
    return {
        "model": (MODEL, {}),
        "label": (
            "STRING",
            {"default": "", "multiline": True, "tooltip": "Bag, or family=guitar pitch=60; or a line for each sample"},
        ),
        "seed": number("INT", 0, "sample k follows from (seed, k)", 0, MAX_SEED, control_after_generate=True),
        "batch_size": number("INT", 1, "number of samples", 1),
        "steps": number("INT", 0, "1, 2, 4 …; 0: the model's own number", 0, 10_000),
    }


def more_inputs() -> dict[str, Any]:
    """Returns the optional inputs that all nodes which sample have."""
    return {
        "guidance": number("FLOAT", -1.0, "guidance scale, 1 is none; -1: the model's own", -1.0, 1000.0),
        "at_once": number("INT", 64, "samples that are made at once: fewer take less memory", 1),
    }


def actions_input() -> Any:
    """Returns the input of actions, which some models of clips take."""
    tooltip = "for models with actions: ahead*8,ahead+left*8, or a .jsonl or .csv; empty: drawn"
    return ("STRING", {"default": "", "tooltip": tooltip})


def make_request(
    batch_size: int,
    label: str = "",
    steps: int = 0,
    guidance: float = -1.0,
    at_once: int = 64,
    actions: str = "",
    network: str = "student",
    **arguments: Any,
) -> SamplingRequest:
    """Returns the request that a node's inputs make; arguments are more of its fields, with sizes of 0 left out."""
    lines = [line.strip() for line in label.splitlines() if line.strip()]
    sizes = {name: value for name, value in arguments.pop("sizes", {}).items() if value > 0}
    return SamplingRequest(
        num=batch_size,
        label=lines if len(lines) > 1 else next(iter(lines), None),
        steps=steps or None,
        guidance=None if guidance < 0 else guidance,
        batch_size=at_once,
        actions=actions.strip() or None,
        teacher=network == "teacher",
        sizes=sizes,
        **arguments,
    )


def collect(batches: Iterable[Samples], progress: Any) -> Samples:
    """Returns all samples of some batches and moves ComfyUI's progress bar; raises where its user cancels."""
    made = []
    for batch in batches:
        comfy.model_management.throw_exception_if_processing_interrupted()
        progress.update(len(batch))
        made.append(batch)
    return Samples.join(made)


def _sample(model: NamedPipeline, modality: str, **arguments: Any) -> RecordedSamples:
    """Returns the samples that a node's inputs ask for."""
    pipeline, request = model.expect(modality), make_request(**arguments)
    made = collect(pipeline.batches(request), comfy.utils.ProgressBar(request.num))
    record = describe_sampling(pipeline, model.name, request)
    return RecordedSamples(pipeline, made.samples, sample_records(pipeline, record, made))


def show_clips(made: RecordedSamples) -> tuple[Any, ...]:
    """Returns the outputs of clips: lists with the frames, and where ComfyUI has it the VIDEO, of each clip."""
    frames = [to_frames(clip) for clip in made.samples]
    if not HAS_VIDEO:
        return frames, made
    rate = made.modality.written_rate
    rates = [float(record.get("fps", rate)) for record in made.records]
    return frames, made, [to_video(*pair) for pair in zip(frames, rates, strict=True)]


class _Sampler:
    """Holds what all nodes that sample have."""

    CATEGORY = CATEGORY
    FUNCTION = "sample"
    OPTIONS: dict[str, Any] = {}
    """Inputs of one modality; 0 stands for the model's own size."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Returns the inputs."""
        network = (NETWORKS, {"tooltip": "teacher: the diffusion model, in many steps, where the model has it"})
        return {"required": sampling_inputs(), "optional": {"network": network, **cls.OPTIONS, **more_inputs()}}


class SampleImages(_Sampler):
    """Samples pictures."""

    DESCRIPTION = "Samples pictures in one or a few steps. 'samples' goes to Save Samples (scm-media)."
    RETURN_TYPES = ("IMAGE", SAMPLES)
    RETURN_NAMES = ("images", "samples")
    OPTIONS = {"size": number("INT", 0, "width and height in pixels; 0: the model's own", 0, 1 << 14)}

    def sample(self, model: NamedPipeline, size: int = 0, **inputs: Any) -> tuple[Tensor, RecordedSamples]:
        """Returns the pictures and their record."""
        made = _sample(model, "image", sizes={"size": size}, **inputs)
        return to_images(made.samples), made


class SampleAudio(_Sampler):
    """Samples sounds."""

    DESCRIPTION = "Samples sounds in one or a few steps. 'samples' goes to Save Samples (scm-media)."
    RETURN_TYPES = ("AUDIO", SAMPLES)
    RETURN_NAMES = ("audio", "samples")
    OPTIONS = {
        "duration": number("FLOAT", 0.0, "seconds; 0: the model's own; longer ones are made in windows", 0, 3600)
    }

    def sample(
        self, model: NamedPipeline, duration: float = 0.0, **inputs: Any
    ) -> tuple[dict[str, Any], RecordedSamples]:
        """Returns the sounds and their record."""
        made = _sample(model, "audio", sizes={"duration": duration}, **inputs)
        return to_audio(made.samples, made.modality.sample_rate), made


class SampleVideo(_Sampler):
    """Samples clips."""

    DESCRIPTION = "Samples clips in one or a few steps; frames and video come clip by clip."
    RETURN_TYPES = ("IMAGE", SAMPLES, *(("VIDEO",) if HAS_VIDEO else ()))
    RETURN_NAMES = ("frames", "samples", *(("video",) if HAS_VIDEO else ()))
    OUTPUT_IS_LIST = (True, False, *((True,) if HAS_VIDEO else ()))
    OPTIONS = {
        "frames": number("INT", 0, "length of a clip; 0: the model's own; longer ones are made in windows"),
        "fps": number("FLOAT", 0.0, "frames a second; 0: the model's own", 0, 240),
        "actions": actions_input(),
    }

    def sample(self, model: NamedPipeline, frames: int = 0, fps: float = 0.0, **inputs: Any) -> tuple[Any, ...]:
        """Returns the frames of each clip, the record of all, and each clip as a VIDEO."""
        return show_clips(_sample(model, "video", sizes={"frames": frames, "fps": fps}, **inputs))

"""A student of ours as a pipeline of diffusers: SCMScheduler's steps at our times, and our autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AudioPipelineOutput, DiffusionPipeline, ImagePipelineOutput, SCMScheduler
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from torch import Tensor

from scm_media.diffusers.components import ScmMediaAutoencoder, ScmMediaBackbone
from scm_media.diffusers.requests import CallOptions, Generators, draw_labels
from scm_media.guidance import Guided
from scm_media.pipeline.actions import SampleActions
from scm_media.pipeline.description import ModelDescription
from scm_media.pipeline.labels import Label, SampleLabels
from scm_media.pipeline.loaded_model import LoadedModel
from scm_media.pipeline.model_folder import ModelFolder
from scm_media.pipeline.requests import SamplingRequest, check_sizes
from scm_media.pipeline.sampling import SamplingMethod
from scm_media.pipeline.windows import empty_input
from scm_media.sampler_inputs import Evaluator
from scm_media.typed import check_value

INDEX = Path("model_index.json")
LABEL_ORDER = "label_order"
"""The key of a description with the names of its labels: diffusers sorts the keys of what it writes."""
TENSORS = ("latents", "denoised")
OUTPUT_TYPES = {1: ("np", "pt", "latent"), 2: ("pil", "np", "pt", "latent"), 3: ("np", "pil", "pt", "latent")}
"""Types of output by the number of axes of a sample ``(C, *S)`` without channels, the default first."""


@dataclass
class VideoPipelineOutput(BaseOutput):
    """The frames of clips: ``(B, F, H, W, C)`` or ``(B, F, C, H, W)`` in [0, 1], or a list of pictures for each."""

    frames: Any


class _ComponentsModel(LoadedModel):
    """A model whose networks are the components of a pipeline, on the device that it computes on."""

    def __init__(self, description: ModelDescription, pipeline: ScmMediaPipeline) -> None:
        super().__init__(ModelFolder(INDEX, description), device="cpu")
        self._pipeline = pipeline

    def network(self, name: str) -> Any:
        """Returns a component's network; the student's keeps what diffusers has wrapped around it."""
        return self._pipeline.backbone if name == "student" else self._pipeline.autoencoder.module


class ScmMediaPipeline(DiffusionPipeline):
    """A student with its autoencoder, ``pipeline(labels={"class": "Bag"}, num_inference_steps=2, generator=g)``.

    description: the content of a model's ``model.json``: labels, modality, times. Raises ValueError for a description
    that is none, and for a scheduler of another sigma_data. The attribute ``model`` has the modality and the labels;
    ``sample_labels`` are the labels of the last call, with those that were drawn.
    """

    model_cpu_offload_seq = "backbone->autoencoder"
    # Offloading layer by layer would miss tensors that are used outside their layer's forward: all stays on the device.
    _exclude_from_cpu_offload = ["autoencoder", "backbone"]
    _callback_tensor_inputs = list(TENSORS)

    def __init__(
        self,
        backbone: ScmMediaBackbone,
        autoencoder: ScmMediaAutoencoder,
        scheduler: SCMScheduler,
        description: dict[str, Any] | None = None,  # without a default, diffusers would take it for a component
    ) -> None:
        super().__init__()
        parts = ((backbone, ScmMediaBackbone), (autoencoder, ScmMediaAutoencoder), (scheduler, SCMScheduler))
        for part, kind in parts:
            if not isinstance(part, kind):
                raise ValueError(
                    f"{INDEX} names {type(part).__name__} where {kind.__name__} is expected: export the model again"
                )
        self.model = _ComponentsModel(_read_description(description), self)
        if (axes := len(self.model.folder.description.sample_shape) - 1) not in OUTPUT_TYPES:
            raise ValueError(f"pipelines of diffusers return sounds, pictures and clips, got samples of {axes} axes")
        sigma_data = self.model.flow.sigma_data
        if (theirs := scheduler.config.get("sigma_data")) != sigma_data:
            raise ValueError(f"the scheduler's sigma_data is {theirs}, expected the model's, {sigma_data}")
        self.register_modules(backbone=backbone, autoencoder=autoencoder, scheduler=scheduler)
        self.register_to_config(description={**(description or {}), LABEL_ORDER: list(self.model.labels.names)})
        self.sample_labels: list[dict[str, Any]] = []
        self._interrupt = False
        self._num_timesteps = 0

    @property
    def num_timesteps(self) -> int:
        """Returns the number of steps of the call, which callbacks of diffusers ask for."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Returns true once a callback has set ``_interrupt``, after which no network is called."""
        return self._interrupt

    @torch.no_grad()
    def __call__(
        self,
        labels: Label | Sequence[Label] = None,
        num_inference_steps: int | None = None,
        generator: Generators = None,
        output_type: str | None = None,
        **options: Any,
    ) -> Any:
        """Returns ``ImagePipelineOutput``, ``AudioPipelineOutput`` or ``VideoPipelineOutput``.

        labels: a class, ``"name=value ..."``, a mapping, or a list with one of these for each sample; those that are
        missing are drawn. num_inference_steps: None for the model's own number. output_type: ``pil`` (pictures, the
        default for images), ``np``, ``pt`` or ``latent``. options: fields of ``CallOptions`` and the modality's size
        options. Raises ValueError for anything that the model cannot do.
        """
        model, device = self.model, self._execution_device
        model.device = device
        wanted = CallOptions.from_arguments(options, list(model.modality.size_options))
        output_type = self._check_output(output_type, wanted)
        num = wanted.count(labels, generator)
        given = wanted.parse_labels(model.labels, labels, num)
        method = self._choose_method(num, num_inference_steps, wanted)
        latents = self._draw_latents(num, wanted, generator, device)
        self.sample_labels = draw_labels(model.labels, given, generator)
        run = self._evaluator(method, latents, wanted)
        latents = self._sample(run, method.sampler.keywords["times"], latents, generator, wanted)
        made = self._output(latents, output_type, wanted)
        self.maybe_free_model_hooks()
        return made

    def _check_output(self, output_type: str | None, wanted: CallOptions) -> str:
        """Returns the type of output; raises ValueError for an unknown one, and for tensors that no callback gets."""
        types = OUTPUT_TYPES[len(self.model.folder.description.sample_shape) - 1]
        if output_type is not None and output_type not in types:
            raise ValueError(f"output_type must be one of {', '.join(types)}, got {output_type!r}")
        if unknown := [name for name in self._callback_inputs(wanted) if name not in TENSORS]:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs has {', '.join(unknown)}; there are {', '.join(TENSORS)}"
            )
        return output_type or types[0]

    def _callback_inputs(self, wanted: CallOptions) -> Sequence[str]:
        callback = wanted.callback_on_step_end
        if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
            return callback.tensor_inputs
        return wanted.callback_on_step_end_tensor_inputs

    def _choose_method(self, num: int, steps: int | None, wanted: CallOptions) -> SamplingMethod:
        """Returns times and guidance of a call; raises ValueError for what the model cannot do."""
        model, times = self.model, wanted.timesteps
        check_sizes(model.modality, wanted.sizes)
        if empty_input(model.modality, wanted.sizes) is not None:
            asked = ", ".join(f"{name} {value:g}" for name, value in wanted.sizes.items())
            raise ValueError(f"{asked}: longer than the model makes at once, which scm-media generate joins in windows")
        if times is not None:
            times = [float(time) for time in times]
            times = times[:-1] if len(times) > 1 and times[-1] == 0 else times
            if steps not in (None, len(times)):
                raise ValueError(f"got {len(times)} timesteps and num_inference_steps={steps}: give one of them")
        request = SamplingRequest(
            num=num, steps=steps, times=times, guidance=wanted.guidance_scale, sizes=dict(wanted.sizes)
        )
        return SamplingMethod.choose(model.folder, model.settings, model.flow, request)

    def _draw_latents(self, num: int, wanted: CallOptions, generator: Generators, device: torch.device) -> Tensor:
        """Returns noise ``(B, c, *s)`` of standard deviation sigma_data, in float32."""
        shape = (num, *self.model.latent_shape(**wanted.sizes))
        latents = wanted.latents
        if latents is None:
            latents = randn_tensor(shape, generator, device=device, dtype=torch.float32)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"latents must have the shape {shape}, got {tuple(latents.shape)}")
        return latents.to(device, torch.float32) * self.model.flow.sigma_data

    def _evaluator(self, method: SamplingMethod, latents: Tensor, wanted: CallOptions) -> Evaluator:
        """Returns the network, guided where it is asked for, with the conditioning of the samples."""
        model, labels = self.model, self.sample_labels
        samples = SampleLabels(model.labels, labels, 0, range(len(labels)), draw=False)
        num_frames = model.modality.shape(**wanted.sizes)[1]
        actions = SampleActions.resolve(model.actions, wanted.actions, samples, num_frames)
        cond = model.conditioning(labels, method.guidance.as_input)
        rows = None if actions is None else actions[:].to(latents.device)
        cond = model.layout.assemble(cond, latents.shape[2:], rows)
        scale, backbone = method.guidance.scale, self.backbone
        if scale != 1:
            backbone = Guided(backbone, scale, method.guidance.interval)
        return Evaluator(backbone, model.flow, lambda step: latents, cond)

    def _sample(
        self, run: Evaluator, times: Sequence[float], latents: Tensor, generator: Generators, wanted: CallOptions
    ) -> Tensor:
        """Returns denoised latents ``(B, c, *s)`` by the scheduler's steps at these times and 0."""
        self._interrupt, self._num_timesteps = False, len(times)
        self.scheduler.set_timesteps(
            len(times),
            timesteps=[*times, 0.0],
            device=latents.device,
            max_timesteps=None,
            intermediate_timesteps=None,
        )
        self.scheduler.set_begin_index(0)
        with self.progress_bar(total=len(times)) as progress:
            for step, (time, t) in enumerate(zip(times, self.scheduler.timesteps, strict=False)):
                if self.interrupt:
                    continue
                velocity = run.flow.sigma_data * run.field(latents, time)
                latents, denoised = self.scheduler.step(velocity, t, latents, generator, return_dict=False)
                if (callback := wanted.callback_on_step_end) is not None:
                    tensors = {"latents": latents, "denoised": denoised}
                    asked = {name: tensors[name] for name in self._callback_inputs(wanted)}
                    changed = callback(self, step, t, asked) or {}
                    latents = changed.get("latents", latents)
                progress.update()
        return latents

    def _output(self, latents: Tensor, output_type: str, wanted: CallOptions) -> Any:
        axes = len(self.model.folder.description.sample_shape) - 1
        sample = latents if output_type == "latent" else self.autoencoder.decode(latents).float()
        kind, made = _KINDS[axes]
        content = sample if output_type == "latent" else made(sample, output_type)
        return kind(content) if wanted.return_dict else (content,)


def _read_description(value: Any) -> ModelDescription:
    """Returns the description that a value of ``model_index.json`` holds, its labels in their own order."""
    if isinstance(value, dict) and LABEL_ORDER in value and isinstance(labels := value.get("labels"), dict):
        check_value(order := value[LABEL_ORDER], Sequence[str], f"{INDEX}: {LABEL_ORDER}")
        if sorted(order) != sorted(labels):
            raise ValueError(f"{INDEX}: {LABEL_ORDER} must name each label once; export the model again")
        value = {**value, "labels": {name: labels[name] for name in order}}
    return ModelDescription.from_json(value, INDEX)


def _as_audios(sample: Tensor, output_type: str) -> Any:
    return sample.numpy() if output_type == "np" else sample.clone()


def _as_images(sample: Tensor, output_type: str) -> Any:
    return VideoProcessor(do_resize=False).postprocess(sample, output_type)


def _as_frames(sample: Tensor, output_type: str) -> Any:
    return VideoProcessor(do_resize=False).postprocess_video(sample, output_type)


_KINDS: Mapping[int, tuple[Any, Callable[[Tensor, str], Any]]] = {
    1: (AudioPipelineOutput, _as_audios),
    2: (ImagePipelineOutput, _as_images),
    3: (VideoPipelineOutput, _as_frames),
}
"""The class of the output, and what makes its content of samples ``(B, C, *S)``, by the number of axes of a sample."""

"""A model folder with its networks on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from scm_media import weights
from scm_media.adapters.backbone import attach_prompts
from scm_media.adapters.lora_files import is_lora, restore_student
from scm_media.build import build
from scm_media.compiler import compiler_errors, ensure_user_name
from scm_media.conditioning import Conditioning, ConditioningLayout, FrameGrouping
from scm_media.interfaces import Autoencoder, Backbone
from scm_media.modality import Modality
from scm_media.networks import restore
from scm_media.pipeline.actions import ActionSet
from scm_media.pipeline.labels import LabelSet
from scm_media.pipeline.model_folder import ModelFolder
from scm_media.pipeline.texts import Texts
from scm_media.prompts import LABEL as PROMPT
from scm_media.prompts import PromptBank
from scm_media.text.cleaning import clean_text
from scm_media.trigflow import TrigFlow

PRECISIONS = {"float32": None, "bf16": torch.bfloat16}


class LoadedModel:
    """The networks of a model, each read when it is first used, with its modality, flow, labels and actions.

    device: a torch device, or "auto" for the fastest there is. precision: "float32" or "bf16" (matrix products only).
    text_encoder: where the text encoder of a model of texts is, if not where the model says.
    Raises ValueError for an unknown device or precision.
    """

    def __init__(
        self,
        folder: ModelFolder,
        device: str = "auto",
        precision: str = "float32",
        text_encoder: str | Path | None = None,
    ) -> None:
        self.folder, self._text_encoder = folder, text_encoder
        description = folder.description
        self.name = description.name
        self.flow: TrigFlow = build(description.flow, "flow")
        self.modality: Modality = build(description.modality, "modality")
        if tuple(self.modality.shape()) != tuple(description.sample_shape):
            raise ValueError(
                f"{folder.path}: its modality makes samples of shape {tuple(self.modality.shape())}, but sample_shape "
                f"is {tuple(description.sample_shape)}; export the model again"
            )
        self.settings = description.sampler
        self.labels = LabelSet.from_description(description)
        self.actions = ActionSet.from_folder(folder)
        self._networks: dict[str, nn.Module] = {}
        self._compiled: set[str] = set()
        self.to(device, precision)

    def to(self, device: str | None = None, precision: str | None = None) -> Self:
        """Moves the networks and returns the same object; None leaves the device or the precision unchanged."""
        if precision is not None:
            if precision not in PRECISIONS:
                raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
            self.precision = precision
        if device is not None:
            self.device = choose_device(device)
            for network in self._networks.values():
                network.to(self.device)
        return self

    def network(self, name: str) -> Any:
        """Returns a network by name (autoencoder, teacher, guide, student, feature_extractor), ready for inference."""
        if name not in self._networks:
            component = self.folder.read(name)
            module = self._lora_student(component) if is_lora(component.config) else self._restore(name, component)
            self._networks[name] = module.eval().requires_grad_(False).to(self.device)
        return self._networks[name]

    def compile(self, teacher: bool = False) -> Self:
        """Lets PyTorch compile the networks that make samples, and returns the same object.

        The first samples of each batch size and of each size of a sample then take the time of compiling, seconds to
        minutes, and later ones less time than before; on a GPU each network runs as one CUDA graph. teacher: compiles
        the teacher and its guide as well. Call it after ``to``: it compiles for the present device. Sampling raises
        ValueError where there is no compiler.
        """
        ensure_user_name()
        mode = "reduce-overhead" if self.device.type == "cuda" else None
        for name in ("student", *(("teacher", "guide") if teacher else ())):
            if self.folder.has(name) and name not in self._compiled:
                self.network(name).compile(dynamic=False, mode=mode)
                self._compiled.add(name)
        if "autoencoder" not in self._compiled:
            autoencoder = self.network("autoencoder")
            autoencoder.decode = torch.compile(autoencoder.decode, dynamic=False, mode=mode)
            self._compiled.add("autoencoder")
        return self

    def backbone(self, name: str) -> Backbone:
        """Returns the function F(u, t, cond) of a network, compiled if ``compile`` was called."""
        network: Backbone = self.network(name)
        if name not in self._compiled:
            return network

        def call(u: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
            with compiler_errors(f"the {name}", "leave compile() out"):
                torch.compiler.cudagraph_mark_step_begin()
                return network(u, t, cond).clone()  # the next call of a CUDA graph overwrites what this one returned

        return call

    def _restore(self, name: str, component: weights.Component) -> nn.Module:
        module = restore(component, name, self.folder.file(name))
        attach_prompts(module, self.prompts)
        return module

    def _lora_student(self, component: weights.Component) -> nn.Module:
        """Returns a LoRA student; from now on the teacher is the one that shares its weights."""
        base: Any = self._restore("teacher", self.folder.read("teacher"))
        student = restore_student(component, base, self.folder.file("student"))
        self._networks["teacher"] = student.teacher.eval().to(self.device)
        return student

    @cached_property
    def prompts(self) -> PromptBank | None:
        """Returns the embeddings of the model's prompts; None for a model without."""
        if not self.folder.has("prompts"):
            return None
        return PromptBank.from_component(self.folder.read("prompts", check=False), self.folder.file("prompts"))

    @cached_property
    def text(self) -> Texts | None:
        """Returns what turns texts of samples into conditioning; None for a model without text."""
        settings = self.folder.description.text
        if settings is None:
            return None
        if self.prompts is None:
            raise ValueError(f"{self.folder.path} lacks prompts.safetensors, its texts' embeddings: copy it again")
        return Texts(self.prompts, settings, self.folder.path, self._text_encoder)

    @cached_property
    def layout(self) -> ConditioningLayout:
        """Returns the channels that the backbones take beside the latent, for actions and masks."""
        description, grouping = self.folder.description, None
        if self.actions.names:
            grouping = FrameGrouping.of(self.network("autoencoder"), description.sample_shape)
        num_mask_channels = description.latent_shape[0] + 1 if description.mask else 0
        return ConditioningLayout(self.flow.sigma_data, num_mask_channels, grouping)

    def latent_shape(self, **sizes: float) -> tuple[int, ...]:
        """Returns ``(c, *s)`` of a sample with these sizes, by default the model's own."""
        shape = tuple(self.network("autoencoder").latent_shape(self.modality.shape(**sizes)))
        described = tuple(self.folder.description.latent_shape)
        if not sizes and shape != described:
            raise ValueError(
                f"{self.folder.path}: its autoencoder makes latents of shape {shape}, but latent_shape is {described}; "
                "export the model again"
            )
        return shape

    def conditioning(self, labels: Sequence[dict[str, Any]], guidance: float | None = None) -> Conditioning:
        """Returns the conditioning of samples with these labels, and with a guidance scale if one is given."""
        cond = self.labels.conditioning(labels)
        if self.text is not None:
            cond = self.text.condition(cond, [label.get(PROMPT) for label in labels])
        if guidance is not None:
            cond = replace(cond, guidance=torch.full((len(labels),), float(guidance)))
        return cond.to(self.device)

    def replace_text(self, text: str) -> Callable[[Conditioning], Conditioning]:
        """Returns a function that gives the conditioning of a batch another text, of a model with text."""
        assert self.text is not None
        row = self.text.condition(Conditioning(), [clean_text(text)]).to(self.device)

        def replaced(cond: Conditioning) -> Conditioning:
            num = len(next(each for each in (cond.tokens, cond.pooled) if each is not None))
            other = row.repeat(num)
            return replace(cond, tokens=other.tokens, token_mask=other.token_mask, pooled=other.pooled)

        return replaced

    def autocast(self) -> torch.autocast:
        """Returns the context that networks run in at this precision."""
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)

    def decode(self, latent: Tensor) -> Tensor:
        """Returns samples ``(B, C, *S)`` on the CPU for latents ``(B, c, *s)``."""
        with compiler_errors("the autoencoder", "leave compile() out") if self._compiled else nullcontext():
            return decode_to_cpu(self.network("autoencoder"), latent)


@torch.inference_mode()
def decode_to_cpu(autoencoder: Autoencoder, latent: Tensor) -> Tensor:
    """Returns samples ``(B, C, *S)`` on the CPU for latents ``(B, c, *s)``.

    With an autoencoder that has ``decode_in_chunks`` the device never holds more than a chunk of the samples.
    """
    decode_in_chunks = getattr(autoencoder, "decode_in_chunks", None)
    if decode_in_chunks is None:
        return autoencoder.decode(latent).cpu()
    sample, filled = None, 0
    for chunk in decode_in_chunks(latent):
        if sample is None:
            sample = torch.empty(len(latent), *autoencoder.sample_shape(latent.shape[1:]), dtype=chunk.dtype)
        sample[:, :, filled : filled + chunk.shape[2]] = chunk.cpu()
        filled += chunk.shape[2]
    assert sample is not None and filled == sample.shape[2]
    return sample


def choose_device(name: str) -> torch.device:
    """Returns the device of a name, the fastest there is for "auto"; raises ValueError if it cannot be used."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}); choose auto or cpu") from error
    return torch.device(name)

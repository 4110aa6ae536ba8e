"""A run: its recipe, folder and data, and the shapes that follow from them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scm_media import weights
from scm_media.adapters import LoRAStudent
from scm_media.adapters.backbone import attach_prompts
from scm_media.adapters.checkpointing import enable_checkpointing
from scm_media.adapters.lora_files import check_same_lora
from scm_media.build import build
from scm_media.conditioning import Conditioning, ConditioningLayout, FrameGrouping
from scm_media.data import Dataset
from scm_media.latents import LatentCache
from scm_media.masks import MaskSampler
from scm_media.modality import Modality
from scm_media.networks import ROLES, restore
from scm_media.pipeline.model_folder import ModelFolder
from scm_media.pipeline.teacher_source import TeacherSource, open_teacher_source
from scm_media.prompts import LABEL, TextInputs
from scm_media.sources import open_data
from scm_media.tangent import TangentMethod
from scm_media.training.devices import training_device
from scm_media.training.initial_weights import load_initial
from scm_media.trigflow import TrigFlow


@dataclass
class Context:
    """A run's recipe and data, and what every stage needs to know about its latents.

    start: the model that fine-tuning begins with (``init_from``). source: the model that teacher and autoencoder are
    taken from as they are (``teacher_from``). latent_shape: ``(c, *s)``. mask_sampler: draws the conditioning masks of
    training, None without. conditioning_layout: the channels of masks and actions beside the latent.
    trains_autoencoder: whether the autoencoder has parameters to train. awaits_weights: whether backbones are made
    without memory for their weights (on PyTorch's meta device), because the first device sends them when it shards.
    """

    config: dict[str, Any]
    run_dir: Path
    modality: Modality
    data: Dataset
    held_out: Dataset
    start: ModelFolder | None
    source: TeacherSource | None
    flow: TrigFlow
    latent_shape: tuple[int, ...]
    mask_sampler: MaskSampler | None
    conditioning_layout: ConditioningLayout
    trains_autoencoder: bool
    awaits_weights: bool = False

    @property
    def latent_cache(self) -> LatentCache:
        """The cache of the run's latents, which ``scm-media encode`` writes."""
        return LatentCache(
            folder=self.run_dir / "latents",
            splits={"train": self.data, "held_out": self.held_out},
            autoencoder=self.weights_file("autoencoder"),
            modality=self.config["modality"],
            shape=self.latent_shape,
            settings=self.config["latents"],
        )

    @property
    def num_cond_channels(self) -> int:
        """The number of channels of ``Conditioning.concat``, 0 without masks and actions."""
        return self.conditioning_layout.num_channels(len(self.data.action_names))

    def condition(self, latents: Tensor, cond: Conditioning, actions: Tensor | None) -> Conditioning:
        """Returns the conditioning of training latents ``(B, c, *s)``: ``cond`` with actions and a random mask."""
        mask = None if self.mask_sampler is None else self.mask_sampler.draw(latents)
        return self.conditioning_layout.assemble(cond, latents.shape[2:], actions, latents, mask)

    @property
    def num_classes(self) -> dict[str, int]:
        """Label to its number of classes, 0 for a scalar label."""
        return {name: len(names) for name, names in self.data.label_names.items()}

    @property
    def text(self) -> TextInputs | None:
        """Returns the inputs of networks that take the recipe's texts; None for a recipe without.

        Raises ValueError before the texts are embedded (``training.texts``).
        """
        settings = self.config["text"]
        if settings is None:
            return None
        if self.data.prompt_bank is None:
            raise ValueError(
                "the texts of the data are not embedded: run scm-media encode RECIPE first, or scm-media train RECIPE"
            )
        return TextInputs(self.data.prompt_bank, settings["labels"])

    @property
    def network_classes(self) -> dict[str, int]:
        """The labels that backbones are given, with their numbers of classes: all, or with texts some of them."""
        settings, labels = self.config["text"], self.num_classes
        if settings is None:
            return labels
        kept = labels if settings["labels"] is None else settings["labels"]
        return {name: num for name, num in labels.items() if name in kept and name != LABEL}

    @property
    def tangent_method(self) -> TangentMethod:
        """The method by which the student's loss computes dF/dt."""
        return self.config["student"]["loss"].get("tangent_method", "one_pass")

    @property
    def device(self) -> torch.device:
        """The device that training will run on."""
        return training_device(self.config)

    @cached_property
    def data_fingerprint(self) -> str | None:
        """The digest of the training and held-out examples, None where the dataset has no ``fingerprint``."""
        return " ".join(filter(None, (self.data.fingerprint(), self.held_out.fingerprint()))) or None

    def takes(self, stage: str) -> bool:
        """Returns whether a stage's network is taken from ``teacher_from`` as it is."""
        return stage in ("autoencoder", "teacher", "guide") and self.source is not None and self.source.has(stage)

    def weights_file(self, stage: str) -> Path:
        """Returns the file that a stage leaves its weights in."""
        return self.run_dir / stage / "weights.safetensors"

    def load_trained(self, stage: str) -> Any:
        """Returns the network that a stage left, frozen and in evaluation mode; ValueError before it was trained."""
        component, is_backbone = self.trained_weights(stage), ROLES[stage] == "backbone"
        with self._placing() if is_backbone else nullcontext():
            network = restore(component, stage, self.weights_file(stage)).eval().requires_grad_(False)
        return self._prepare(network) if is_backbone else network

    def build_backbone(self, config: Mapping[str, Any]) -> Any:
        """Returns a backbone with fresh weights, which knows the prompts of the data."""
        with self._placing():
            backbone = build(config, "backbone")
        return self._prepare(backbone)

    def _placing(self) -> AbstractContextManager[Any]:
        """Returns a context in which the backbones of a stage are made."""
        return torch.device("meta") if self.awaits_weights else nullcontext()

    def _prepare(self, backbone: Any) -> Any:
        """Returns a backbone that knows the prompts of the data, with checkpointing where the recipe wants it."""
        attach_prompts(backbone, self.data.prompt_bank)
        if self.config["trainer"]["gradient_checkpointing"]:
            enable_checkpointing(backbone)
        return backbone

    def trained_weights(self, stage: str) -> weights.Component:
        """Returns the weights that a stage left; ValueError before it was trained."""
        file = self.weights_file(stage)
        if not file.exists():
            raise ValueError(f"{file} does not exist: train stage={stage} first, or stage=all")
        return weights.read(file)

    def load_start(self, network: nn.Module, stage: str) -> None:
        """Loads the weights of the model that fine-tuning begins with, if there is one."""
        if self.start is None:
            return
        if not self.start.has(stage):
            print(f"{stage}: {self.start.path} (init_from) holds none, so it starts from nothing", file=sys.stderr)
            return
        component = self.start.read(stage)
        if isinstance(network, LoRAStudent):
            check_same_lora(network, component.config, self.start.file(stage))
        file = self.start.file(stage)
        left_out = load_initial(network, component, self.conditioning_layout, stage, file)
        if left_out:
            print(f"{stage}: texts take the place of the labels {', '.join(left_out)} of {file}", file=sys.stderr)


def prepare(config: dict[str, Any]) -> Context:
    """Builds modality and both splits of the data of a recipe, and opens the models of init_from and teacher_from."""
    torch.manual_seed(config["seed"])
    modality = build(config["modality"], "modality")
    splits = open_data(config, modality)
    start = None if config["init_from"] is None else ModelFolder.open(config["init_from"])
    source = None if config["teacher_from"] is None else open_teacher_source(config["teacher_from"])
    return make_context(config, modality, splits["train"], splits["held_out"], start, source)


def make_context(
    config: Mapping[str, Any],
    modality: Modality,
    data: Dataset,
    held_out: Dataset,
    start: ModelFolder | None = None,
    source: TeacherSource | None = None,
) -> Context:
    """Returns the context of a recipe with this data.

    Raises ValueError where the autoencoder has no latent for the samples or for one of the modality's buckets, and
    where the latents lack the axis of ``conditioning.mask``.
    """
    autoencoder: Any
    if source is not None and source.has("autoencoder"):  # a stranger's: no larger than its file
        autoencoder = restore(source.read("autoencoder"), "autoencoder", source.file("autoencoder"))
    else:
        autoencoder = build(config["autoencoder"]["network"], "autoencoder")
    for bucket in modality.buckets or ():
        autoencoder.latent_shape((data.shape[0], *bucket))
    latent_shape = autoencoder.latent_shape(data.shape)
    mask = config["conditioning"]["mask"]
    mask_sampler = None if mask is None else MaskSampler(**mask)
    if mask_sampler is not None:
        mask_sampler.check_rank(len(latent_shape) - 1)
    num_mask_channels = 0 if mask_sampler is None else latent_shape[0] + 1
    grouping = FrameGrouping.of(autoencoder, data.shape) if data.action_names else None
    flow = build(config["flow"], "flow")
    return Context(
        config=dict(config),
        run_dir=Path(config["run_dir"]),
        modality=modality,
        data=data,
        held_out=held_out,
        start=start,
        source=source,
        flow=flow,
        latent_shape=latent_shape,
        mask_sampler=mask_sampler,
        conditioning_layout=ConditioningLayout(flow.sigma_data, num_mask_channels, grouping),
        trains_autoencoder=source is None and any(each.requires_grad for each in autoencoder.parameters()),
    )

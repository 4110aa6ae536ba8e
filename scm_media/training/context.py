"""What the stages of a run share."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scm_media import weights
from scm_media.build import build
from scm_media.conditioning import Conditioning, ConditioningLayout, FrameGrouping
from scm_media.data import Dataset
from scm_media.guidance import Guided
from scm_media.latents import LatentCache
from scm_media.masks import MaskSampler
from scm_media.modality import Modality
from scm_media.networks import restore
from scm_media.pipeline.model_folder import ModelFolder
from scm_media.tangent import TangentMethod
from scm_media.training.training_fingerprint import FINGERPRINT, by_input, training_fingerprint
from scm_media.trigflow import TrigFlow

PRECISIONS = ("32-true", "bf16-mixed")
"""Weights stay wide: in 16 bits small steps, averages and tangents are lost."""
DEVICES = ("auto", "cpu", "cuda", "mps")
STRATEGIES = ("auto", "ddp")


def check_devices(config: Mapping[str, Any]) -> None:
    """ValueError for a precision, device or strategy that training does not know, or a device that is not there."""
    for key, known in (("precision", PRECISIONS), ("device", DEVICES), ("strategy", STRATEGIES)):
        if config[key] not in known:
            raise ValueError(f"{key} must be one of {', '.join(known)}; got {config[key]!r}")
    device = config["device"]
    there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if device in there and not there[device]():
        raise ValueError(f"device={device}: there is none that this installation of torch can use; set device=cpu")


@dataclass
class Context:
    """A run's configuration, folder, data and modality; ``start`` is the model that fine-tuning begins with."""

    config: dict[str, Any]
    run_dir: Path
    modality: Modality
    data: Dataset
    held_out: Dataset
    start: ModelFolder | None = None

    @cached_property
    def flow(self) -> TrigFlow:
        """The flow of the recipe."""
        return build(self.config["flow"], "flow")

    @cached_property
    def latent_shape(self) -> tuple[int, ...]:
        """``(c, *s)`` of the latents that backbones are trained on; ValueError where a bucket has none."""
        autoencoder = build(self.config["autoencoder"]["network"], "autoencoder")
        for bucket in self.modality.buckets or ():
            autoencoder.latent_shape((self.data.shape[0], *bucket))
        return autoencoder.latent_shape(self.data.shape)

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

    @cached_property
    def mask_sampler(self) -> MaskSampler | None:
        """What draws the regions that networks are given in training; None where the recipe wants none."""
        section = self.config["conditioning"]["mask"]
        return None if section is None else MaskSampler(**section)

    @cached_property
    def conditioning_layout(self) -> ConditioningLayout:
        """Returns the channels that networks get beside the latent: the given latent and its mask, and the actions."""
        grouping = None
        if self.data.action_names:
            network = build(self.config["autoencoder"]["network"], "autoencoder")
            grouping = FrameGrouping.of(network, self.data.shape)
        num_mask_channels = 0 if self.mask_sampler is None else self.latent_shape[0] + 1
        return ConditioningLayout(self.flow.sigma_data, num_mask_channels, grouping)

    @property
    def num_cond_channels(self) -> int:
        """Returns the number of channels of ``Conditioning.concat``, 0 without mask and actions."""
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
    def tangent_method(self) -> TangentMethod:
        """The way to dF/dt that the student's loss takes."""
        return self.config["student"]["loss"].get("tangent_method", "one_pass")

    @property
    def device(self) -> torch.device:
        """Where training will run: what is compiled is checked there."""
        on_cuda = self.config["device"] in ("auto", "cuda") and torch.cuda.is_available()
        return torch.device("cuda" if on_cuda else "cpu")

    @cached_property
    def fingerprint(self) -> str | None:
        """Returns the digest of the examples that are trained on and held out, None where the dataset gives none."""
        return " ".join(filter(None, (self.data.fingerprint(), self.held_out.fingerprint()))) or None

    def made_of(self, stage: str) -> dict[str, Any]:
        """Returns what a stage trains on: the fingerprint of its data, and digests of the weights that it uses."""
        used: dict[str, tuple[str, ...]] = {"teacher": ("autoencoder",), "guide": ("autoencoder",)}
        if stage == "autoencoder" and self.config["autoencoder"]["loss"].get("perceptual", "features") == "features":
            used["autoencoder"] = ("feature_extractor",)
        if stage == "student":
            guided = self.config["student"]["objective"] == "scd" and self.config["guide"] is not None
            used["student"] = ("autoencoder", "teacher", *(("guide",) if guided else ()))
        files = {name: self.weights_file(name) for name in used.get(stage, ())}
        digests = {
            f"{name} weights": weights.digest(weights.read(file, check=False))
            for name, file in files.items()
            if file.exists()
        }
        return {FINGERPRINT: self.fingerprint, **digests}

    def training_fingerprint(self, stage: str) -> dict[str, Any]:
        """Returns all that a stage's steps follow from, for its checkpoints."""
        return {**training_fingerprint(self.config, stage), **self.made_of(stage)}

    def weights_file(self, stage: str) -> Path:
        """Where a stage leaves its weights."""
        return self.run_dir / stage / "weights.safetensors"

    def backbone_config(self, **differing: Any) -> dict[str, Any]:
        """The recipe's backbone with what differs from it, and what the data decides filled in."""
        config = {**self.config["backbone"], **differing}
        if config.get("in_channels") is None:
            config["in_channels"] = self.latent_shape[0]
        if config.get("labels") is None:
            config["labels"] = self.num_classes
        if config.get("label_units", 0) is None:
            config["label_units"] = {
                name: (values[-1] - values[0]) / (math.pi / 2) or 1.0
                for name, values in self.data.label_quantiles.items()
            }
        if self.num_cond_channels:
            num, layout = config.setdefault("num_cond_channels", self.num_cond_channels), self.conditioning_layout
            if num < self.num_cond_channels:
                reasons = []
                if layout.num_mask_channels:
                    reasons.append("conditioning.mask: the channels of the latent and a mask")
                if layout.grouping is not None:
                    reasons.append(f"data.actions: the numbers of {layout.grouping.size} places")
                raise ValueError(
                    f"backbone.num_cond_channels must be at least {self.num_cond_channels} for "
                    f"{' and '.join(reasons)}; got {num}: leave it out"
                )
        return config

    def autoencoder(self) -> Any:
        """The trained autoencoder, frozen; ValueError when its stage has not run."""
        return self.trained("autoencoder")

    def trained(self, stage: str) -> Any:
        """The network that a stage left, frozen and in evaluation mode; ValueError when it has not run."""
        file = self.weights_file(stage)
        if not file.exists():
            raise ValueError(f"{file} does not exist: train stage={stage} first, or stage=all")
        return restore(weights.read(file), stage, file).eval().requires_grad_(False)

    def guided_teacher(self) -> Any:
        """The trained teacher as it is sampled and distilled: steered by its guide, or by the labels it did without.

        Its scale is the recipe's, or each clip's own where the student takes scales as an input. ValueError when a
        stage has not run, or as ``check_guidance``.
        """
        self.check_guidance()
        teacher, sampler, by_clip = self.trained("teacher"), self.config["sampler"], by_input(self.config)
        if sampler["guidance"] == 1 and not by_clip:
            return teacher
        guide = None if self.config["guide"] is None else self.trained("guide")
        return Guided(teacher, None if by_clip else sampler["guidance"], sampler["guidance_interval"], guide)

    def check_mask(self) -> None:
        """ValueError where the latents have no such axis as ``conditioning.mask`` has regions along."""
        if self.mask_sampler is not None:
            self.mask_sampler.check_rank(len(self.latent_shape) - 1)

    def check_guidance(self) -> None:
        """ValueError where a student is to be distilled at scales that its teacher cannot be steered by."""
        student, scale = self.config["student"], self.config["sampler"]["guidance"]
        highest = student["loss"].get("guidance_max")
        if highest is not None and student["objective"] != "scd":
            raise ValueError(
                f"student.loss.guidance_max {highest} needs a teacher, whose guidance is distilled: set "
                "student.objective=scd, or leave it null"
            )
        if highest is not None and not highest > 1:
            raise ValueError(
                f"student.loss.guidance_max must be above 1, or null for no scale as an input; got {highest}"
            )
        if highest is not None and not 1 <= scale <= highest:
            raise ValueError(
                f"sampler.guidance {scale}, which clips are made at, must lie in [1, {highest}], what the student is "
                "to be trained for (student.loss.guidance_max)"
            )
        if student["objective"] != "scd" or (scale == 1 and highest is None) or self.config["guide"] is not None:
            return
        key = f"sampler.guidance {scale}" if highest is None else f"student.loss.guidance_max {highest}"
        if not self.num_classes:
            raise ValueError(
                f"{key}: the data has no labels, so the teacher has nothing to be steered away from; leave guidance "
                "out, or describe a guide (autoguidance)"
            )
        if not self.config["teacher"]["loss"].get("label_dropout"):
            raise ValueError(
                f"{key}: the teacher has nothing to be steered away from; train it "
                "with teacher.loss.label_dropout=0.1, or describe a guide (autoguidance)"
            )

    def start_from(self, network: nn.Module, stage: str) -> None:
        """Gives a network the weights of the model that fine-tuning begins with, where there is one."""
        if self.start is None:
            return
        if not self.start.has(stage):
            print(f"{stage}: {self.start.path} (init_from) holds none, so it starts from nothing", file=sys.stderr)
        else:
            component = self.start.read(stage)
            state, num = component.state, component.config.get("num_cond_channels", 0)
            layout, takes_channels = self.conditioning_layout, hasattr(network, "num_cond_channels")
            if layout.grouping is not None and takes_channels and num in (0, layout.num_mask_channels):
                # Trained without actions: their channels come last, and have no effect at first.
                state = weights.widened(state, network.state_dict())
            weights.load_into(network, state, self.start.file(stage))

    def fabric(self, folder: Path, precision: str | None = None, logged: bool = True) -> Any:
        """A launched Fabric for the recipe's devices, logged into a folder; precision: None for the recipe's."""
        from lightning.fabric import Fabric

        config = self.config
        chosen: Any = precision or config["precision"]
        loggers = []
        if config["logger"] and logged:
            extra = {} if "root_dir" in config["logger"] else {"root_dir": str(folder), "name": "", "version": ""}
            loggers.append(build(config["logger"], "logger", **extra))
        fabric = Fabric(
            accelerator=config["device"],
            devices=config["num_devices"],
            num_nodes=config["num_nodes"],
            strategy=config["strategy"],
            precision=chosen,
            loggers=loggers,
        )
        fabric.launch()
        return fabric

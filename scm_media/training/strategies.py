"""Checks whether several devices can train a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scm_media.training.fingerprint import stage_settings


def check_strategy(config: Mapping[str, Any]) -> None:
    """Raises ValueError for settings that several devices cannot be trained with."""
    devices, sharing = config["num_devices"] * config["num_nodes"], config["context_parallel"]
    if sharing > 1 and config["strategy"] != "fsdp":
        raise ValueError(
            f"context_parallel {sharing} needs strategy=fsdp, got {config['strategy']}: set that, or context_parallel=1"
        )
    if devices % sharing:
        raise ValueError(
            f"context_parallel {sharing} must divide num_devices x num_nodes, got {devices}: the devices form groups "
            "that share the tokens of each sample"
        )
    stages = [stage for stage in ("warm_start", "student") if config[stage] is not None]
    if sharing > 1 and any(stage_settings(config, stage)["loss"].get("feature_weight") for stage in stages):
        raise ValueError(
            f"context_parallel {sharing}: a device has the hidden features of its own tokens alone, and feature_weight "
            "compares those of all; set the loss's feature_weight=0"
        )
    if config["strategy"] != "fsdp":
        return
    if config["trainer"]["compile"]:
        raise ValueError("strategy=fsdp trains networks that are not compiled: set trainer.compile=false")
    if config["backbone"].get("network") is not None:
        raise ValueError("strategy=fsdp does not shard networks of diffusers: set strategy=ddp")
    for stage in ("teacher", "guide", *stages):
        settings = {} if config[stage] is None else stage_settings(config, stage)
        if settings.get("optimizer", {}).get("_target_", "").startswith("torchao."):
            raise ValueError(
                f"strategy=fsdp: the optimizers of torchao take steps of whole weights alone; set strategy=ddp, or "
                f"choose another one (optimizer@{stage}.optimizer=adam)"
            )
    if config["student"]["lora"] is not None:
        raise ValueError(
            "strategy=fsdp does not shard the weights that a LoRA shares: set strategy=ddp or student.lora=null"
        )

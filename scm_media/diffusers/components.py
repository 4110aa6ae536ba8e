"""The networks of a model as components of a pipeline of diffusers.

A component's folder holds ``config.json`` and one safetensors file, whose header has the configuration as well. It is
read as weight files of model folders are: no pickle, no class that is no part, nothing larger than the file's tensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from scm_media import weights
from scm_media.build import build
from scm_media.conditioning import Conditioning
from scm_media.networks import ROLES, restore
from scm_media.pipeline.loaded_model import PRECISIONS, decode_to_cpu
from scm_media.pipeline.model_folder import file_within
from scm_media.reading import read_json

WEIGHTS = "diffusion_pytorch_model"
DTYPES = tuple(each or torch.float32 for each in PRECISIONS.values())
UNSUPPORTED = ("quantization_config", "use_flashpack")


class _Component(ModelMixin, ConfigMixin):
    """A network of a model, made by its configuration; module: the network itself where it is made already."""

    config_name = "config.json"
    ignore_for_config = ["module"]
    name: str
    """The network's name in a model folder."""

    @register_to_config
    def __init__(self, network: dict[str, Any], module: nn.Module | None = None) -> None:
        super().__init__()
        self.module = build(network, ROLES[self.name]) if module is None else module
        self.compute_dtype = torch.float32
        # Offloading asks the first parameter of a component where it is, and some autoencoders have none.
        self.placement = nn.Parameter(torch.empty(0), requires_grad=False)

    @classmethod
    def from_component(cls, component: weights.Component, source: str | Path) -> Self:
        """Returns the component of a weight file's content; raises ValueError, naming the source, as ``restore``."""
        module = restore(component, cls.name, source).eval().requires_grad_(False)
        return cls(network=component.config, module=module).eval()

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, subfolder: str = "", variant: str | None = None, **options: Any
    ) -> Self:
        """Returns the component that ``save_pretrained`` wrote into a folder on this machine.

        options: ``torch_dtype`` (or ``dtype``), ``device_map`` (a device, or ``{"": device}``), and those of diffusers
        that say how weights are read, which have no effect. Raises ValueError for a folder without the component, for
        files that are damaged or belong to another network, and for a type or an option that it does not support.
        """
        if given := [name for name in UNSUPPORTED if options.get(name)]:
            raise ValueError(f"{cls.__name__} does not support {', '.join(given)}: leave it out")
        if options.get("use_safetensors") is False:
            raise ValueError(f"{cls.__name__} is read from safetensors alone: leave use_safetensors out")
        path = Path(os.path.abspath(Path(folder) / subfolder))
        file = file_within(path.parent, f"{path.name}/{_file_name(variant)}")
        component = weights.read(file)
        described = read_json(file_within(path.parent, f"{path.name}/{cls.config_name}"))
        if not isinstance(described, dict) or described.get("network") != component.config:
            raise ValueError(
                f"{path / cls.config_name} describes another network than the header of {file.name} beside it; copy or "
                "export both again"
            )
        made = cls.from_component(component, file)
        if (dtype := options.get("torch_dtype") or options.get("dtype")) is not None:
            made.to(dtype=dtype)
        if (place := options.get("device_map")) is not None:
            made.to(place[""] if isinstance(place, Mapping) else place)
        return made

    def save_pretrained(
        self, folder: str | Path, safe_serialization: bool = True, variant: str | None = None, **options: Any
    ) -> None:
        """Writes ``config.json`` and one safetensors file, each whole or not at all; ValueError for pickle."""
        if not safe_serialization:
            raise ValueError(f"{type(self).__name__} is saved as safetensors alone: leave safe_serialization out")
        network = dict(self.config["network"])
        text = json.dumps({"_class_name": type(self).__name__, "network": network}, indent=2, ensure_ascii=False)
        weights.save(Path(folder) / _file_name(variant), self.module.state_dict(), network)
        weights.write_whole(Path(folder) / self.config_name, f"{text}\n".encode())

    def to(self, *arguments: Any, **options: Any) -> Self:
        """Moves the network; a dtype is what it computes in. Raises ValueError for others than float32 and bfloat16."""
        dtypes = [each for each in arguments if isinstance(each, torch.dtype)]
        if (dtype := options.pop("dtype", None) or next(iter(dtypes), None)) is not None:
            self._compute_in(dtype)
        rest = [each for each in arguments if each is not None and not isinstance(each, torch.dtype)]
        if rest or any(each is not None for each in options.values()):
            super().to(*rest, **options)
        return self

    def _compute_in(self, dtype: torch.dtype) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"{type(self).__name__} computes in {' or '.join(map(str, DTYPES))}, got {dtype}")


class ScmMediaBackbone(_Component):
    """F(u, t, cond) of a student. Its weights stay in float32; in bfloat16 its matrix products alone are computed."""

    name = "student"

    def _compute_in(self, dtype: torch.dtype) -> None:
        super()._compute_in(dtype)
        self.compute_dtype = dtype

    @property
    def dtype(self) -> torch.dtype:
        """Returns the type that matrix products are computed in."""
        return self.compute_dtype

    def forward(self, u: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Returns F ``(B, c, *s)`` for u = x_t / sigma_data ``(B, c, *s)`` and t ``(B,)`` in radians."""
        narrow = self.compute_dtype != torch.float32
        with torch.autocast(u.device.type, self.compute_dtype if narrow else torch.bfloat16, enabled=narrow):
            return self.module(u, t, cond)


class ScmMediaAutoencoder(_Component):
    """The map from latents to samples, in float32 whatever type the pipeline computes in."""

    name = "autoencoder"

    @property
    def dtype(self) -> torch.dtype:
        """Returns float32."""
        return torch.float32

    @apply_forward_hook
    def decode(self, latent: Tensor) -> Tensor:
        """Returns samples ``(B, C, *S)`` in [-1, 1], on the CPU, for latents ``(B, c, *s)``."""
        return decode_to_cpu(self.module, latent)  # type: ignore[arg-type]


def _file_name(variant: str | None) -> str:
    return f"{WEIGHTS}.{variant}.safetensors" if variant else f"{WEIGHTS}.safetensors"

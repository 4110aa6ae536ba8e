"""A folder that a pipeline of diffusers was saved to: its network, scheduler and autoencoder."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from scm_media import weights
from scm_media.adapters.adapter import ADAPTERS
from scm_media.adapters.schedulers import EDMS, change_of_variables
from scm_media.change_of_variables import ChangeOfVariables
from scm_media.reading import read_json

INDEX = "model_index.json"
PREFIX = "network."
"""The beginning of the names of a network's weights within a ``ChangeOfVariables``."""


class DiffusersFolder:
    """A saved pipeline, with ``has``, ``file`` and ``read`` as a model folder has them.

    path: has ``model_index.json`` and one folder for each part; weights are read from safetensors files alone. network:
    the class of its network; config: that network's ``config.json``; scheduler: the ``scheduler_config.json``. Raises
    ValueError for a folder that is none, for networks that are not known, and for several networks.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.component, self.network = self._find_network()
        self.config = _without_private(read_json(self._existing(self.component, "config.json", "the network")))
        scheduler = self._existing("scheduler", "scheduler_config.json", "what the network predicts")
        self.scheduler: Mapping[str, Any] = read_json(scheduler)

    def has(self, name: str) -> bool:
        """Returns whether the folder holds a network by this name: teacher or autoencoder."""
        return name in ("teacher", "autoencoder")

    def file(self, name: str) -> Path:
        """Returns the folder of a network's files."""
        return self.path / (self.component if name == "teacher" else "vae")

    def read(self, name: str) -> weights.Component:
        """Returns the weights of the teacher, with the configuration of its backbone.

        float16 weights become float32, because tangents leave float16's range; this is said.
        """
        assert name == "teacher"
        state = {PREFIX + key: tensor for key, tensor in self.load_network().state_dict().items()}
        return weights.Component(state, self.backbone(), {"source": self.path.name})

    def backbone(self) -> dict[str, Any]:
        """Returns the configuration of the backbone, without what follows from data."""
        target = "scm_media.adapters.backbone.diffusers_backbone"
        return {
            "_target_": target,
            "network": self.network,
            "config": self.config,
            "scheduler": _without_private(self.scheduler) | {"_class_name": self.scheduler.get("_class_name")},
        }

    @property
    def has_labels(self) -> bool:
        """Returns whether the network has an input for a label."""
        return self.num_classes > 0

    @property
    def num_classes(self) -> int:
        """Returns the number of classes that the network has embeddings for; 0 for a network without labels."""
        return ADAPTERS[self.network].inputs(self.config).get("label", 0)

    @property
    def sigma_data(self) -> float:
        """Returns the standard deviation of latents, as the scheduler knows them."""
        return float(self.scheduler.get("sigma_data", 0.5)) if self.scheduler.get("_class_name") in EDMS else 1.0

    def latent_shape(self) -> tuple[int, ...]:
        """Returns the shape ``(c, *s)`` of latents that the network was made for."""
        return ADAPTERS[self.network].latent_shape(self.config)

    def load_network(self, dtype: torch.dtype | None = None) -> Any:
        """Returns the network as diffusers has it. dtype: None keeps the weights' own type, but for float16."""
        import diffusers

        folder = self.path / self.component
        if dtype is None:
            dtype = _dtype_of(folder)
            if dtype == torch.float16:
                print(f"{folder}: float16 weights are used in float32: tangents leave float16's range", file=sys.stderr)
                dtype = torch.float32
        kind = getattr(diffusers, self.network)
        return kind.from_pretrained(str(folder), use_safetensors=True, local_files_only=True, torch_dtype=dtype)

    def _find_network(self) -> tuple[str, str]:
        index = self.path / INDEX
        if not index.is_file():
            raise ValueError(
                f"{self.path} has no {INDEX}: a folder that a pipeline of diffusers was saved to is expected"
            )
        parts = read_json(index)
        entries = {
            component: str(entry[1])
            for component, entry in parts.items()
            if isinstance(entry, list) and len(entry) == 2 and entry[1]
        }
        found = [(component, name) for component, name in entries.items() if name in ADAPTERS]
        if not found:
            raise ValueError(
                f"{index}: none of {', '.join(entries.values())} is a network that can be converted; there are "
                + ", ".join(sorted(ADAPTERS))
            )
        if len(found) > 1:
            raise ValueError(
                f"{index}: {' and '.join(each for each, _ in found)} share the noise levels of one teacher, which is "
                "not supported: save a pipeline with one of them, and train on its noise levels alone"
            )
        return found[0]

    def _existing(self, component: str, name: str, says: str) -> Path:
        file = self.path / component / name
        if not file.is_file():
            raise ValueError(f"{file} does not exist: it describes {says}; save the pipeline again, or copy it whole")
        return file


def load_teacher(folder: Path | str, dtype: torch.dtype | None = None) -> ChangeOfVariables:
    """Returns the network of a saved pipeline as a TrigFlow backbone, frozen and in evaluation mode.

    dtype: None keeps the type of the weights, but for float16, whose range is too small for tangents: float32 is taken,
    and said. Raises ValueError as ``DiffusersFolder``, and for schedulers that are not known.
    """
    saved = DiffusersFolder(folder)
    teacher = change_of_variables(saved.load_network(dtype), saved.scheduler)
    return teacher.eval().requires_grad_(False)


def _without_private(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration without the keys that name its version and where it came from."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _dtype_of(folder: Path) -> torch.dtype:
    """Returns the type of the first weight; ValueError for a folder without safetensors files."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has no .safetensors file: weights are read from safetensors alone")
    with safe_open(files[0], "pt") as opened:
        first = next(iter(opened.keys()))
        found: torch.dtype = opened.get_tensor(first).dtype
    return found

"""A folder that a pipeline of diffusers was saved to: its network, scheduler and autoencoder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scm_media import weights
from scm_media.adapters.adapter import ADAPTERS
from scm_media.adapters.autoencoder_loading import describe_autoencoder, find_autoencoder, read_autoencoder
from scm_media.adapters.autoencoders import DiffusersAutoencoder, UnchangedSamples
from scm_media.adapters.loading import INDEX, read_index, read_network
from scm_media.adapters.schedulers import EDMS, change_of_variables, predicts_noise
from scm_media.change_of_variables import ChangeOfVariables
from scm_media.reading import read_json

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
        config = read_json(self._existing(self.component, "config.json", "the network"))
        self.config = _defaults(self.network) | _without_private(config)
        scheduler = self._existing("scheduler", "scheduler_config.json", "what the network predicts")
        self.scheduler: Mapping[str, Any] = read_json(scheduler)

    def has(self, name: str) -> bool:
        """Returns whether the folder holds a network by this name: teacher or autoencoder."""
        return name in ("teacher", "autoencoder")

    def file(self, name: str) -> Path:
        """Returns the folder of a network's files."""
        found = find_autoencoder(self.path) if name == "autoencoder" else (self.component, self.network)
        return self.path if found is None else self.path / found[0]

    def read(self, name: str) -> weights.Component:
        """Returns the weights of teacher or autoencoder, with the configuration that builds it.

        float16 weights become float32, because tangents leave float16's range; this is said.
        """
        if name == "autoencoder":
            return read_autoencoder(self.path)
        network = read_network(self.path / self.component, self.network)
        state = {PREFIX + key: tensor for key, tensor in network.state_dict().items()}
        return weights.Component(state, self.backbone(), {"source": self.path.name})

    def backbone(self) -> dict[str, Any]:
        """Returns the configuration of the backbone, without what follows from data."""
        return {
            "_target_": "scm_media.adapters.backbone.diffusers_backbone",
            "network": self.network,
            "config": self.config,
            "scheduler": _without_private(self.scheduler) | {"_class_name": self.scheduler.get("_class_name")},
        }

    def autoencoder(self) -> dict[str, Any]:
        """Returns the configuration of the autoencoder."""
        return describe_autoencoder(self.path)

    @property
    def num_classes(self) -> int:
        """Returns the number of classes that the network has embeddings for; 0 for a network without labels."""
        return ADAPTERS[self.network].inputs(self.config).get("label", 0)

    @property
    def sigma_data(self) -> float:
        """Returns the standard deviation of latents, as the scheduler knows them."""
        return float(self.scheduler.get("sigma_data", 0.5)) if self.scheduler.get("_class_name") in EDMS else 1.0

    @property
    def predicts_noise(self) -> bool:
        """Returns whether the network predicts noise, whose errors x0 magnifies where there is much noise."""
        return predicts_noise(self.scheduler)

    def latent_shape(self) -> tuple[int, ...]:
        """Returns the shape ``(c, *s)`` of latents that the network was made for."""
        return ADAPTERS[self.network].latent_shape(self.config)

    def sample_shape(self) -> tuple[int, ...]:
        """Returns the shape ``(C, *S)`` of samples that the network was made for."""
        described = self.autoencoder()
        if "network" not in described:
            return tuple(UnchangedSamples().sample_shape(self.latent_shape()))
        with torch.device("meta"):
            autoencoder = DiffusersAutoencoder(described["network"], described["config"])
        return autoencoder.sample_shape(self.latent_shape())

    def sample_rate(self) -> int | None:
        """Returns the rate in Hz of an autoencoder of sounds; None for any other."""
        rate: int | None = self.autoencoder().get("config", {}).get("sampling_rate")
        return rate

    def _find_network(self) -> tuple[str, str]:
        entries, index = read_index(self.path), self.path / INDEX
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
    network = read_network(saved.path / saved.component, saved.network, dtype)
    return change_of_variables(network, saved.scheduler).eval().requires_grad_(False)


def _defaults(network: str) -> dict[str, Any]:
    """Returns the defaults of a network class, which its ``config.json`` may leave out."""
    import diffusers

    parameters = inspect.signature(getattr(diffusers, network).__init__).parameters.values()
    return {each.name: _plain(each.default) for each in parameters if each.default is not each.empty}


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _without_private(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration without the keys that name its version and where it came from."""
    return {key: value for key, value in config.items() if not key.startswith("_")}

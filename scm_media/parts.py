"""The register of parts: the classes that a configuration may name, each with its role.

A configuration may come from a stranger, so a name in it is built only when it is registered here, and only where a
part of its role is expected. A class registers itself by a decorator, so that a new one touches no other file::

    @part("backbone")
    class MyNetwork(nn.Module): ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from scm_media.bounds import (
    BELOW_ONE,
    COUNT,
    FRACTION,
    LAYERS,
    MANY,
    NOT_NEGATIVE,
    NUMBER_OF_STEPS,
    POSITIVE,
    SAMPLES,
    SEED,
    Bounds,
)
from scm_media.typed import Words

ROLES: Mapping[str, str] = {
    "flow": "a flow",
    "timesteps": "a distribution of training times",
    "modality": "a modality",
    "data": "a data set",
    "autoencoder": "an autoencoder",
    "backbone": "a backbone",
    "feature_extractor": "a feature extractor",
    "loss": "a loss",
    "distance": "a distance between samples and reconstructions",
    "critic": "a discriminator of reconstructions",
    "label_function": "a function that gives labels",
    "optimizer": "an optimiser",
    "logger": "a logger",
}
"""Each role and its name in error messages."""

FOREIGN: Mapping[str, str] = {
    **{f"torch.optim.{name}": "optimizer" for name in ("RAdam", "Adam", "AdamW", "SGD")},
    **{f"torchao.optim.{name}": "optimizer" for name in ("Adam8bit", "AdamW8bit")},
    **{f"lightning_fabric.loggers.{name}": "logger" for name in ("TensorBoardLogger", "CSVLogger")},
}
"""Classes of other packages that a configuration may name, each with its role; another spelling is refused."""

FORMER: Mapping[str, str] = {
    name.replace("lightning_fabric", "lightning.fabric"): name for name, role in FOREIGN.items() if role == "logger"
}
"""Former names of parts, each with the name that it has today."""

PATH = Words("a path")

PARAMETERS: Mapping[str, tuple[Any, ...]] = {
    # optimisers
    "lr": (Bounds(0, 1000), "learning rate"),
    "betas": (BELOW_ONE, "decay of the running averages of the gradient and of its square"),
    "momentum": (BELOW_ONE, "momentum"),
    "eps": (NOT_NEGATIVE, "number added to the denominator"),
    "weight_decay": (NOT_NEGATIVE, "weight decay"),
    # losses
    "label_dropout": (FRACTION, "probability that a sample loses its labels in training"),
    "tangent_warmup": (Bounds(0, MANY, unit="steps"), "steps until the tangent's second term counts in full (r = 1)"),
    "tangent_method": ("how the tangent dF/dt is computed",),
    "norm": ("norm that the tangent is divided by",),
    "norm_constant": (NOT_NEGATIVE, "constant added to the norm that the tangent is divided by"),
    "guidance_max": (POSITIVE, "largest guidance scale that a student takes as an input; null: it takes none"),
    "weight": ("weighting of the noise levels",),
    "mean": (Bounds(), "mean of log(sigma_data tan t)"),
    "std": (POSITIVE, "standard deviation of log(sigma_data tan t)"),
    "adversarial_start": (NUMBER_OF_STEPS, "step from which the discriminator trains the autoencoder"),
    "sigma_data": (POSITIVE, "standard deviation of the latents"),
    # networks
    "width": (LAYERS, "channels of a layer"),
    "depth": (Bounds(0, LAYERS.high, whole=True), "number of blocks"),
    "num_heads": (LAYERS, "attention heads"),
    "mlp_ratio": (LAYERS, "width of the hidden layer of a block's MLP, as a multiple of its width"),
    "patch": (LAYERS, "values of the latent along each axis that one token stands for"),
    "in_channels": (LAYERS, "channels of the latent; null: training fills it in"),
    "labels": ("the labels: of a data set, which ones; of a network, their numbers of classes (null: the data's)",),
    "label_units": ("standard deviation of each label that is a number; null: training fills it in",),
    "num_cond_channels": ("channels that are concatenated to the latent",),
    "guidance": ("true: the guidance scale is an input of the network",),
    "text": ("widths of the text embeddings that the network takes, tokens and pooled; null: it takes no text",),
    "dropout": (BELOW_ONE, "dropout probability"),
    "rank": ("number of axes of the latent, without batch and channels",),
    "channels": ("channels of a sample",),
    "latent_channels": ("channels of a latent",),
    "weights": (PATH, "file of pretrained weights"),
    "image_weights": (PATH, "weights of an image autoencoder that training starts from"),
    # data and modalities
    "root": (PATH, "folder of the files"),
    "path": (PATH, "file of the list"),
    "shards": (PATH, "tar files, or a list of them"),
    "index": (PATH, "folder that keeps the index of the tar files"),
    "root_dir": (PATH, "folder of the logs; training fills it in"),
    "num": (COUNT, "number of examples"),
    "seed": (SEED, "seed of what is generated"),
    "batch_size": (COUNT, "samples of a batch"),
    "num_samples": (SAMPLES, "number of samples"),
    "held_out": (Bounds(0, 1, open_low=True, open_high=True), "fraction of the examples that is held out"),
    "verify": ("true: every file is opened before training, unless it was usable before and has not changed",),
    "measures": ("labels that the modality measures from the sample, such as seconds",),
    "size": (Bounds(1, 1 << 16, whole=True), "size of a picture in pixels, or the name of a network's size"),
    "num_frames": (Bounds(1, 1 << 20, whole=True, unit="frames"), "frames of a sample"),
    "frame_rate": (Bounds(0, open_low=True, unit="frames/s"), "frame rate of samples; null: each file's own"),
    "folder_rate": (Bounds(0, open_low=True, unit="frames/s"), "frame rate of folders of pictures; null: frame_rate"),
    "sample_rate": (Bounds(1, 10_000_000, unit="Hz"), "sampling rate; files of other rates are resampled"),
    "duration": (Bounds(0, open_low=True, unit="s"), "length of a sample"),
    "window": (replace(COUNT, unit="samples"), "length of the Fourier transform's window"),
    "hop": (replace(COUNT, unit="samples"), "distance from one frame of a spectrogram to the next"),
    "num_mels": (COUNT, "bands of a mel spectrogram"),
    "lowest": (Bounds(0, unit="Hz"), "lower end of the mel bands"),
    "highest": (Bounds(0, open_low=True, unit="Hz"), "upper end of the mel bands; null: half the sampling rate"),
    "level": ("level that sounds are normalised to, in dBFS (peak) or LUFS (loudness)",),
    "padding": ("how a sample that is too short is filled",),
    "random_crop": ("true: training crops at random; otherwise the crop is central",),
    "flip": ("true: training flips samples left to right at random",),
    "probability": (FRACTION, "probability"),
    "num_workers": (Bounds(0, 1024, whole=True), "processes that load data"),
}
"""Names of parameters to their bounds or kind, and a description where the part's own docstring has none.

They hold for parameters of these names in every part, so that classes of other packages (optimisers) and of users have
bounds too; texts, null, true and false are not compared with bounds.
"""

Part = TypeVar("Part", bound=Callable[..., Any])


@dataclass(frozen=True)
class Registration:
    """The role of a part, and the role of each of its parameters that is a part itself."""

    role: str
    inner: Mapping[str, str] = field(default_factory=dict)


_registered: dict[Callable[..., Any], Registration] = {}


def part(role: str, **inner: str) -> Callable[[Part], Part]:
    """Returns a decorator that registers a class or a function as a part of this role.

    inner: the role of each parameter that is a part itself (``part("loss", timesteps="timesteps")``).
    Raises ValueError for an unknown role.
    """
    for name in (role, *inner.values()):
        if name not in ROLES:
            raise ValueError(f"there is no role {name!r} of a part; the roles are {', '.join(ROLES)}")

    def register(made: Part) -> Part:
        _registered[made] = Registration(role, inner)
        return made

    return register


def registration(made: Callable[..., Any]) -> Registration | None:
    """Returns the registration of a class or a function; None if it was not registered."""
    return _registered.get(made)

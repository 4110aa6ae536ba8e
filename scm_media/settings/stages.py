"""The settings of the networks that a recipe trains: feature extractor, autoencoder, teacher, guide and student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from scm_media.bounds import COUNT, FRACTION, NUMBER_OF_STEPS, SAMPLES, SAMPLING_STEPS, Bounds
from scm_media.build import PartOf
from scm_media.lora_settings import LoRA
from scm_media.settings.sampling import SamplerName

Section = Mapping[str, Any]
"""The configuration of a part: ``_target_`` names its class or function, the other keys are the arguments."""

Precision = Literal["32-true", "bf16-mixed"]

MaxSteps = Annotated[int, NUMBER_OF_STEPS, "length of the training"]
BatchSize = Annotated[int, SAMPLES, "samples of one step, on all devices together"]
WarmupSteps = Annotated[int, NUMBER_OF_STEPS, "steps over which the learning rate rises from 0"]
Decay = Annotated[
    Literal["constant", "cosine", "inverse_sqrt"],
    "how the learning rate falls: not at all, along a cosine to zero, or as 1/√step after decay_steps",
]
DecaySteps = Annotated[int | None, NUMBER_OF_STEPS, "steps after which inverse_sqrt falls; other decays ignore it"]
EmaStd = Annotated[
    float,
    Bounds(0, 12**-0.5, open_low=True),
    "standard deviation of the power-function EMA, as a fraction of the training",
]
Patience = Annotated[
    int | None,
    COUNT,
    "validations in a row without a lower held-out loss after which the stage ends; the averages of the best one are "
    "kept; null: it never ends early",
]
Optimizer = Annotated[Section, PartOf("optimizer"), "optimiser (group /optimizer)"]
Loss = Annotated[Section, PartOf("loss"), "loss (group /loss)"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """The settings that the training of every network has."""

    max_steps: MaxSteps
    batch_size: BatchSize
    warmup_steps: WarmupSteps
    decay: Decay
    decay_steps: DecaySteps
    ema_std: EmaStd
    patience: Patience = None


@dataclass(frozen=True, kw_only=True)
class Teacher(Training):
    """The settings of the diffusion model."""

    max_steps: MaxSteps = 8000
    batch_size: BatchSize = 128
    warmup_steps: WarmupSteps = 500
    decay: Decay = "cosine"
    decay_steps: DecaySteps = None
    ema_std: EmaStd = 0.05
    optimizer: Optimizer = field(default_factory=dict)
    loss: Loss = field(default_factory=dict)


SAME_AS_TEACHER: Any = "the teacher's"
"""The default of the guide's settings: ``stage_settings`` takes the teacher's value."""


@dataclass(frozen=True, kw_only=True)
class Guide(Training):
    """The settings of the autoguidance model: a weaker network that the teacher is steered away from."""

    may_omit_defaults: ClassVar = True
    backbone: Annotated[Section, PartOf("backbone"), "keys of the backbone in which the guide differs"]
    batch_size: BatchSize = SAME_AS_TEACHER
    warmup_steps: WarmupSteps = SAME_AS_TEACHER
    decay: Decay = SAME_AS_TEACHER
    decay_steps: DecaySteps = SAME_AS_TEACHER
    ema_std: EmaStd = SAME_AS_TEACHER
    patience: Patience = SAME_AS_TEACHER
    optimizer: Optimizer = SAME_AS_TEACHER
    loss: Loss = SAME_AS_TEACHER


@dataclass(frozen=True, kw_only=True)
class Student(Teacher):
    """The settings of the consistency model."""

    objective: Annotated[Literal["scd", "sct"], "scd: distilled from the teacher; sct: trained from data"] = "scd"
    backbone: Annotated[Section, PartOf("backbone"), "keys of the backbone in which the student differs"] = field(
        default_factory=dict
    )
    lora: Annotated[
        LoRA | None, "the student is a LoRA over the teacher's weights, which it shares (docs/teachers.md); null: no"
    ] = None
    generated: Annotated[
        float, FRACTION, "fraction of the latents that are ends of the teacher's trajectories instead of data"
    ] = 0
    max_steps: MaxSteps = 4000
    warmup_steps: WarmupSteps = 0
    decay: Decay = "constant"


@dataclass(frozen=True, kw_only=True)
class Text:
    """The settings of texts that networks are given: captions of the data, and templates over their labels."""

    may_omit_defaults: ClassVar = True
    encoder: Annotated[str, "text encoder: a folder, an installed package, or a name on the hub (docs/text.md)"]
    max_tokens: Annotated[int, Bounds(1, 4096, whole=True), "tokens of a text at most; longer ones are cut"] = 24
    inputs: Annotated[
        Sequence[Literal["tokens", "pooled"]], "what networks are given: token embeddings, a vector of the whole text"
    ] = ("tokens", "pooled")
    labels: Annotated[Sequence[str] | None, "labels that networks are given beside the text; null: all"] = ()
    templates: Annotated[Sequence[str], "texts with names of labels and fields in braces"] = ()
    per_example: Annotated[int, COUNT, "texts of an example at most, captions first"] = 8
    missing: Annotated[
        Literal["leave_out", "unconditional"], "examples without text: left out, or taken as examples of no text"
    ] = "leave_out"
    dtype: Annotated[Literal["float16", "float32"], "type of the kept embeddings"] = "float16"


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """The settings of the teacher's trajectories, which students may be trained on (docs/distillation.md)."""

    may_omit_defaults: ClassVar = True
    num: Annotated[int, COUNT, "trajectories"]
    steps: Annotated[int, SAMPLING_STEPS, "steps of a trajectory"] = 16
    sampler: Annotated[str, SamplerName(), "sampler that solves them: heun, dpm_solver, or a plugin's"] = "dpm_solver"
    dtype: Annotated[Literal["float16", "float32"], "type of the stored numbers"] = "float16"
    shard_size: Annotated[int, COUNT, "trajectories of one file"] = 1024
    batch_size: Annotated[int, SAMPLES, "trajectories that are solved at once"] = 128


@dataclass(frozen=True, kw_only=True)
class WarmStart(Teacher):
    """The settings of a regression on trajectories that the student starts from."""

    may_omit_defaults: ClassVar = True
    optimizer: Optimizer = field(
        default_factory=lambda: {"_target_": "torch.optim.Adam", "lr": 5e-4, "betas": [0.9, 0.99]}
    )
    loss: Loss = field(default_factory=lambda: {"_target_": "scm_media.losses.RegressionLoss"})
    max_steps: MaxSteps = 4000
    batch_size: BatchSize = 64
    warmup_steps: WarmupSteps = 100
    patience: Patience = 5


@dataclass(frozen=True, kw_only=True)
class FeatureExtractor(Training):
    """The settings of the classifier of the data's labels in whose features samples are compared."""

    may_omit_defaults: ClassVar = True
    network: Annotated[Section, PartOf("feature_extractor"), "the classifier"]
    optimizer: Optimizer
    warmup_steps: WarmupSteps = 0
    decay: Decay = "cosine"
    decay_steps: DecaySteps = None
    ema_std: EmaStd = 0.05


@dataclass(frozen=True, kw_only=True)
class Autoencoder:
    """The settings of an autoencoder that is not trained: only the scale of its latents is measured."""

    may_omit_defaults: ClassVar = True
    network: Annotated[Section, PartOf("autoencoder"), "the autoencoder"]
    num_samples: Annotated[int | None, SAMPLES, "samples that latents are measured on; null: all training data"] = None


@dataclass(frozen=True, kw_only=True)
class TrainedAutoencoder(Autoencoder, Training):
    """The settings of an autoencoder that the stage ``autoencoder`` trains."""

    precision: Annotated[Precision | None, "precision of this stage; null: the recipe's"]
    loss: Loss
    optimizer: Optimizer

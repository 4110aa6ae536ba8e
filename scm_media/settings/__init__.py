"""The settings of a recipe: each key with its type, unit, bounds, default and description.

Recipes are validated by these dataclasses (``check``), and Hydra composes them from their defaults;
``scm-media recipes NAME --keys`` and docs/recipe-keys.md are printed from them. Parts, which a recipe describes by a
``_target_``, are validated by the signature of what they name.

Keys with a default may be omitted in sections whose attribute ``may_omit_defaults`` is true. The other sections must be
complete: each recipe inherits them from the configuration ``base``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from scm_media.bounds import COUNT, EVERY, NUMBER_OF_STEPS, POSITIVE, SAMPLES, SEED, Bounds
from scm_media.build import TARGET, PartOf
from scm_media.display import printable
from scm_media.settings.sampling import Sampler
from scm_media.settings.stages import (
    Autoencoder,
    FeatureExtractor,
    Guide,
    Precision,
    Section,
    Student,
    Teacher,
    Text,
    TrainedAutoencoder,
    Trajectories,
    WarmStart,
)
from scm_media.typed import Words, is_required, problem, show

FEW = Bounds(1, 1 << 20, whole=True)
HOURS = replace(POSITIVE, unit="hours")
NAME = Words("a path or a name")


class RecipeName:
    """The constraint of a recipe's name, which is part of the run's folder."""

    def problem(self, value: Any, key: str) -> str | None:
        """Returns in a sentence what is wrong with the name; None if nothing is."""
        if value.strip() and printable(value) == value and not {"", ".", ".."} & set(value.split("/")):
            return None
        return (
            f"{key} must be a name, or names between slashes, without control characters, got {show(value)}; "
            "pass recipe=NAME"
        )


@dataclass(frozen=True)
class About:
    """The data, as the model card describes them."""

    data: Annotated[str | None, "what the data are, and whose"] = None
    licence: Annotated[str | None, "licence of the data"] = None


class Masked:
    """The constraint of the settings of given parts."""

    def problem(self, value: Any, key: str) -> str | None:
        """Returns in a sentence what is wrong with the settings; None if nothing is."""
        from scm_media.masks import MaskSampler  # imports torch, which printing and copying recipes does without

        try:
            MaskSampler(**value)
        except ValueError as error:
            return f"{key}: {error}"
        return None


@dataclass(frozen=True)
class Mask:
    """Parts of a sample that the networks are given in training, so that a model continues, animates and inpaints."""

    may_omit_defaults: ClassVar = True
    probability: Annotated[float, Bounds(0, 1, open_low=True), "probability that a sample has a given part"] = 0.5
    types: Annotated[Sequence[str], "which parts are given: start, end, both, first, box"] = ("start",)
    axis: Annotated[int, "axis of the latent along which a part is given, counted from the end"] = -1
    fraction: Annotated[Sequence[float], "least and largest fraction of the sample that is given"] = (
        0.1,
        0.9,
    )


@dataclass(frozen=True)
class Conditioning:
    """The inputs of the networks beside labels."""

    mask: Annotated[Mask | None, Masked(), "given parts; null: none (docs/editing.md)"] = None


@dataclass(frozen=True)
class Latents:
    """The latents that are written to <run_dir>/latents once, and that training reads from there."""

    dtype: Annotated[Literal["float16", "float32"], "type of the stored numbers"] = "float16"
    variants: Annotated[int, COUNT, "latents of each example; more than one where the modality augments"] = 1
    shard_size: Annotated[int, replace(COUNT, unit="examples"), "examples of one file"] = 4096
    batch_size: Annotated[int, SAMPLES, "samples that are encoded at once"] = 64
    automatic: Annotated[bool, "true: train writes them when the autoencoder is trained, as scm-media encode does"] = (
        False
    )


@dataclass(frozen=True)
class Trainer:
    """The training loop: when it reports, saves and gives up."""

    log_every: Annotated[int, EVERY, "steps from report to report"] = 20
    checkpoint_every: Annotated[int, EVERY, "steps from checkpoint to checkpoint"] = 500
    sample_every: Annotated[int, EVERY, "steps from preview to preview"] = 500
    validate_every: Annotated[int, EVERY, "steps from validation to validation"] = 500
    keep_checkpoints: Annotated[int, COUNT, "checkpoints that are kept"] = 2
    num_workers: Annotated[int, Bounds(0, 1024, whole=True), "processes that load data; 0: the training itself"] = 0
    compile: Annotated[bool, "true: networks are compiled, which needs a C++ compiler and pays off in long runs"] = (
        False
    )
    gradient_checkpointing: Annotated[
        bool, "true: blocks compute their activations again in the backward pass, for less memory and a third more time"
    ] = False
    teacher_dtype: Annotated[
        Literal["float32", "bfloat16"],
        "type of the weights of a teacher of diffusers while students learn from it, and of what a LoRA shares with it",
    ] = "float32"
    gradient_clip: Annotated[
        float | None, POSITIVE, "largest norm of the gradient; null: gradients are not clipped"
    ] = 1.0
    accumulate: Annotated[int, FEW, "backward passes of one step"] = 1
    max_nonfinite_steps: Annotated[
        int, NUMBER_OF_STEPS, "steps in a row without a finite loss after which a run stops"
    ] = 20
    num_preview_samples: Annotated[int, replace(FEW, unit="samples"), "samples of a preview"] = 16
    sample_early: Annotated[
        Sequence[int], NUMBER_OF_STEPS, "steps with a preview besides; a student that diverges does so early"
    ] = (50, 100, 200)
    snapshot_every: Annotated[
        int, NUMBER_OF_STEPS, "steps from one snapshot of two averages to the next, for evaluate --search-ema; 0: none"
    ] = 250
    keep_snapshots: Annotated[
        int, COUNT, "snapshots that are kept; their spacing doubles as the training goes on, so that they span it"
    ] = 16


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe: the data, the networks, their training, and how the model samples."""

    recipe: Annotated[str, NAME, RecipeName(), "name of the recipe; a file is called by its file name"] = "???"
    run_dir: Annotated[str, NAME, "folder of the run; the same command goes on where it stopped"] = (
        "runs/${recipe}/main"
    )
    seed: Annotated[int, SEED, "seed of weights, noise and the order of the data"] = 0
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], "where training runs"] = "auto"
    precision: Annotated[Precision, "Lightning Fabric's precision; weights are float32 in both"] = "32-true"
    num_devices: Annotated[int, FEW, "devices of each node"] = 1
    num_nodes: Annotated[int, FEW, "machines"] = 1
    strategy: Annotated[
        Literal["auto", "ddp", "fsdp"],
        "how several devices train: ddp: each holds all weights; fsdp: each holds a part of them (FSDP2)",
    ] = "auto"
    context_parallel: Annotated[
        int, FEW, "devices that share the tokens of each sample, for long sequences; needs strategy=fsdp"
    ] = 1
    stage: Annotated[
        Literal["all", "feature_extractor", "autoencoder", "teacher", "guide", "trajectories", "warm_start", "student"],
        "stage that is trained",
    ] = "all"
    hours: Annotated[
        float | None,
        HOURS,
        "time that training and the evaluation after it are meant to fit into, of which train warns before it starts; "
        "null: any",
    ] = None
    num_evaluated: Annotated[
        int,
        replace(COUNT, low=0, unit="samples"),
        "samples of the evaluation that hours counts, and that train names at its end; 0: none is counted",
    ] = 1000
    init_from: Annotated[
        str | None,
        NAME,
        "run folder, model folder or bundled model whose weights training starts from; a student only without a "
        "warm start",
    ] = None
    teacher_from: Annotated[
        str | None,
        NAME,
        "model folder, bundled model, or folder of a pipeline of diffusers (hf://org/name for either on the hub): its "
        "teacher and autoencoder are used as they are, and flow, backbone and autoencoder follow from it",
    ] = None
    about: Annotated[About, "the data, for the model card"] = field(default_factory=About)
    flow: Annotated[Section, PartOf("flow"), "the path from data to noise"] = field(
        default_factory=lambda: {"_target_": "scm_media.trigflow.TrigFlow", "sigma_data": 0.5}
    )
    modality: Annotated[Section, PartOf("modality"), "how files are read and written (group /modality)"]
    data: Annotated[Section, PartOf("data"), "the data (group /data)"]
    autoencoder: Annotated[Autoencoder | TrainedAutoencoder, "samples to latents and back (group /autoencoder)"]
    backbone: Annotated[Section, PartOf("backbone"), "the network F(u, t, cond) (group /backbone)"]
    text: Annotated[Text | None, "texts that networks are given (group /text); null: none"] = None
    feature_extractor: Annotated[FeatureExtractor | None, "the network that figures are measured in; null: none"] = None
    conditioning: Annotated[Conditioning, "what networks are given beside labels"] = field(default_factory=Conditioning)
    teacher: Annotated[Teacher, "the diffusion model"] = field(default_factory=Teacher)
    guide: Annotated[Guide | None, "the autoguidance model; null: none"] = None
    trajectories: Annotated[Trajectories | None, "the teacher's trajectories; null: none"] = None
    warm_start: Annotated[WarmStart | None, "a regression that the student starts from; null: none"] = None
    student: Annotated[Student, "the consistency model"] = field(default_factory=Student)
    latents: Annotated[Latents, "stored latents"] = field(default_factory=Latents)
    sampler: Annotated[Sampler, "how a trained model samples"] = field(default_factory=Sampler)
    trainer: Annotated[Trainer, "the training loop"] = field(default_factory=Trainer)
    logger: Annotated[Section | None, PartOf("logger"), "logger beside metrics.jsonl (/logger); null: none"] = field(
        default_factory=dict
    )


def check(config: Mapping[str, Any]) -> None:
    """Raises ValueError, in one line that names the key, for a configuration that is no valid recipe."""
    if (found := problem(config, Recipe, "") or _backbone_problem(config)) is not None:
        raise ValueError(found)


def _backbone_problem(config: Mapping[str, Any]) -> str | None:
    """Returns what is wrong with the keys in which the student's or the guide's backbone differs."""
    target = config["backbone"].get(TARGET)
    for stage in ("student", "guide"):
        own = {} if config[stage] is None else config[stage]["backbone"]
        if found := PartOf("backbone").problem({TARGET: target, **own}, f"{stage}.backbone"):
            return found
    return None


def default_values(section: Any) -> dict[str, Any]:
    """Returns the plain values of a section's keys that have a default."""
    found: dict[str, Any] = {}
    for key in fields(section):
        if not is_required(key):
            value = key.default_factory() if key.default_factory is not MISSING else key.default
            plain = list(value) if isinstance(value, tuple) else value
            found[key.name] = default_values(type(value)) if is_dataclass(value) else plain
    return found

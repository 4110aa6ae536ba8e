"""The stage ``autoencoder``: one with parameters is trained; then the standard deviation of latents is measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scm_media import weights
from scm_media.build import build
from scm_media.data import Batch, Dataset, batches
from scm_media.reconstruction import psnr
from scm_media.training import checkpoints
from scm_media.training.context import Context
from scm_media.training.early_stopping import has_ended
from scm_media.training.fingerprint import full_fingerprint, uses_features
from scm_media.training.optimization import Finish, Task
from scm_media.training.previews import save_sheet

BATCH_SIZE = 256
"""The batch size of an autoencoder that is not trained; others have their own."""
NUM_PREPARED = 4096
"""The number of training samples that ``prepare`` of a network is given before it is trained."""
NUM_PREVIEWED = 512
"""The number of held-out samples that figures are measured on during training; all of them are used at its end."""


def is_trained(context: Context) -> bool:
    """Returns whether the stage trains: the network has parameters, and fine-tuning does not bring their values.

    Raises ValueError where ``autoencoder.max_steps`` is given without parameters to train, or missing with them.
    """
    config, has_parameters = context.config["autoencoder"], context.trains_autoencoder
    name = config["network"].get("_target_", "")
    if has_parameters and "max_steps" not in config:
        raise ValueError(f"autoencoder.max_steps is missing: {name} has to be trained; see configs/autoencoder/kl.yaml")
    if not has_parameters and "max_steps" in config:
        raise ValueError(f"autoencoder.max_steps is {config['max_steps']}, but {name} has nothing to train: remove it")
    return has_parameters and not (context.start is not None and context.start.has("autoencoder"))


def fit_autoencoder(context: Context) -> None:
    """Writes the weights of an autoencoder that is not trained, unless they are there already.

    Fine-tuning takes over the other model's autoencoder, because its backbones were trained on those latents; any other
    autoencoder is fitted to training samples.
    """
    file = context.weights_file("autoencoder")
    if file.exists():
        return
    config = context.config["autoencoder"]
    network = build(config["network"], "autoencoder")
    if context.start is not None and context.start.has("autoencoder"):
        context.load_start(network, "autoencoder")
        source = f"weights of {context.start.path}"
    else:
        network.fit(fitting_samples(context))
        source = f"statistics of {config['num_samples']} samples"
    weights.save(file, network.state_dict(), config["network"], {"num_samples": config["num_samples"]})
    print(f"autoencoder: {source} in {file}", file=sys.stderr)


def autoencoder_task(context: Context) -> Task:
    """Returns the training of an autoencoder, whose loss may compare features of the recipe's feature extractor.

    A network with a method ``prepare(samples)`` first measures the scale of its input on training samples, in batches
    ``(B, C, *S)``.
    """
    settings = dict(context.config["autoencoder"])
    network = build(settings["network"], "autoencoder")
    if hasattr(network, "prepare") and not checkpoints.steps(context.run_dir / "autoencoder" / "checkpoints"):
        network.prepare(_samples(context, context.data, min(NUM_PREPARED, len(context.data))))
    has_features = uses_features(context.config) and context.config["feature_extractor"] is not None
    feature_extractor = context.load_trained("feature_extractor") if has_features else None
    _check_not_in_use(context)
    loss = build(settings["loss"], "loss", network=network, feature_extractor=feature_extractor)
    return Task(
        name="autoencoder",
        loss=loss,
        model=network,
        settings=settings,
        inputs=_SampleInputs(feature_extractor),
        finish=_finish(context, feature_extractor),
        preview=ReconstructionPreview(context, feature_extractor),
        separate_clip=[] if loss.discriminator is None else [loss.discriminator],
        training_fingerprint=full_fingerprint(context, "autoencoder"),
        precision=settings["precision"],
    )


class _SampleInputs:
    """Maps batches to samples; the frozen feature extractor follows the batch's device."""

    def __init__(self, feature_extractor: nn.Module | None) -> None:
        self.feature_extractor = feature_extractor

    def __call__(self, batch: Batch) -> tuple[Any, ...]:
        if self.feature_extractor is not None:
            self.feature_extractor.to(batch.sample.device)
        return (batch.sample,)


def _check_not_in_use(context: Context) -> None:
    """Raises ValueError where more steps would change the latents that a backbone of this run was trained on."""
    found = checkpoints.steps(context.run_dir / "autoencoder" / "checkpoints")
    reached, max_steps = max(found, default=0), context.config["autoencoder"]["max_steps"]
    file = context.weights_file("autoencoder")
    if file.exists() and has_ended(weights.read_info(file), context.config["autoencoder"]):
        return
    for stage in ("teacher", "guide", "student"):
        if reached < max_steps and checkpoints.steps(context.run_dir / stage / "checkpoints"):
            raise ValueError(
                f"{context.run_dir / stage} was trained on latents of the autoencoder at step {reached}; training that "
                f"to autoencoder.max_steps {max_steps} changes them: use another run_dir, or max_steps={reached}"
            )


def fitting_samples(context: Context) -> Iterator[Tensor]:
    """Yields ``autoencoder.num_samples`` training samples (None: all)."""
    num = context.config["autoencoder"]["num_samples"]
    return _samples(context, context.data, len(context.data) if num is None else num)


def _samples(context: Context, data: Dataset, num: int) -> Iterator[Tensor]:
    """Yields ``num`` samples in the order of the recipe's seed, in batches no larger than a step's."""
    config = context.config
    size = min(config["autoencoder"].get("batch_size", BATCH_SIZE), num)
    workers = config["trainer"]["num_workers"]
    for batch in batches(data, size, 0, -(-num // size), config["seed"], num_workers=workers):
        yield batch.sample[:num]
        num -= len(batch.sample)


def measure(network: Any, feature_extractor: Any, samples: Iterable[Tensor]) -> dict[str, float]:
    """Measures reconstructions of samples, in batches ``(B, C, *S)``, from the mean of their posterior.

    Returns psnr, in dB, the mean over samples; with a feature extractor also feature_distance, the squared distance
    between the features of samples and reconstructions as a fraction of the variance of the samples' features.
    """
    device = next(network.parameters()).device
    ratios, errors, features = [], [], []
    with torch.no_grad():
        for sample in samples:
            sample = sample.to(device)
            made = network.synthesize(network.posterior(sample)[0]).float().clamp(-1, 1)
            ratios.append(psnr(sample, made).cpu())
            if feature_extractor is not None:
                features.append(feature_extractor.to(device).features(sample).float().cpu())
                errors.append((feature_extractor.features(made).float().cpu() - features[-1]).square().sum(1))
    figures = {"psnr": torch.cat(ratios).mean().item()}
    if feature_extractor is not None:
        variance = torch.cat(features).var(0, correction=0).sum().clamp(min=1e-12)
        figures["feature_distance"] = (torch.cat(errors).mean() / variance).item()
    return figures


class ReconstructionPreview:
    """Draws held-out samples above their reconstructions, and measures the reconstructions."""

    def __init__(self, context: Context, feature_extractor: nn.Module | None) -> None:
        self.context, self.feature_extractor = context, feature_extractor
        held_out = context.held_out
        num = min(context.config["trainer"]["num_preview_samples"], len(held_out))
        self.truth = next(batches(held_out, num, 0, 1, context.config["seed"])).sample

    def __call__(self, model: Any, step: int, folder: Path | None) -> dict[str, float]:
        """Writes ``step-N.png`` into the folder, if one is given; returns figures by name."""
        truth = self.truth.to(next(model.parameters()).device)
        made = model.synthesize(model.posterior(truth)[0]).float().clamp(-1, 1)
        num = len(truth)
        captions = ["original", *[""] * (num - 1), "reconstruction", *[""] * (num - 1)]
        if folder is not None:
            path = folder / f"step-{step}.png"
            save_sheet(self.context.modality, torch.cat([truth, made]).cpu(), captions, num, path)
        held_out = self.context.held_out
        previewed = _samples(self.context, held_out, min(NUM_PREVIEWED, len(held_out)))
        figures = measure(model, self.feature_extractor, previewed)
        return {f"held_out_average/{name}": value for name, value in figures.items()}


def _finish(context: Context, feature_extractor: nn.Module | None) -> Finish:
    """Returns a function that fits the averaged network's latents, measures reconstructions, and writes both."""
    file, config = context.weights_file("autoencoder"), context.config["autoencoder"]

    def finish(state: Mapping[str, Tensor], step: int, header: Mapping[str, int]) -> None:
        network = build(config["network"], "autoencoder")
        network.load_state_dict(state)
        if _is_written(file, network, config["network"], {**header, "step": step}):
            return
        network.to(next(iter(state.values())).device).eval()
        network.fit(fitting_samples(context))
        num = len(context.data) if config["num_samples"] is None else config["num_samples"]
        figures = measure(network, feature_extractor, _samples(context, context.held_out, len(context.held_out)))
        measured = {"step": step, "num_samples": len(context.held_out), **figures}
        weights.write_whole(file.parent / "metrics.json", (json.dumps(measured, indent=2) + "\n").encode())
        info = {"recipe": context.config["recipe"], **header, "step": step, "num_samples": num}
        weights.save(file, network.state_dict(), config["network"], info)
        found = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"autoencoder: {found} on {len(context.held_out)} held-out samples; weights in {file}", file=sys.stderr)

    return finish


def _is_written(file: Path, network: nn.Module, config: dict[str, Any], header: Mapping[str, int]) -> bool:
    """Returns whether a file holds these weights, measured; False for a damaged file, which is then written again."""
    if not file.exists():
        return False
    try:
        kept = weights.read(file)
    except ValueError:
        return False
    same = all(torch.equal(kept.state.get(name, torch.empty(0)), own.cpu()) for name, own in network.named_parameters())
    return same and kept.config == config and header.items() <= kept.info.items()

"""Conformance checks that the author of a modality, an autoencoder or a backbone runs on their own classes.

Call them from a test: each raises AssertionError that names the broken part of the contract (``scm_media.Modality``,
``scm_media.interfaces``), with what was got and what was expected.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from scm_media.conditioning import Conditioning
from scm_media.interfaces import Autoencoder
from scm_media.modality import Modality
from scm_media.nn.text import random_text
from scm_media.tangent import TangentMethod, value_and_tangent


def check_modality(
    modality: Modality, folder: Path, sample: Tensor, suffix: str | None = None, tolerance: float = 0.02
) -> None:
    """Transforms, writes, reads and shows ``sample`` ``(C, *S)``, a typical one in [-1, 1], with files in ``folder``.

    suffix: the suffix of written files, by default the first of the modality's. tolerance: the root mean square that
    writing and reading may change (lossy formats need more).
    """
    suffix = suffix or modality.written_suffixes[0]
    for entry in modality.suffixes:
        _require(entry.startswith(".") and entry == entry.lower(), f"suffixes must be like '.png', got {entry!r}")
    shape = modality.shape()
    defaults = {name: size_option.default for name, size_option in modality.size_options.items()}
    _same("shape() with every size at its default", modality.shape(**defaults), shape)

    transformed = modality.transform(sample)
    _is_sample("transform()", transformed, shape)
    _require(torch.equal(transformed, modality.transform(sample)), "transform() without a generator must not be random")
    drawn = [modality.transform(sample, torch.Generator().manual_seed(3)) for _ in range(2)]
    _require(torch.equal(*drawn), "transform() must be a function of the sample and its generator alone")

    path, marker = folder / f"written{suffix}", "conformance-7f3a"
    modality.write(path, transformed, {"recipe": marker, "seed": 7})
    _require(marker.encode() in path.read_bytes(), f"write() must put the metadata into the file: no {marker!r} in it")
    back = modality.read(path)
    _is_sample("read() of what write() wrote", back, shape)
    error = (back - transformed).square().mean().sqrt().item()
    _require(error <= tolerance, f"write() and read() change a sample by {error:.4f} rms, expected ≤ {tolerance}")

    again, padding_mask = modality.read_transformed(path, None)
    _is_sample("read_transformed()", again, shape)
    error = (again - modality.transform(back)).abs().max().item()
    _require(error <= 1e-3, f"read_transformed() and transform(read()) differ by {error:.4f}")
    if padding_mask is not None:
        _same("shape of read_transformed()'s mask", padding_mask.shape, (1, *shape[1:]))
    modality.validate(path)
    _check_edits(modality, transformed)
    counted, whole = modality.count_values(path), modality.read_whole(path).numel()
    _require(
        counted is None or counted >= whole,
        f"count_values() must be at least what read_whole() returns, {whole} values, or None; got {counted}",
    )
    broken = folder / f"broken{suffix}"
    broken.write_bytes(b"no such thing")
    for bad in (broken, folder / f"missing{suffix}"):
        _refuses(modality, bad)
    _check_statistics(modality, torch.stack([transformed / 2, back]))
    picture = modality.preview(torch.stack([transformed, back]), ["first", "second"], columns=2)
    _require(min(picture.size) > 0, f"preview() must be a picture, got one of size {picture.size}")


def _check_statistics(modality: Modality, samples: Tensor) -> None:
    """Checks that figures of single samples are those that have a unit, and that each sample has its own."""
    figures = modality.statistics(samples)
    names, units = sorted(figures), sorted(modality.statistic_units)
    _require(names == units, f"statistics() has {names}, but statistic_units has {units}")
    for name, figure in figures.items():
        _same(f"shape of statistics()[{name!r}]", tuple(figure.shape), (len(samples),))
        _require(figure.dtype == torch.float32, f"statistics()[{name!r}] must be float32, got {figure.dtype}")
        _require(not bool(figure.isinf().any()), f"statistics()[{name!r}] must be finite, or NaN for samples without")
        alone = modality.statistics(samples[1:])[name]
        _require(
            torch.allclose(alone, figure[1:], rtol=1e-3, atol=1e-3, equal_nan=True),
            f"statistics()[{name!r}] must be a sample's own, got {alone[0]:.4g} without the sample before it and "
            f"{figure[1]:.4g} with it",
        )


def _check_edits(modality: Modality, sample: Tensor) -> None:
    """Checks what edits need: the axis along which samples are continued, and how given and made parts are joined."""
    for name, size_option in modality.size_options.items():
        if size_option.axis is None:
            continue
        length, default = modality.shape()[size_option.axis], size_option.default * size_option.rate
        _require(
            abs(length - default) <= 0.1 * length,
            f"size option {name}: a sample has {length} positions along axis {size_option.axis}, but "
            f"default × rate is {default:g}",
        )
    given, made = sample[None], torch.zeros_like(sample)[None]
    for value, expected in ((1.0, given), (0.0, made)):
        blended = modality.blend(given, made, torch.full((1, 1, *sample.shape[1:]), value))
        _require(torch.equal(blended, expected), f"blend() must leave a sample alone whose mask is {value:g} all over")


def check_autoencoder(
    autoencoder: Autoencoder, sample: Tensor, sigma_data: float = 0.5, tolerance: float = 0.1
) -> None:
    """Encodes and decodes ``sample`` ``(B, C, *S)``, a few hundred typical ones in [-1, 1].

    tolerance: the root mean square error of a round trip. The latents' standard deviation may be off by a quarter.
    """
    with torch.no_grad():
        latent = autoencoder.encode(sample, torch.Generator().manual_seed(0))
        again = autoencoder.encode(sample, torch.Generator().manual_seed(0))
        decoded = autoencoder.decode(latent)
    _require(torch.equal(latent, again), "encode() must be a function of the sample and its generator alone")
    _same("latent_shape()", autoencoder.latent_shape(sample.shape[1:]), tuple(latent.shape[1:]))
    _same("sample_shape()", autoencoder.sample_shape(latent.shape[1:]), tuple(sample.shape[1:]))
    _same("shape of decode()", decoded.shape, tuple(sample.shape))
    _require(decoded.abs().max().item() <= 1, "decode() must stay within [-1, 1]")
    error = (decoded - sample).square().mean().sqrt().item()
    _require(error <= tolerance, f"a round trip changes samples by {error:.4f} rms, expected ≤ {tolerance}")
    std = latent.transpose(0, 1).flatten(1).std(1)
    far = ((std / sigma_data).log().abs() > math.log(1.25)).nonzero().flatten().tolist()
    found = [round(std[channel].item(), 3) for channel in far]
    _require(not far, f"latent channels {far} have standard deviation {found}, expected sigma_data = {sigma_data}")
    mask = autoencoder.latent_mask(torch.ones(2, 1, *sample.shape[2:]))
    _same("shape of latent_mask()", mask.shape, (2, 1, *latent.shape[2:]))
    _require(bool((mask == 1).all()), "latent_mask() of a mask of ones must be ones")


def check_backbone(
    backbone: nn.Module,
    latent_shape: Sequence[int],
    cond: Conditioning | None = None,
    method: TangentMethod = "one_pass",
    tolerance: float = 1e-6,
) -> None:
    """Evaluates the backbone on latents ``(3, c, *s)`` under ``cond``, conditioning for three samples.

    Without ``cond`` there are no labels, and random texts for a backbone of our own that takes text.
    Held against central differences in float64 on a copy whose weights are shaken a little, so that layers that
    start at zero count; method and tolerance as the student's training needs them.
    """
    cond = cond or random_text(backbone, num=3)
    generator = torch.Generator().manual_seed(0)
    net = copy.deepcopy(backbone).double().eval()
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
    u, du = torch.randn(2, 3, *latent_shape, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.01, 0.8, math.pi / 2 - 0.01], dtype=torch.float64)
    dt = torch.tensor([1.0, 0.5, -0.5], dtype=torch.float64)

    pair = value_and_tangent(net, u, t, cond, du, dt, method)
    _same("shape of F", pair.value.shape, tuple(u.shape))
    _require(bool(torch.isfinite(pair.value).all()), "F must be finite from t = 0.01 to t = π/2 − 0.01")
    plain = net(u, t, cond)
    _close("F of a pair and F of a tensor", pair.value, plain, 1e-10)
    _close("F of one sample and of the same sample in a batch", net(u[1:2], t[1:2], cond[1:2]), plain[1:2], 1e-8)
    reference = value_and_tangent(net, u, t, cond, du, dt, "finite_difference").tangent
    _close(f"dF by {method} and by differences", pair.tangent, reference, tolerance)
    _require(not pair.tangent.requires_grad, "the tangent must carry no graph")
    pair.value.square().sum().backward()
    _require(any(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters()), "no gradient from F")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _same(what: str, got: Sequence[int], expected: Sequence[int]) -> None:
    _require(tuple(got) == tuple(expected), f"{what} is {tuple(got)}, expected {tuple(expected)}")


def _is_sample(what: str, sample: Tensor, shape: Sequence[int]) -> None:
    _same(f"shape of {what}", sample.shape, shape)
    _require(sample.dtype == torch.float32, f"{what} must be float32, got {sample.dtype}")
    _require(sample.abs().max().item() <= 1, f"{what} must lie in [-1, 1], got up to {sample.abs().max().item()}")


def _close(what: str, got: Tensor, expected: Tensor, tolerance: float) -> None:
    error = ((got - expected).norm() / expected.norm().clamp(min=1e-12)).item()
    _require(error <= tolerance, f"{what} differ by {error:.2e} (relative), expected ≤ {tolerance:.0e}")


def _refuses(modality: Modality, path: Path) -> None:
    for name in ("read", "validate", "read_transformed"):
        try:
            getattr(modality, name)(path)
        except (ValueError, OSError) as error:
            _require(path.name in str(error), f"{name}() must name the file that it refuses ({path.name}): {error}")
        else:
            raise AssertionError(f"{name}() of {path.name}, which is missing or broken, must raise ValueError")

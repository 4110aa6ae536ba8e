"""The modality of images: reads files, brings them to a recipe's shape, writes and shows them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from modalities.image.buckets import check_buckets, nearest_bucket
from modalities.image.reading import decode, read_upright_size
from modalities.image.statistics import STATISTIC_UNITS, picture_statistics
from modalities.image.survey import data_warnings, suggest_config
from modalities.image.writing import SUFFIX, read_metadata, to_picture, write_picture
from modalities.pictures.pixels import FILTERS, covering_size, draw_corner, resize, to_grey
from modalities.pictures.reading import MAX_PIXELS, MODES
from scm_media.drawing import draw_grid, scale_picture
from scm_media.modality import Modality, SizeOption
from scm_media.parts import part

PREVIEW_SIDE = 96
"""Pixels of a picture's shorter side on a sheet, at least: its caption needs room."""
_FITS = ("pad", "crop", "resize")


@part("modality")
class ImageModality(Modality):
    """Reads, transforms and writes pictures of one (grey) or three (RGB) channels, square unless there are buckets.

    fit: the way to ``size`` of a picture of another size: "pad" (a larger one is shrunk, the rest is filled with the
    background), "crop" (the shorter side becomes ``size``, the rest is cut off), "resize" (both sides become ``size``).
    filter: "bicubic", "lanczos" or "box", widened so that nothing aliases. random_crop and flip need the generator of
    ``transform``; without one the crop is central. background: the level, in [-1, 1], of transparent pixels and of
    padding. max_pixels: larger files are refused. buckets: shapes (height, width), none larger in area than ``size``
    squared; a picture takes the one whose aspect is nearest to its own, ``shape()`` is the first. They need fit "crop".
    """

    name = "image"
    suffixes = frozenset({".png", ".jpg", ".jpeg", ".webp"})
    written_suffixes = (SUFFIX,)
    feature_networks = {"efficientnet-lite0": {"_target_": "modalities.image.imagenet.EfficientNetLite0"}}
    pipeline_tag = "unconditional-image-generation"
    statistic_units = STATISTIC_UNITS

    def __init__(
        self,
        size: int = 32,
        channels: int = 1,
        fit: str = "pad",
        filter: str = "bicubic",
        random_crop: bool = False,
        flip: bool = False,
        background: float = -1.0,
        max_pixels: int = 1 << 26,
        buckets: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if size < 1:
            raise ValueError(f"modality.size must be at least 1, got {size}")
        if channels not in MODES:
            raise ValueError(f"modality.channels must be 1 (grey) or 3 (RGB), got {channels}")
        if fit not in _FITS:
            raise ValueError(f"modality.fit must be one of {', '.join(_FITS)}, got {fit!r}")
        if filter not in FILTERS:
            raise ValueError(f"modality.filter must be one of {', '.join(FILTERS)}, got {filter!r}")
        if random_crop and fit != "crop":
            raise ValueError(f"modality.random_crop needs modality.fit=crop, got fit={fit}")
        if not -1 <= background <= 1:
            raise ValueError(f"modality.background must lie in [-1, 1] (black to white), got {background}")
        if not 1 <= max_pixels <= MAX_PIXELS:
            raise ValueError(f"modality.max_pixels must lie in 1 … {MAX_PIXELS} (Pillow's limit), got {max_pixels}")
        self.buckets = None if buckets is None else check_buckets(buckets, size, fit)
        self.size = size
        self.channels = channels
        self.fit = fit
        self.filter = filter
        self.random_crop = random_crop
        self.flip = flip
        self.background = background
        self.max_pixels = max_pixels
        self.size_options: Mapping[str, SizeOption] = {
            "size": SizeOption(size, "pixels", "width and height of a picture")
        }

    @classmethod
    def suggest_config(cls, paths: Sequence[str | Path]) -> tuple[dict[str, Any], str]:
        """Returns keys that fit these files, and a sentence about them; see ``survey.suggest_config``."""
        return suggest_config(paths, lambda path, background: cls(channels=3, background=background).read(path))

    def shape(self, **sizes: float) -> tuple[int, ...]:
        """Returns ``(C, size, size)``, or without a size the first bucket's; raises ValueError for another option."""
        unknown = set(sizes) - set(self.size_options)
        if unknown:
            raise ValueError(
                f"pictures have no {', '.join(sorted(unknown))}; they have: {', '.join(self.size_options)}"
            )
        if self.buckets is not None and not sizes:
            return (self.channels, *self.buckets[0])
        size = sizes.get("size", self.size)
        if size < 1 or size != int(size):
            raise ValueError(f"size must be a whole number of pixels, at least 1, got {size}")
        return (self.channels, int(size), int(size))

    @property
    def augments(self) -> bool:
        """Returns whether ``transform`` uses its generator."""
        return self.flip or self.random_crop

    @property
    def further_augmentations(self) -> Sequence[str]:
        """Returns the settings that would vary samples more."""
        off = {"flip=true": not self.flip, "random_crop=true": self.fit == "crop" and not self.random_crop}
        return [setting for setting, is_off in off.items() if is_off]

    def read(self, path: str | Path) -> Tensor:
        """Returns the picture ``(C, H, W)``, float32 in [-1, 1], upright and as large as in the file.

        Of an animation it is the first frame. Raises ValueError, with the file's name, for a file that is missing,
        undecodable, damaged or larger than max_pixels.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        with path.open("rb") as file:
            return decode(file, str(path), self.channels, self.background, self.max_pixels)

    def validate(self, file: str | Path | IO[bytes]) -> None:
        """Raises ValueError, with the file's name, for a file that ``read`` refuses, or that lacks details.

        file: a path, or an opened file with a ``name``.
        """
        if isinstance(file, str | Path):
            if not Path(file).is_file():
                raise ValueError(f"{file}: no such file")
            with Path(file).open("rb") as opened:
                self.validate(opened)
        else:
            name = str(file.name)
            picture = decode(file, name, self.channels, self.background, self.max_pixels, thorough=True)
            try:
                self._check_strip(*picture.shape[1:])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error

    def decode(self, content: bytes, source: str) -> Tensor:
        """Returns the picture ``(C, H, W)`` of a file's content, as ``read``; ValueError that names the source."""
        return decode(io.BytesIO(content), source, self.channels, self.background, self.max_pixels)

    def transform(self, sample: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns the sample ``(C, H, W)`` brought to ``shape()``; only the generator makes it random."""
        return self.transform_batch(sample[None], None if generator is None else [generator])[0]

    def transform_batch(self, samples: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """Transforms samples ``(B, C, H, W)`` of one size, with one generator each."""
        samples = self._fit(self._to_channels(samples), generators)
        if self.flip and generators is not None:
            uniform = torch.stack([torch.rand((), generator=generator) for generator in generators])
            samples = torch.where((uniform < 0.5)[:, None, None, None], samples.flip(-1), samples)
        return samples

    def _to_channels(self, samples: Tensor) -> Tensor:
        given = samples.shape[1]
        if given == self.channels:
            return samples
        if given == 1:
            return samples.expand(-1, self.channels, -1, -1)
        return to_grey(samples)[:, None]

    def _fit(self, samples: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
        height, width = samples.shape[-2:]
        size = self.size
        if self.fit == "resize":
            return resize(samples, size, size, self.filter)
        if self.fit == "pad":
            scale = min(1.0, size / max(height, width))
            samples = resize(samples, max(1, round(height * scale)), max(1, round(width * scale)), self.filter)
            down, across = size - samples.shape[-2], size - samples.shape[-1]
            frame = (across // 2, across - across // 2, down // 2, down - down // 2)
            return functional.pad(samples, frame, value=self.background)
        return self._crop(samples, generators)

    def _crop(self, samples: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
        height, width = samples.shape[-2:]
        self._check_strip(height, width)
        high, wide = size = self._cropped_size(height, width)
        samples = resize(samples, *covering_size(height, width, size), self.filter)
        scaled = (samples.shape[-2], samples.shape[-1])
        if not self.random_crop or generators is None:
            top, left = draw_corner(scaled, size)
            return samples[..., top : top + high, left : left + wide]
        crops = []
        for sample, generator in zip(samples, generators, strict=True):
            top, left = draw_corner(scaled, size, generator)
            crops.append(sample[:, top : top + high, left : left + wide])
        return torch.stack(crops)

    def _cropped_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns height and width that a picture of this size is cropped to."""
        if self.buckets is None:
            return self.size, self.size
        return self.buckets[nearest_bucket(height, width, self.buckets)]

    def _check_strip(self, height: int, width: int) -> None:
        """Raises ValueError for a strip that would have more than ``max_pixels`` before it is cropped."""
        if self.fit != "crop":
            return
        high, wide = covering_size(height, width, self._cropped_size(height, width))
        if high * wide > self.max_pixels:
            raise ValueError(
                f"a strip of {width}×{height} pixels would have {wide}×{high} before it is cropped: leave it out, or "
                "set modality.fit=pad"
            )

    def bucket(self, file: str | Path | IO[bytes]) -> int:
        """Returns the index of the picture's bucket among ``buckets``, by the size in its header.

        Raises ValueError, with the file's name, if the header cannot be read.
        """
        assert self.buckets is not None
        return nearest_bucket(*read_upright_size(file), self.buckets)

    def statistics(self, samples: Tensor) -> Mapping[str, Tensor]:
        """Returns brightness, contrast and sharpness of pictures; see ``statistics.picture_statistics``."""
        return picture_statistics(samples)

    def data_warnings(self, samples: Sequence[Tensor]) -> list[str]:
        """Returns warnings about samples ``(C, H, W)``; see ``survey.data_warnings``."""
        return data_warnings(samples, self.channels, self.background)

    def write(self, path: str | Path, sample: Tensor, metadata: Mapping[str, Any]) -> None:
        """Writes ``(C, H, W)``, whole or not at all, as a PNG with the metadata as text entries ``scm_media:<key>``."""
        write_picture(Path(path), sample, metadata)

    def read_metadata(self, path: str | Path) -> dict[str, Any]:
        """Returns the metadata of a PNG, empty where there is none; raises ValueError for a file that is no picture."""
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                if picture.width * picture.height > self.max_pixels:
                    raise ValueError(f"it has {picture.width}×{picture.height} pixels, at most {self.max_pixels}")
            return read_metadata(path)
        except Exception as error:  # decoders raise errors of any type
            raise ValueError(f"{Path(path).name} cannot be read as a PNG: {error}") from error

    def preview(self, samples: Tensor, captions: Sequence[str] = (), columns: int | None = None) -> Image.Image:
        """Returns a grid of samples ``(B, C, H, W)``, captions below, small pictures enlarged."""
        return draw_grid([scale_picture(to_picture(sample), PREVIEW_SIDE) for sample in samples], captions, columns)

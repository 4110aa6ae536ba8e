"""Reads videos by Pillow: folders of frames, single pictures, animated WebP (which FFmpeg does not decode)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image

from modalities.pictures.reading import flatten_picture, read_picture, read_size
from modalities.video.footage import MAX_PIXELS, File, VideoError, check_size, path_of, words_of
from scm_media.reading import read_bytes

MAX_BYTES = 1 << 30
"""Size of a frame's file at most, in bytes."""
SHORTEST, USUAL = 10, 100
"""Milliseconds: frames of a WebP with no more than the first last the second, as in browsers."""
WIDEST = 16383
"""The longest side of a WebP's frames, in pixels; a broken header may claim a million."""


class FolderFootage:
    """Pictures of one size, so many a second. Raises VideoError for none, and for a first one that cannot be opened."""

    def __init__(self, file: File, paths: Sequence[Path], rate: float, thorough: bool = False) -> None:
        """thorough: whether frames that lack details are damaged too, as of ``read_picture``."""
        if not paths:
            raise VideoError(file, "no frames", "holds no pictures (PNG, JPEG, BMP, TIFF), so it is no video")
        self.file, self.rate, self._paths, self._thorough = file, rate, paths, thorough
        self.num_frames = len(paths)
        self.duration = len(paths) / rate
        self.oddities: tuple[str, ...] = ()
        try:
            self.height, self.width = read_size(_open(paths[0]))
        except Exception as error:
            raise self._damage_error(paths[0], error) from error

    def _damage_error(self, path: Path, error: Exception) -> VideoError:
        return VideoError(self.file, "damaged", f"holds a frame that cannot be decoded, {path.name}: {words_of(error)}")

    def frames(self, start: float) -> Iterator[tuple[float, float, StillFrame]]:
        """Yields what ``Footage.frames`` does; raises VideoError for a frame of another size than the first."""
        first = min(max(0, int(start * self.rate + 1e-6)), len(self._paths) - 1)
        for index in range(first, len(self._paths)):
            yield index / self.rate, (index + 1) / self.rate, StillFrame(self._picture(self._paths[index]))

    def _picture(self, path: Path) -> Image.Image:
        try:
            picture = read_picture(_open(path), MAX_PIXELS, self._thorough)
        except Exception as error:
            raise self._damage_error(path, error) from error
        if picture.size != (self.width, self.height):
            raise VideoError(
                self.file,
                "frames of different sizes",
                f"has frames of different sizes: {self._paths[0].name} is {self.width}×{self.height}, {path.name} "
                f"{picture.width}×{picture.height}; bring them to one size",
            )
        return picture

    def close(self) -> None:
        """Does nothing: no file is open."""


def _open(path: Path) -> io.BytesIO:
    return io.BytesIO(read_bytes(path, MAX_BYTES))


class StillFrame:
    """A frame that Pillow has decoded, upright already."""

    def __init__(self, picture: Image.Image) -> None:
        self._picture = picture

    def pixels(self, height: int, width: int, channels: int, background: float) -> np.ndarray:
        """Returns what ``Picture.pixels`` returns: bicubic without aliasing, 16 bits brought to 8."""
        picture = self._picture
        if picture.mode.startswith("I"):  # 16-bit grey, which Pillow would clip
            picture = _to_eight_bits(picture)
        picture = flatten_picture(picture, channels, background)
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(picture).reshape(height, width, channels)


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """Returns a picture of 16-bit grey in 8 bits, with an opacity if one level is transparent."""
    values = np.asarray(picture.convert("I"))
    grey = np.round(values / 257).clip(0, 255).astype(np.uint8)
    key = picture.info.get("transparency")
    if not isinstance(key, int):
        return Image.fromarray(grey)
    return Image.fromarray(np.stack([grey, np.where(values == key, 0, 255).astype(np.uint8)], -1), "LA")


class WebPFootage:
    """An animated or still WebP. Raises VideoError if it cannot be decoded."""

    def __init__(self, file: File) -> None:
        self.file = file
        path = path_of(file)
        try:
            if path is None:
                file.seek(0)  # type: ignore[union-attr]
            self._picture = Image.open(path or file)  # type: ignore[arg-type]
            if self._picture.format != "WEBP":
                raise ValueError(f"it is a {self._picture.format}")
            self.width, self.height = self._picture.size
            if max(self._picture.size) > WIDEST:
                raise ValueError(f"it claims {self.width}×{self.height} pixels, a WebP has {WIDEST} a side at most")
            check_size(file, self.height, self.width)  # before all its frames are decoded
            status = None if path is None else path.stat()
            self._ends = (
                _measure_ends(self._picture)
                if status is None
                else _cached_ends(str(path), status.st_size, status.st_mtime_ns)
            )
        except VideoError:
            raise
        except Exception as error:
            detail = f"cannot be decoded as an animated WebP: {words_of(error)}"
            raise VideoError(file, "not a video", detail) from error
        self.oddities: tuple[str, ...] = ()
        self.num_frames = len(self._ends)
        self.duration = self._ends[-1]
        self.rate = len(self._ends) / self.duration

    def frames(self, start: float) -> Iterator[tuple[float, float, StillFrame]]:
        """Yields what ``Footage.frames`` does; decodes from the first frame on, which later ones need."""
        begin = 0.0
        for index, end in enumerate(self._ends):
            if end > start or index + 1 == len(self._ends):
                try:
                    self._picture.seek(index)
                    picture = self._picture.copy()
                except Exception as error:
                    detail = f"cannot be decoded at {begin:.2f} s: {words_of(error)}"
                    raise VideoError(self.file, "damaged", detail) from error
                yield begin, end, StillFrame(picture)
            begin = end

    def close(self) -> None:
        """Closes the file."""
        self._picture.close()


@lru_cache(maxsize=1 << 16)
def _cached_ends(path: str, size: int, changed: int) -> tuple[float, ...]:
    with Image.open(path) as picture:
        return _measure_ends(picture)


def _measure_ends(picture: Image.Image) -> tuple[float, ...]:
    """Returns when each frame of an animation ends, in seconds; decodes all of them."""
    durations = []
    for index in range(getattr(picture, "n_frames", 1)):
        picture.seek(index)
        picture.load()
        duration = picture.info.get("duration", 0)
        durations.append(duration if duration > SHORTEST else USUAL)
    return tuple(total / 1000 for total in accumulate(durations))

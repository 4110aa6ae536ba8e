"""Videos: files, networks."""

from modalities.video.modality import VideoModality
from modalities.video.writing import read_metadata

__all__ = ["VideoModality", "read_metadata"]

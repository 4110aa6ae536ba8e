"""Sounds: files, spectrograms, networks."""

from modalities.audio.modality import AudioModality
from modalities.audio.writing import read_metadata

__all__ = ["AudioModality", "read_metadata"]

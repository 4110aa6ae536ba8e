"""Sounds: files, spectrograms, networks."""

from modalities.audio.mel import LogMelSpectrogram
from modalities.audio.modality import AudioModality
from modalities.audio.spectrogram import ComplexSpectrogram
from modalities.audio.writing import read_metadata

__all__ = ["AudioModality", "ComplexSpectrogram", "LogMelSpectrogram", "read_metadata"]

"""Reads and writes sounds, and turns them into latents."""

from modalities.audio.autoencoder import SpectralAutoencoder
from modalities.audio.mel import LogMelSpectrogram
from modalities.audio.modality import AudioModality
from modalities.audio.spectrogram import ComplexSpectrogram
from modalities.audio.vocoder import VocodedMel
from modalities.audio.writing import read_metadata

__all__ = [
    "AudioModality",
    "ComplexSpectrogram",
    "LogMelSpectrogram",
    "SpectralAutoencoder",
    "VocodedMel",
    "read_metadata",
]

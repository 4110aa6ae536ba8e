"""Pictures: files, pixel space, networks."""

from modalities.image.autoencoder import PixelAutoencoder
from modalities.image.modality import ImageModality, read_metadata

__all__ = ["ImageModality", "PixelAutoencoder", "read_metadata"]

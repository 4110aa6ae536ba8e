"""Pictures: files, pixel space, networks."""

from modalities.image.autoencoder import ImageAutoencoder, PixelAutoencoder
from modalities.image.modality import ImageModality, read_metadata

__all__ = ["ImageAutoencoder", "ImageModality", "PixelAutoencoder", "read_metadata"]

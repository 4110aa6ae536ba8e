"""The modality of images: files, pixel space, networks."""

from modalities.image.autoencoder import ImageAutoencoder, PixelAutoencoder
from modalities.image.modality import ImageModality
from modalities.image.writing import read_metadata

__all__ = ["ImageAutoencoder", "ImageModality", "PixelAutoencoder", "read_metadata"]

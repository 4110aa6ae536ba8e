"""The modality of videos: files, frames, networks."""

from modalities.video.autoencoder import VideoAutoencoder
from modalities.video.backbone import SpaceTimeTransformer
from modalities.video.modality import VideoModality
from modalities.video.writing import read_metadata

__all__ = ["SpaceTimeTransformer", "VideoAutoencoder", "VideoModality", "read_metadata"]

"""The modalities of scm-media: images, audio, video."""

DISTRIBUTION = "scm-media"
"""Tells this package from the unrelated public one of the same name."""

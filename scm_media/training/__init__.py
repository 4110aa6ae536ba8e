"""Training: the loop, its stages, checkpoints and reports."""

from scm_media.training.run import run

__all__ = ["run"]

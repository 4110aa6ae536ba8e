"""Training: the loop, its stages, checkpoints and reports."""

from scm_media.compiler import ensure_user_name
from scm_media.training.run import run

ensure_user_name()  # before anything is compiled or validated, in whatever process

__all__ = ["run"]

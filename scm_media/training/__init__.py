"""Training: the loop, its stages, checkpoints and reports."""

from scm_media.training.run import run
from scm_media.training.user_name import ensure_user_name

ensure_user_name()  # before anything is compiled or validated, in whatever process

__all__ = ["run"]

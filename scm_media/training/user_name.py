"""A name for users without an entry in the system's list, as in ``docker run --user 12345``."""

from __future__ import annotations

import getpass
import os


def ensure_user_name() -> None:
    """Sets LOGNAME where the system knows no name for the user: PyTorch's compiler names its cache after the user."""
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # KeyError before Python 3.13, ImportError where there is no such list
        os.environ["LOGNAME"] = f"uid{os.getuid()}" if hasattr(os, "getuid") else "user"

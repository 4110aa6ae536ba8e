"""Prepares the machine for PyTorch's compiler, and turns its errors into one line."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager


def ensure_user_name() -> None:
    """Sets LOGNAME for a user without a name (``docker run --user 12345``): the compiler names its cache after it."""
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # KeyError before Python 3.13, ImportError on systems without user lists
        os.environ["LOGNAME"] = f"uid{os.getuid()}" if hasattr(os, "getuid") else "user"


@contextmanager
def compiler_errors(
    what: str = "trainer.compile: the backbone", otherwise: str = "set trainer.compile=false"
) -> Iterator[None]:
    """Turns the errors of a missing or failing compiler into a ValueError of one line, with the remedies."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    try:
        yield
    except (TorchDynamoException, CppCompileError, InvalidCxxCompiler) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(
            f"{what} cannot be compiled here ({reason}): {otherwise}, or install a C++ compiler (apt-get install g++)"
        ) from error

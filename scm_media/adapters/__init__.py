"""Networks of diffusers as teachers: how each class is called, its scheduler, and its autoencoder.

Each family has a file with an ``Adapter`` for every class of it; a new file here is found by itself.
"""

from __future__ import annotations

import importlib
import pkgutil

from scm_media.adapters.adapter import ADAPTERS, Adapter
from scm_media.adapters.autoencoder_loading import read_autoencoder
from scm_media.adapters.loading import load_teacher
from scm_media.adapters.schedulers import change_of_variables

__all__ = ["ADAPTERS", "Adapter", "change_of_variables", "load_teacher", "read_autoencoder"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

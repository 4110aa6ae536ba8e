"""Networks of diffusers as teachers: how each class is called, its scheduler, and its autoencoder.

Each family has a file with an ``Adapter`` for every class of it; a new file here is found by itself.
"""

from __future__ import annotations

import importlib
import pkgutil

from scm_media.adapters.adapter import ADAPTERS, Adapter
from scm_media.adapters.autoencoder_loading import read_autoencoder
from scm_media.adapters.folder import DiffusersFolder, load_teacher
from scm_media.adapters.lora import LoRAStudent, merge
from scm_media.adapters.lora_files import load_lora, save_lora
from scm_media.adapters.schedulers import change_of_variables
from scm_media.lora_settings import LoRA

__all__ = [
    "ADAPTERS",
    "Adapter",
    "DiffusersFolder",
    "LoRA",
    "LoRAStudent",
    "change_of_variables",
    "load_lora",
    "load_teacher",
    "merge",
    "read_autoencoder",
    "save_lora",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

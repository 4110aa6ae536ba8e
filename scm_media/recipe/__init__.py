"""Lists recipes, and composes one with overrides (Hydra) into a plain, complete, checked dictionary.

The search path, for a shipped recipe and for a user's file alike: the file and its folder, ``scm_media.recipes``,
``scm_media.configs``, and the packages that installed plugins name by entry points of those two names.
"""

from scm_media.recipe.composing import (
    HYDRA_VERSION_BASE,
    check_sweep,
    compose,
    finish,
    known_keys,
    locate,
    name_override,
)
from scm_media.recipe.listing import Recipe, describe, names
from scm_media.recipe.overrides import escaped_interpolations, literal_texts
from scm_media.recipe.source import SUFFIX, searching

__all__ = [
    "HYDRA_VERSION_BASE",
    "SUFFIX",
    "Recipe",
    "check_sweep",
    "compose",
    "describe",
    "escaped_interpolations",
    "finish",
    "known_keys",
    "literal_texts",
    "locate",
    "name_override",
    "names",
    "searching",
]

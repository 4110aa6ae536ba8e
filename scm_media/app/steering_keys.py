"""This module says which key of a keyboard stands for which action of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MEANINGS: Mapping[str, Sequence[str]] = {
    "ArrowUp": ("ahead", "forward", "forwards", "up", "accelerate", "gas"),
    "ArrowDown": ("back", "backward", "backwards", "down", "brake"),
    "ArrowLeft": ("turn-left", "turn_left", "turnleft", "left"),
    "ArrowRight": ("turn-right", "turn_right", "turnright", "right"),
    "w": ("ahead", "forward", "forwards", "up", "accelerate", "gas"),
    "s": ("back", "backward", "backwards", "down", "brake"),
    "a": ("left", "strafe-left", "strafe_left", "turn-left", "turn_left", "turnleft"),
    "d": ("right", "strafe-right", "strafe_right", "turn-right", "turn_right", "turnright"),
    " ": ("fire", "shoot", "attack", "jump"),
}
"""Each key looks for these names among the actions, the first one first."""
SHOWN: Mapping[str, str] = {"ArrowUp": "↑", "ArrowDown": "↓", "ArrowLeft": "←", "ArrowRight": "→", " ": "Space"}


def assign_keys(names: Sequence[str]) -> dict[str, str]:
    """Returns key to action, keys as browsers name them; actions that no key means get the digits from 1 on."""
    folded = {name.casefold(): name for name in names}
    keys = {}
    for key, meanings in MEANINGS.items():
        found = next((folded[meaning] for meaning in meanings if meaning in folded), None)
        if found is not None:
            keys[key] = found
    left = [name for name in names if name not in keys.values()]
    return {**keys, **{str(number): name for number, name in zip(range(1, 10), left, strict=False)}}


def keys_of(name: str, keys: Mapping[str, str]) -> str:
    """Returns the keys of an action as they are shown: ``↑ W``; "" without any."""
    return " ".join(SHOWN.get(key, key.upper()) for key, action in keys.items() if action == name)

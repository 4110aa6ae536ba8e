"""The modules of a network that the settings of a LoRA student choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from scm_media.lora_settings import LoRA

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def choose_modules(network: nn.Module, lora: LoRA) -> LoRA:
    """Returns the settings with the whole names of the modules that they choose in a network.

    Layers inside a module that is trained whole get no matrices. Raises ValueError for names that fit no module, or
    none that can be trained so, and for a network that has a LoRA already.
    """
    check_untouched(network)
    modules = {name: module for name, module in network.named_modules() if name}
    kind = type(network).__name__
    with_weights = [name for name, each in modules.items() if any(True for _ in each.parameters())]
    full = _find(lora.full, with_weights, "full", kind)
    full = [name for name in full if not _inside(name, full)]
    layers = [name for name, each in modules.items() if isinstance(each, LAYERS) and getattr(each, "groups", 1) == 1]
    if lora.targets is None:
        blocks = [name for name, each in modules.items() if isinstance(each, nn.ModuleList)]
        chosen = [name for name in layers if _inside(name, blocks) and not _sees_time_alone(name)]
    else:
        chosen = _find(lora.targets, layers, "targets", kind)
    chosen = [name for name in chosen if name not in full and not _inside(name, full)]
    if not chosen:
        raise ValueError(
            f"lora.targets choose no layer of {kind}: give ends of names of its linear layers and convolutions, such "
            f"as {_some_ends(layers)}"
        )
    return replace(lora, targets=tuple(chosen), full=tuple(full))


def check_untouched(network: nn.Module) -> None:
    """Raises ValueError for a network that has a LoRA already."""
    if any("lora_A" in name.split(".") for name, _ in network.named_modules()):
        raise ValueError(f"this {type(network).__name__} has a LoRA already: read the base again for another one")


def _find(wanted: Sequence[str], names: list[str], key: str, kind: str) -> list[str]:
    """Returns the names that are wanted or end in what is wanted; ValueError for what fits none."""
    found: set[str] = set()
    for each in wanted:
        fitting = {each} if each in names else {name for name in names if name.endswith(f".{each}")}
        if not fitting:
            what = "linear layer or convolution" if key == "targets" else "module with weights"
            raise ValueError(f"lora.{key}: {kind} has no {what} {each!r}; there are {_some_ends(names)}")
        found |= fitting
    return [name for name in names if name in found]


def _inside(name: str, outer: Sequence[str]) -> bool:
    return any(name.startswith(f"{each}.") for each in outer)


def _sees_time_alone(name: str) -> bool:
    return any(part.startswith(("norm", "time")) for part in name.split("."))


def _some_ends(names: Sequence[str]) -> str:
    ends = dict.fromkeys(".".join(part for part in name.split(".")[-2:] if not part.isdigit()) for name in names)
    return ", ".join(list(ends)[:8])

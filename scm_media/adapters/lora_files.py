"""Files of LoRA students: one safetensors file that diffusers reads, with all that is needed to load it again."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scm_media import weights
from scm_media.adapters.lora import LoRAStudent
from scm_media.adapters.lora_modules import LAYERS, check_untouched
from scm_media.change_of_variables import ChangeOfVariables
from scm_media.lora_settings import LoRA
from scm_media.typed import check_value, problem

FOR_DIFFUSERS = "lora_adapter_metadata"
"""The key of the header under which diffusers keeps the configuration for peft, with its prefix before each name."""
WHOLE = "lora_full"
"""The prefix of weights that are trained whole. diffusers refuses files with a name that has no "lora" in it."""
SAMPLED = 256
"""Values of each weight that the digest of a base looks at."""


def save_lora(
    path: str | Path,
    student: LoRAStudent,
    info: Mapping[str, Any] | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes what a student has learned to one safetensors file.

    ``pipeline.load_lora_weights`` of diffusers reads it, except for modules that were trained whole: diffusers knows
    no such thing and leaves them out, which a warning says. The strength is not saved. info: free information for the
    header. state: tensors that are written in place of the student's own, such as the averages of ``PowerEMA``.
    Raises ValueError for a state that does not fit the student, OSError when the file cannot be written.
    """
    state = student.state_dict() if state is None else state
    if problems := weights.misfits(student.state_dict(), state):
        raise ValueError(f"the state does not fit the LoRA student ({'; '.join(problems)})")
    lora, prefix = student.lora, _prefix(student.network)
    if lora.full:
        warnings.warn(
            f"{path}: {', '.join(lora.full)} were trained whole, which load_lora_weights of diffusers leaves out: "
            "export the merged network for diffusers, or train without lora.full",
            stacklevel=2,
        )
    alpha = lora.rank if lora.alpha is None else lora.alpha
    of_peft = {"r": lora.rank, "lora_alpha": alpha, "target_modules": list(lora.targets or ())}
    weights.save(
        path,
        {_file_name(name, prefix): value for name, value in state.items()},
        describe_lora(student),
        info,
        entries={FOR_DIFFUSERS: json.dumps({f"{prefix}.{key}": value for key, value in of_peft.items()})},
    )


def load_lora(path: str | Path, base: ChangeOfVariables, strength: float = 1.0) -> LoRAStudent:
    """Returns the student that a file of ``save_lora`` makes of a base, which is changed in place.

    base: the network that the LoRA was trained on, or another checkpoint of the same class, which is remarked on
    stderr. strength: multiplies what was trained, 0 for the teacher; weights that were trained whole lie at this place
    on the line from the base's to the trained ones, since their differences add to the base as the matrices' product
    does. Raises ValueError for a file that holds no LoRA, a base of another class, and names or shapes that do not fit;
    the base is unchanged then.
    """
    check_value(strength, float, "strength")
    check_untouched(base.network)
    component = weights.read(path)
    lora, trained_on = _read_settings(component.config, path)
    kind = type(base.network).__name__
    if trained_on.get("class") != kind:
        raise ValueError(f"{path} is a LoRA of {trained_on.get('class')}, and the base is {kind}: give its own base")
    expected = _expected(base.network, lora)
    if problems := weights.misfits(expected, component.state):
        raise ValueError(
            f"{path} does not fit this {kind} ({'; '.join(problems)}): it is a LoRA of one with other layers"
        )
    student = LoRAStudent(base, lora)
    prefix = _prefix(base.network)
    student.load_state_dict({name: component.state[_file_name(name, prefix)] for name in student.state_dict()})
    student.strength = strength
    _remark(student, trained_on, path)
    return student


def restore_student(component: weights.Component, base: ChangeOfVariables, source: str | Path) -> LoRAStudent:
    """Returns the student of a run's or a model's weights, by its own names, over its teacher, which is changed.

    Raises ValueError as ``load_lora``.
    """
    lora, trained_on = _read_settings(component.config, source)
    kind = type(base.network).__name__
    if trained_on.get("class") != kind:
        raise ValueError(f"{source} is a LoRA of {trained_on.get('class')}, and the base is {kind}: give its own base")
    prefix = _prefix(base.network)
    named = {_file_name(name, prefix): each for name, each in component.state.items()}
    if problems := weights.misfits(_expected(base.network, lora), named):  # before matrices of any rank are made
        raise ValueError(f"{source} does not fit this {kind} ({'; '.join(problems)}): copy the file again")
    student = LoRAStudent(base, lora)
    weights.load_into(student, component.state, source)
    _remark(student, trained_on, source)
    return student


def check_same_lora(student: LoRAStudent, config: Mapping[str, Any], source: str | Path) -> None:
    """Raises ValueError where weights are no LoRA of a student's settings; remarks on another base."""
    lora, trained_on = _read_settings(config, source)
    own = describe_lora(student)["lora"]
    found = {"rank": lora.rank, "alpha": lora.rank if lora.alpha is None else lora.alpha}
    if differing := [key for key, value in found.items() if value != own[key]]:
        raise ValueError(
            f"{source} is a LoRA of {', '.join(f'{key} {found[key]}' for key in differing)}: set student.lora alike"
        )
    _remark(student, trained_on, source)


def is_lora(config: Mapping[str, Any]) -> bool:
    """Returns whether the configuration of a weight file is that of a LoRA."""
    return "lora" in config and "base" in config


def describe_lora(student: LoRAStudent) -> dict[str, Any]:
    """Returns the configuration of a student for its file: its settings and what they were trained on."""
    lora = student.lora
    alpha = lora.rank if lora.alpha is None else lora.alpha
    settings = {"rank": lora.rank, "alpha": alpha, "targets": list(lora.targets or ()), "full": list(lora.full)}
    return {"lora": settings, "base": describe_base(student)}


def _remark(student: LoRAStudent, trained_on: Mapping[str, Any], source: str | Path) -> None:
    own = describe_base(student)
    if differing := [name for name in own if own[name] != trained_on.get(name)]:
        print(f"{source}: the base's {', '.join(differing)} differ from what it was trained on", file=sys.stderr)


def describe_base(student: LoRAStudent) -> dict[str, str]:
    """Returns the class of a student's base, and digests (SHA-256) of its configuration, shapes and values.

    The digest of the values takes up to 256 of each weight, rounded to bfloat16, so that a checkpoint has the same
    one in each dtype that it may be read in.
    """
    config = {key: value for key, value in dict(getattr(student.network, "config", {})).items() if key[:1] != "_"}
    shapes, values = hashlib.sha256(), hashlib.sha256()
    for name, weight in sorted(student.base_state().items()):
        shapes.update(f"{name} {tuple(weight.shape)}\n".encode())
        flat = weight.detach().reshape(-1)
        sampled = flat[:: max(1, len(flat) // SAMPLED)][:SAMPLED].to("cpu", torch.bfloat16)
        values.update(sampled.contiguous().view(torch.int16).numpy().tobytes())
    return {
        "class": type(student.network).__name__,
        "configuration": hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest(),
        "shapes": shapes.hexdigest(),
        "values": values.hexdigest(),
    }


def _read_settings(config: Mapping[str, Any], path: str | Path) -> tuple[LoRA, Mapping[str, Any]]:
    """Returns the settings and the description of the base in a file; ValueError where there are none."""
    settings, base = config.get("lora"), config.get("base")
    if not isinstance(settings, dict) or not isinstance(base, dict):
        raise ValueError(f"{path} holds no LoRA but another model of scm-media: give a file that save_lora wrote")
    if (found := problem(settings, LoRA, "lora")) is not None:
        raise ValueError(f"{path}: {found}")
    return LoRA(**settings), base


def _prefix(network: nn.Module) -> str:
    """Returns the name of the network in pipelines of diffusers."""
    return "unet" if type(network).__name__.startswith("UNet") else "transformer"


def _file_name(name: str, prefix: str) -> str:
    """Returns the name in files of a tensor of a student's state."""
    part, _, rest = name.partition(".")
    return f"{prefix}.{rest}" if part == "low_rank" else f"{WHOLE}.{rest.removesuffix('.trained')}"


def _expected(network: nn.Module, lora: LoRA) -> dict[str, Tensor]:
    """Returns tensors, without content, of the names and shapes that a LoRA over this network has in a file."""
    return {name: torch.empty(shape, device="meta") for name, shape in _shapes(network, lora)}


def _shapes(network: nn.Module, lora: LoRA) -> Iterator[tuple[str, tuple[int, ...]]]:
    modules, prefix = dict(network.named_modules()), _prefix(network)
    for name in lora.targets or ():
        if isinstance(layer := modules.get(name), LAYERS):
            num_out, num_in, *kernel = layer.weight.shape
            yield f"{prefix}.{name}.lora_A.weight", (lora.rank, num_in, *kernel)
            yield f"{prefix}.{name}.lora_B.weight", (num_out, lora.rank, *(1 for _ in kernel))
    for name in lora.full:
        for own, weight in modules[name].named_parameters() if name in modules else ():
            yield f"{WHOLE}.{name}.{own}", tuple(weight.shape)

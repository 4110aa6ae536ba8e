"""LoRA students (Hu et al. 2021, arXiv 2106.09685): low-rank changes of a network whose weights the teacher shares.

The library ``peft`` puts its layers into the network in place. With them the network is the student; without them, as
``LoRAStudent.teacher`` calls it, it is the teacher to the last bit.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from scm_media.adapters.lora_modules import choose_modules
from scm_media.change_of_variables import ChangeOfVariables
from scm_media.lora_settings import LoRA
from scm_media.nn.embedding import PlainConditioning
from scm_media.typed import check_value

STUDENT, TWIN = "student", "twin"
"""The names of LoRAs in the network, for peft."""


class _OverBase(nn.Module):
    """A backbone over a converted network that stands outside its module tree, and moves with it."""

    takes_any_dtype: ClassVar[bool] = True
    _shared: _Shared

    @property
    def base(self) -> ChangeOfVariables:
        """Returns the converted network, with the LoRA in it."""
        return self._shared.base

    @property
    def network(self) -> nn.Module:
        """Returns the network of diffusers."""
        return self.base.network

    @property
    def sigma_data(self) -> float:
        """Returns the standard deviation of the data."""
        return self.base.sigma_data

    @property
    def time_range(self) -> tuple[float, float]:
        """Returns the times in radians of the least and the most noise that the network's own time reaches."""
        return self.base.time_range

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self.base._apply(fn)  # which has the trained modules in it
        return self


class LoRAStudent(_OverBase):
    """A backbone that shares the weights of a converted network and holds only what is trained.

    base: is changed in place, frozen, and runs in evaluation mode, without dropout. Its ``network`` gets the layers of
    peft. parameters() and state_dict() hold the matrices, in float32 or wider, and the weights that are trained whole;
    ``.to()`` and the like also move the base. ``lora`` holds the settings with the names of all chosen modules.

    Raises ValueError without peft, for names that fit no module, and for a base that has a LoRA already.
    """

    def __init__(self, base: ChangeOfVariables, lora: LoRA | None = None) -> None:
        super().__init__()
        self._add_lora(_Shared(base), choose_modules(base.network, lora or LoRA()), STUDENT)

    def _add_lora(self, shared: _Shared, lora: LoRA, adapter: str) -> None:
        """Puts layers into the base's network; adapter: their name there."""
        peft, base = _import_peft(), shared.base
        base.eval().requires_grad_(False)
        alpha: Any = lora.rank if lora.alpha is None else lora.alpha
        pattern = "|".join(map(re.escape, lora.targets or ()))  # in a list, peft would take each for an end of names
        config = peft.LoraConfig(r=lora.rank, lora_alpha=alpha, target_modules=pattern)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # a twin is a second one
            peft.inject_adapter_in_model(config, base.network, adapter_name=adapter)
        base.eval()  # the new layers too
        self.lora, self.adapter = lora, adapter
        self.layers: dict[str, Any] = {name: base.network.get_submodule(name) for name in lora.targets or ()}
        self.whole = _train_whole(base.network, lora.full)
        # In a plain object, outside the module tree: the base is neither trained, saved, averaged nor wrapped.
        self._shared = shared
        self.low_rank, self.full = nn.Module(), nn.Module()
        for name, layer in self.layers.items():
            for part in ("lora_A", "lora_B"):
                matrix = getattr(layer, part)[adapter]
                matrix.to(torch.promote_types(matrix.weight.dtype, torch.float32))
                _add(self.low_rank, f"{name}.{part}", matrix)
        for name, weight in self.whole.items():
            _add(self.full, name, weight)
        shared.add(self)
        self._teacher = (_Teacher(shared),)
        self.strength = 1.0

    def forward(self, u: Tensor, t: Tensor, cond: PlainConditioning = None) -> Any:
        """Returns F(u, t) ``(B, c, *s)`` for u ``(B, c, *s)`` and t ``(B,)`` in radians."""
        with self._shared.using(self):
            return self.base(u, t, cond)

    def twin(self) -> LoRAStudent:
        """Returns a second LoRA over the same base, which equals the teacher until it is trained.

        It trains what this one trains. Raises ValueError where the base has two already.
        """
        if len(self._shared.students) > 1:
            raise ValueError(
                "the base has two LoRAs already, a student and its twin: read the base again for another student "
                "(scm_media.load)"
            )
        twin = LoRAStudent.__new__(LoRAStudent)
        nn.Module.__init__(twin)
        twin._add_lora(self._shared, self.lora, TWIN)
        return twin

    @property
    def teacher(self) -> nn.Module:
        """Returns the backbone without the LoRA, always the same object, which has no parameters of its own.

        It shares the base's weights, and switches the LoRA off while it runs. Gradient checkpointing must be that of
        ``enable_checkpointing``: another one computes activations again with the student's LoRA.
        """
        return self._teacher[0]

    @property
    def strength(self) -> float:
        """Returns the factor of what was trained: 1 is the student, 0 the teacher."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        check_value(value, float, "strength")
        self._strength = float(value)
        for layer in self.layers.values():
            layer.set_scale(self.adapter, self._strength)
        for weight in self.whole.values():
            weight.strength = self._strength

    def base_state(self) -> dict[str, Tensor]:
        """Returns the base's own weights by the names that they have without a LoRA; they are not copied."""
        state = {}
        for name, value in self.network.state_dict().items():
            if not re.search(r"\.lora_[AB]\.\w+\.weight$|\.\d+\.trained$", name):
                name = name.replace(".base_layer.", ".")
                state[re.sub(r"\.parametrizations\.(\w+)\.original$", r".\1", name)] = value
        return state


@torch.no_grad()
def merge(student: LoRAStudent) -> dict[str, Tensor]:
    """Returns the network's weights with the LoRA of its strength in them, by diffusers' names, in the base's dtypes.

    The student is not changed; weights that the LoRA leaves alone are those of the base and not copied.
    """
    state = student.base_state()
    for name, layer in student.layers.items():
        weight, change = state[f"{name}.weight"], layer.get_delta_weight(student.adapter)
        state[f"{name}.weight"] = (weight.to(change.dtype) + change).to(weight.dtype)
    for name, trained in student.whole.items():
        state[name] = trained.changed(state[name])
    return state


class _Shared:
    """The base of a teacher, a student and its twin, and the switch between them. At rest the student is on."""

    def __init__(self, base: ChangeOfVariables) -> None:
        self.base = base
        base.lora_switch = self
        self.students: list[LoRAStudent] = []
        self.on: LoRAStudent | None = None

    def add(self, student: LoRAStudent) -> None:
        """Takes a student in, switches the first one on, and lets all be trained, which peft changes."""
        self.students.append(student)
        self._switch(self.students[0])
        for each in self.students:
            each.requires_grad_(True)

    @contextmanager
    def using(self, student: LoRAStudent | None) -> Iterator[None]:
        """Switches one student on while its block runs, or None for the teacher."""
        before = self.on
        self._switch(student)
        try:
            yield
        finally:
            self._switch(before)

    def _switch(self, student: LoRAStudent | None) -> None:
        if student is self.on and student is not None and len(self.students) == 1:
            return
        self.on = student
        for each in self.students:
            for layer in each.layers.values():
                # peft's own switches would freeze and unfreeze students as well.
                layer._disable_adapters = student is None
                layer._active_adapter = STUDENT if student is None else student.adapter
            for weight in each.whole.values():
                weight.off = each is not student


class _Teacher(_OverBase):
    """The base without the LoRA. It has no parameters: the base's are frozen, and those of the LoRA the student's."""

    def __init__(self, shared: _Shared) -> None:
        super().__init__()
        self._shared = shared

    def forward(self, u: Tensor, t: Tensor, cond: PlainConditioning = None) -> Any:
        with self._shared.using(None):
            return self.base(u, t, cond)


class _Trained(nn.Module):
    """A weight that is trained whole, in float32 or wider, in place of the original, which the teacher keeps."""

    def __init__(self, original: Tensor) -> None:
        super().__init__()
        wide = torch.promote_types(original.dtype, torch.float32)
        self.trained = nn.Parameter(original.detach().to(wide, copy=True))
        self.off, self.strength = False, 1.0

    def forward(self, original: Tensor) -> Tensor:
        return original if self.off else self.changed(original)

    def changed(self, original: Tensor) -> Tensor:
        """Returns original + strength · (trained − original), in the original's dtype."""
        if self.strength == 1:
            return self.trained.to(original.dtype)
        return torch.lerp(original.to(self.trained.dtype), self.trained, self.strength).to(original.dtype)


def _train_whole(network: nn.Module, names: Sequence[str]) -> dict[str, _Trained]:
    """Gives the weights of some modules a trained counterpart, and returns those by the weights' names."""
    found = {}
    for name in names:
        for inner, module in list(network.get_submodule(name).named_modules(prefix=name)):
            if ".parametrizations" in inner:  # of a student that trains the same weights
                continue
            for own, weight in _originals(module).items():
                found[f"{inner}.{own}"] = trained = _Trained(weight)
                parametrize.register_parametrization(module, own, trained)
    return found


def _originals(module: nn.Module) -> dict[str, Tensor]:
    """Returns a module's own weights by name, as they were before any student."""
    found: dict[str, Tensor] = dict(module.named_parameters(recurse=False))
    if parametrize.is_parametrized(module):
        parametrized: Any = module.parametrizations
        found |= {name: each.original for name, each in parametrized.items()}
    return found


def _add(tree: nn.Module, name: str, module: nn.Module) -> None:
    """Adds a module to a tree of empty ones at a dotted name, so that its parameters have the name that it says."""
    *path, last = name.split(".")
    for part in path:
        if part not in tree._modules:
            tree.add_module(part, nn.Module())
        tree = tree.get_submodule(part)
    tree.add_module(last, module)


def _import_peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ValueError("LoRA students need peft: pip install 'scm-media[lora]'") from error
    return peft

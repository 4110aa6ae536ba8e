"""What a call of the pipeline asks for: its arguments, and the labels of its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from scm_media.bounds import COUNT
from scm_media.pipeline.actions import Actions
from scm_media.pipeline.labels import Label, LabelSet, SampleLabels

Generators = torch.Generator | list[torch.Generator] | None
Indices = int | Sequence[int] | Tensor


@dataclass(frozen=True, kw_only=True)
class CallOptions:
    """The arguments of a call beside labels, steps, generator and output type."""

    class_labels: Indices | Mapping[str, Indices] | None = None
    """Class numbers in place of names: one, or one for each sample; a mapping for a model of several labels."""
    batch_size: int | None = None
    """Number of samples; None: as many as there are labels, latents or generators, else 1."""
    timesteps: Sequence[float] | None = None
    """Times in radians, descending within (0, π/2], instead of a number of steps; a 0 at the end changes nothing."""
    guidance_scale: float | None = None
    """Guidance scale, at least 0; None: the model's own where the student takes the scale as an input, otherwise 1."""
    latents: Tensor | None = None
    """Noise of unit variance ``(B, c, *s)`` to start from."""
    actions: Actions = None
    """Numbers for each frame, ``(n, k)`` or ``(B, n, k)``, of models that were trained with actions."""
    return_dict: bool = True
    """False returns a tuple in place of an output object."""
    callback_on_step_end: Callable[..., Mapping[str, Tensor]] | None = None
    """Called as ``callback(pipeline, step, timestep, tensors)`` after each step; may return changed tensors."""
    callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",)
    """Names of the tensors that the callback gets: ``latents`` and ``denoised``."""
    sizes: Mapping[str, float] = field(default_factory=dict)
    """Size options of the modality in their units."""

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any], sizes: Sequence[str]) -> CallOptions:
        """Returns the options of keyword arguments; sizes: those that are size options. ValueError for unknown ones."""
        names = [each.name for each in fields(cls) if each.name != "sizes"]
        if unknown := [name for name in arguments if name not in names and name not in sizes]:
            raise ValueError(f"the pipeline takes no {', '.join(unknown)}; it takes {', '.join([*names, *sizes])}")
        given = {name: value for name, value in arguments.items() if name in names}
        return cls(**given, sizes={name: value for name, value in arguments.items() if name in sizes})

    def count(self, labels: Label | Sequence[Label], generator: Generators) -> int:
        """Returns the number of samples; raises ValueError for none, and for a list of generators of another length."""
        numbers = self.class_labels.values() if isinstance(self.class_labels, Mapping) else [self.class_labels]
        lengths = [len(each) for each in (labels, *numbers, self.latents, generator) if _is_list(each)]
        num = next(iter(lengths), 1) if self.batch_size is None else self.batch_size
        if (expected := COUNT.complaint(num)) is not None:
            raise ValueError(f"the number of samples must be {expected}, got {num}")
        if isinstance(generator, list) and len(generator) != num:
            raise ValueError(f"got {len(generator)} generators for {num} samples; give one, or one a sample")
        return num

    def parse_labels(self, label_set: LabelSet, labels: Label | Sequence[Label], num: int) -> list[dict[str, Any]]:
        """Returns the labels that are given for each sample, by name; raises ValueError for unknown ones."""
        if self.class_labels is not None:
            if labels is not None:
                raise ValueError("give labels or class_labels, not both")
            labels = name_classes(label_set, self.class_labels, num)
        elif isinstance(labels, int):
            raise ValueError(f"labels are names, got {labels}: give numbers of classes as class_labels")
        given = SampleLabels(label_set, labels, 0, range(num), draw=False)
        # A size option that is a label as well (the rate of frames) is given as one, unless the label says otherwise.
        given.add({name: value for name, value in self.sizes.items() if name in label_set.names})
        return given[:]


def name_classes(label_set: LabelSet, numbers: Indices | Mapping[str, Indices], num: int) -> list[Label]:
    """Returns the names of classes, a mapping for each sample; raises ValueError for numbers that are no classes."""
    if not isinstance(numbers, Mapping):
        named = [name for name, classes in label_set.names.items() if classes]
        if len(named) != 1:
            there = ", ".join(label_set.names) or "none"
            raise ValueError(f"class_labels need one label with classes, the model has {there}: name it, {{name: 0}}")
        numbers = {named[0]: numbers}
    made: list[dict[str, Any]] = [{} for _ in range(num)]
    for name, each in numbers.items():
        if not (classes := label_set.names.get(name)):
            there = ", ".join(label_set.names) or "none"
            raise ValueError(f"the model has no label {name!r} with classes; it knows {there}")
        listed: Any = each.tolist() if hasattr(each, "tolist") else each
        several = list(listed) if isinstance(listed, Sequence) else [listed] * num
        if len(several) != num:
            raise ValueError(f"got {len(several)} class_labels for {num} samples; give one, or one a sample")
        for sample, number in zip(made, several, strict=True):
            if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(classes):
                raise ValueError(
                    f"class_labels of {name!r} must be whole numbers from 0 to {len(classes) - 1}, got {number!r}"
                )
            sample[name] = classes[number]
    return list(made)


def draw_labels(label_set: LabelSet, given: Sequence[Mapping[str, Any]], generator: Generators) -> list[dict[str, Any]]:
    """Returns the labels of samples: the given ones, the others drawn as often as the training data have them.

    The generator is left alone where nothing is drawn.
    """
    if all(name in each for each in given for name in label_set.names):
        return [dict(each) for each in given]
    if isinstance(generator, list):
        places = [(_draw_seed(each), 0) for each in generator]
    else:
        seed = _draw_seed(generator)
        places = [(seed, index) for index in range(len(given))]
    return [label_set.resolve(each, *place) for each, place in zip(given, places, strict=True)]


def _draw_seed(generator: torch.Generator | None) -> int:
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) > 0

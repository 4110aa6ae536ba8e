"""Fits the weights of a model that training starts from (``init_from``) to a network that is given more than it was.

What is new has no effect at first: channels of actions have weights of zero, and so have the text, the guidance scale
and the time that a flow map goes to. Labels that the new
network is not given are, in a transformer, as if they were absent; a U-Net, whose conditioning vector has a mean over
its labels, starts near the model instead of at it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from scm_media import weights
from scm_media.conditioning import ConditioningLayout
from scm_media.networks import restore
from scm_media.nn.embedding import LabelEmbedding, ScalarEmbedding
from scm_media.nn.text import TextInput, text_widths

SILENT = ("guidance", "target")
"""Embeddings of networks that have no effect at first."""


def load_initial(
    network: nn.Module, component: weights.Component, layout: ConditioningLayout, stage: str, file: Path
) -> list[str]:
    """Loads weights into a network that may take more than they know: texts, actions, a scale, a flow map's end.

    layout: the channels of masks and actions that the network is given. Returns the labels that are left out, because
    texts take their place. Raises ValueError for weights that do not fit otherwise.
    """
    state, left_out = component.state, list[str]()
    num_channels = component.config.get("num_cond_channels", 0)
    without_actions = hasattr(network, "num_cond_channels") and num_channels in (0, layout.num_mask_channels)
    if layout.grouping is not None and without_actions:
        # The channels of the actions come last; with zeros for weights they have no effect at first.
        state = weights.widen(state, network.state_dict())
    state = _with_silent(network, state)
    takes_text = bool(text_widths(network)) and not component.config.get("text")
    if takes_text:
        state, left_out = _with_text(network, state)
    weights.load_into(network, state, file)
    if takes_text and left_out:
        _start_at_absent_labels(network, restore(component, stage, file), left_out)
    return left_out


def _with_silent(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights with the network's own for embeddings without an effect that the weights lack."""
    known = {name.split(".")[0] for name in state}
    own = {name: value for name, value in network.state_dict().items() if name.split(".")[0] in SILENT}
    return {**{name: value for name, value in own.items() if name.split(".")[0] not in known}, **state}


def _with_text(network: nn.Module, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Returns weights with the network's own for its text, without those of labels that it lacks, and these labels."""
    own = network.state_dict()
    known = {name.split(".")[2] for name in own if name.startswith("labels.")}
    labels = {name: name.split(".")[2] for name in state if name.startswith("labels.")}
    left_out = sorted(set(labels.values()) - known)
    kept = {name: tensor for name, tensor in state.items() if labels.get(name) not in left_out}
    text = {name: own[name] for name in own if any(part.startswith("text") for part in name.split("."))}
    return text | kept, left_out


def _start_at_absent_labels(network: nn.Module, before: nn.Module, left_out: Sequence[str]) -> None:
    """Gives every text the vector that absent labels had, so that the network starts as the model without labels.

    Without a vector of the text, the one of the time gets it.
    """
    labels, text = before.get_submodule("labels"), network.get_submodule("text")
    assert isinstance(labels, LabelEmbedding) and isinstance(text, TextInput)
    vector = labels.absent_vector(left_out).detach()
    if text.pooled is not None:
        text.pooled.start_at(vector)
    elif isinstance(time := getattr(network, "time", None), ScalarEmbedding):
        bias = time.second.bias
        assert bias is not None
        with torch.no_grad():
            bias.add_(vector.to(bias))

"""A network with texts that starts from one without: what it makes first, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scm_media.build import build
from scm_media.conditioning import Conditioning, ConditioningLayout
from scm_media.nn.magnitude import renormalize
from scm_media.nn.text import random_text
from scm_media.training.initial_weights import load_initial
from scm_media.weights import Component

LAYOUT = ConditioningLayout(0.5)
FILE = Path("start/teacher.safetensors")
TRANSFORMER = {
    "_target_": "scm_media.nn.transformer.Transformer",
    "in_channels": 2,
    "rank": 2,
    "patch": [2, 2],
    "width": 16,
    "depth": 2,
    "num_heads": 2,
}
UNET = {
    "_target_": "scm_media.nn.unet.UNet",
    "in_channels": 2,
    "rank": 2,
    "channels": 8,
    "multipliers": [1, 2],
    "num_blocks": 1,
    "attention_levels": [1],
}
TEXT = {"text": {"tokens": 6, "pooled": 5}}
LABELS = {"labels": {"family": 3, "velocity": 0}}


def make(config, seed):
    torch.manual_seed(seed)
    return build(config, "backbone").double().eval()


def start_of(config):
    network = make(config, 0)
    with torch.no_grad():  # layers that start at zero would hide what is lost
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    renormalize(network)
    return network, Component(dict(network.state_dict()), config, {})


@pytest.mark.parametrize("config", [TRANSFORMER, UNET], ids=["transformer", "unet"])
def test_a_network_with_text_starts_as_the_one_without(config):
    before, component = start_of(config)
    network = make({**config, **TEXT}, 1)
    assert load_initial(network, component, LAYOUT, "teacher", FILE) == []
    u, t = torch.randn(3, 2, 8, 8).double(), torch.tensor([0.3, 0.9, 1.5]).double()
    expected = before(u, t, Conditioning())
    for cond in (Conditioning(), random_text(network, 3)):
        torch.testing.assert_close(network(u, t, cond), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("text", [TEXT["text"], {"pooled": 5}, {"tokens": 6}], ids=["both", "pooled", "tokens"])
def test_labels_that_texts_take_the_place_of_are_absent_at_first(text):
    before, component = start_of({**TRANSFORMER, **LABELS})
    network = make({**TRANSFORMER, "text": text}, 1)
    assert load_initial(network, component, LAYOUT, "teacher", FILE) == ["family", "velocity"]
    u, t = torch.randn(3, 2, 8, 8).double(), torch.tensor([0.3, 0.9, 1.5]).double()
    expected = before(u, t, Conditioning())
    for cond in (Conditioning(), random_text(network, 3)):
        torch.testing.assert_close(network(u, t, cond), expected, rtol=1e-4, atol=1e-7)


def test_labels_that_are_kept_beside_texts_keep_their_embeddings():
    before, component = start_of({**TRANSFORMER, **LABELS})
    network = make({**TRANSFORMER, **TEXT, "labels": {"family": 3}}, 1)
    assert load_initial(network, component, LAYOUT, "teacher", FILE) == ["velocity"]
    u, t = torch.randn(3, 2, 8, 8).double(), torch.tensor([0.3, 0.9, 1.5]).double()
    cond = Conditioning(labels={"family": torch.tensor([0, 2, 1])})
    torch.testing.assert_close(network(u, t, cond), before(u, t, cond), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("config", [TRANSFORMER, UNET], ids=["transformer", "unet"])
@pytest.mark.parametrize("added", ["target", "guidance"])
def test_a_flow_map_and_a_scale_as_an_input_start_as_the_student_without(config, added):
    before, component = start_of(config)
    network = make({**config, added: True}, 1)
    assert load_initial(network, component, LAYOUT, "student", FILE) == []
    u, t = torch.randn(3, 2, 8, 8).double(), torch.tensor([0.3, 0.9, 1.5]).double()
    cond = Conditioning(**{added: torch.tensor([0.1, 0.2, 1.4]).double()})
    torch.testing.assert_close(network(u, t, cond), before(u, t, Conditioning()), rtol=1e-12, atol=1e-12)
    trained = Component(dict(start_of({**config, added: True})[0].state_dict()), {**config, added: True}, {})
    load_initial(network, trained, LAYOUT, "student", FILE)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in trained.state.items())


def test_a_network_of_another_size_is_refused():
    _, component = start_of(TRANSFORMER)
    network = make({**TRANSFORMER, **TEXT, "depth": 3}, 1)
    with pytest.raises(ValueError, match=r"teacher\.safetensors does not fit Transformer \(missing: blocks\.2"):
        load_initial(network, component, LAYOUT, "teacher", FILE)

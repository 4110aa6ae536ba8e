"""The memory of a training step, against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from scm_media.attention_tangent import NUM_SCORES
from scm_media.evaluation.memory import MemoryCounter, count_training_memory, fused_attention
from scm_media.tangent import value_and_tangent

FLOAT = 4


class Squares(nn.Module):
    """The mean square of a linear map of its argument."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, width, bias=False)

    def forward(self, x):
        return (self.layer(x).square().mean(),)


def test_tensors_count_while_they_are_alive():
    with MemoryCounter() as counter:
        kept = torch.zeros(100)
        assert counter.now == 100 * FLOAT
        view = kept[:10].reshape(2, 5)
        assert counter.now == 100 * FLOAT
        more = kept + 1
        del more
        assert (counter.now, counter.peak) == (100 * FLOAT, 200 * FLOAT)
        del kept, view
        assert counter.now == 0


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_weights_gradients_copies_and_activations_are_counted(device):
    width, batch = 64, 256
    loss, x = Squares(width).to(device), torch.zeros(batch, width, device=device)
    found = count_training_memory(loss, (x,), num_copies=3)
    weights, activation = width * width * FLOAT, batch * width * FLOAT
    # The weights and three copies; the layer's output, its square's gradient and that of the output; the new gradient.
    assert 4 * weights + 2 * activation <= found <= 5 * weights + 5 * activation
    frozen = count_training_memory(loss, (x,), [Squares(width).to(device)], num_copies=3)
    assert frozen == found + weights
    assert count_training_memory(loss, (x,), num_copies=0) == found - 3 * weights


def test_fused_attention_holds_no_matrix_of_all_pairs():
    def peak():
        query, key, value = (torch.zeros(1, 2, 4096, 8, device="meta", requires_grad=True) for _ in range(3))
        with MemoryCounter() as counter:
            functional.scaled_dot_product_attention(query, key, value).sum().backward()
        return counter.peak

    plain = peak()
    with fused_attention():
        fused = peak()
    assert plain > 2 * 4096 * 4096 * FLOAT
    assert fused < 10 * 2 * 4096 * 8 * FLOAT
    assert peak() == plain


def test_fused_attention_with_a_tangent_holds_blocks_alone(monkeypatch):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(16, 16)

        def forward(self, u, t, cond):
            query, key, value = (self.project(u) * factor for factor in (1, 2, 3))
            return functional.scaled_dot_product_attention(query, key, value) * t[:, None, None, None]

    monkeypatch.setitem(NUM_SCORES, "cuda", 1 << 20)  # as for any device but the CPU
    with torch.device("meta"):
        network, u = Attention(), torch.zeros(1, 2, 4096, 16)
        with fused_attention(), MemoryCounter() as counter:
            dual = value_and_tangent(network, u, torch.ones(1), None, u, torch.ones(1), "one_pass")
            dual.value.sum().backward()
    assert dual.tangent.shape == u.shape and network.project.weight.grad is not None
    assert counter.peak < 2 * 4096 * 4096 * FLOAT / 2

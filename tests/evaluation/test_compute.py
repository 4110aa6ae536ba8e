"""Operations are held against counts by hand, with attention by matrix products and by fused kernels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as nnf

import scm_media
from scm_media.evaluation.compute import count_network_operations
from scm_media.evaluation.rows import Row
from scm_media.nn.attention import SHORT, attend
from scm_media.nn.operations import count_operations
from tests.pipeline.tiny import BACKBONE, write_networks, write_tiny_model

WIDTH, PLACES, PATCH, TIME, POSITION = 16, 16, 16, 64, 32


def _by_hand(depth: int) -> int:
    """Returns the operations of the tiny transformer on 16 patches of 4 × 4 pixels; labels are looked up in a table."""
    each_place = WIDTH * (2 * PATCH + POSITION) + depth * WIDTH * (4 * WIDTH + 8 * WIDTH)
    attention = depth * 2 * PLACES * PLACES * WIDTH
    once = TIME * WIDTH + WIDTH * WIDTH + (2 * depth + 1) * WIDTH * 2 * WIDTH
    return 2 * (PLACES * each_place + attention + once)


@pytest.mark.parametrize("fused", [False, True])
def test_attention_is_counted_in_any_kernel(fused):
    q, k, v = torch.randn(2, 3, 40, 8), torch.randn(2, 3, 50, 8), torch.randn(2, 3, 50, 8)

    def call():
        return nnf.scaled_dot_product_attention(q, k, v) if fused else torch.softmax(q @ k.mT, -1) @ v

    assert count_operations(call) == 2 * 2 * 3 * 40 * 50 * (8 + 8)


def test_long_sequences_of_our_own_attention_are_counted():
    counts = []
    for length in (SHORT, 2 * SHORT):
        heads = [torch.randn(1, 2, length, 4) for _ in range(3)]
        counts.append(count_operations(lambda heads=heads: attend(*heads)))
    assert counts == [2 * 2 * SHORT**2 * 8, 2 * 2 * (2 * SHORT) ** 2 * 8], "by products, then by a fused kernel"


def test_convolutions_are_counted_in_inference_mode_and_compiled_functions_as_they_were_written():
    layer = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)

    @torch.inference_mode()
    def call():
        return layer(torch.zeros(1, 3, 8, 8))

    assert count_operations(call) == 2 * 5 * 3 * 9 * 64
    traced = []
    compiled = torch.compile(call, backend=lambda graph, _: traced.append(graph) or graph.forward)
    assert count_operations(compiled) == 2 * 5 * 3 * 9 * 64
    assert traced == []


def test_a_networks_evaluation_is_the_count_by_hand(tmp_path):
    folder = write_tiny_model(tmp_path / "model")
    write_networks(folder, {"student": BACKBONE | {"depth": 3}})
    counted = count_network_operations(scm_media.load(folder, "cpu"))
    assert counted.student == pytest.approx(_by_hand(depth=3), rel=0.01)
    assert counted.teacher == pytest.approx(_by_hand(depth=1), rel=0.01)
    assert (counted.guide, counted.decode) == (None, 0)
    (folder / "teacher.safetensors").unlink()
    assert count_network_operations(scm_media.load(folder, "cpu")).teacher is None


def test_rows_cost_their_evaluations_the_guides_and_decoding(tmp_path):
    folder = write_tiny_model(tmp_path / "model")
    write_networks(folder, {"guide": BACKBONE | {"width": 8, "num_heads": 1}})
    pipeline = scm_media.load(folder, "cpu")
    counted = count_network_operations(pipeline)
    assert 0 < counted.guide < counted.teacher
    two, teacher = Row.parse(2, pipeline), Row.parse("teacher:heun:3", pipeline)
    assert counted.of_row(two, 2) == 2 * counted.student + counted.decode
    assert counted.of_row(teacher, 10) == 5 * counted.teacher + 5 * counted.guide + counted.decode
    made = pipeline(1, **Row.parse("teacher:heun:3", pipeline, 2.0).arguments)
    assert made.evaluations == 10


def test_decoding_is_the_count_by_hand(tmp_path):
    pipeline = scm_media.load(write_tiny_model(tmp_path / "model"), "cpu")
    autoencoder = pipeline.network("autoencoder")
    layer = torch.nn.Conv2d(1, 6, 3, padding=1, bias=False)
    autoencoder.decode = lambda latent: layer(latent)[:, :1]
    assert count_network_operations(pipeline).decode == 2 * 6 * 9 * 16 * 16

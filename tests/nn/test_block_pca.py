"""The linear way past an autoencoder: components against closed forms, in pieces, and what a fresh network is."""

from __future__ import annotations

import math

import pytest
import torch

from modalities.video.autoencoder import VideoAutoencoder
from scm_media.nn.block_pca import INITIAL_LOG_VARIANCE, BlockPCA
from scm_media.nn.kl_autoencoder import KLAutoencoder

STRIDES = {1: (4,), 2: (2, 4), 3: (3, 2, 2)}
SIZES = {1: (16,), 2: (8, 16), 3: (9, 4, 6)}
NUM = 3


def samples_of_few_components(rank: int, causal: bool, num: int = 64) -> torch.Tensor:
    """Samples ``(num, 2, *S)`` float64 whose blocks lie in a plane of NUM dimensions that misses the origin."""
    generator = torch.Generator().manual_seed(rank)
    strides, sizes = STRIDES[rank], list(SIZES[rank])
    plane = BlockPCA(2, NUM, strides, causal).double()
    if causal:  # of the first block all places of the first axis are one and the same
        sizes[0] += 1
        flat = torch.randn(NUM, 2, 1, *strides[1:], generator=generator, dtype=torch.float64)
        flat = flat.expand(-1, -1, strides[0], *[-1] * (rank - 1)).flatten(1)
    else:
        flat = torch.randn(NUM, len(plane.mean), generator=generator, dtype=torch.float64)
    plane.basis.copy_(torch.linalg.qr(flat.T).Q)
    plane.mean.fill_(0.3)
    plane.deviation.copy_(torch.tensor([3.0, 2.0, 1.0]))
    grid = [size // step for size, step in zip(SIZES[rank], strides, strict=True)]
    if causal:
        grid[0] += 1
    code = torch.randn(num, NUM, *grid, generator=generator, dtype=torch.float64)
    return plane.decode(code, is_first=True)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_what_lies_in_so_many_components_comes_back_exactly(rank, causal):
    sample = samples_of_few_components(rank, causal)
    components = BlockPCA(2, NUM, STRIDES[rank], causal).double()
    components.fit(sample.split(10))
    code = components.encode(sample, is_first=True)
    assert torch.allclose(components.decode(code, is_first=True), sample, atol=1e-5)  # blocks are summed in float32
    flat = code.movedim(1, -1).flatten(0, -2)
    assert torch.allclose(flat.T @ flat / len(flat), torch.eye(NUM, dtype=torch.float64), atol=1e-4)
    if not causal:
        assert components.deviation.tolist() == pytest.approx([3.0, 2.0, 1.0], rel=0.15)


def test_of_all_linear_maps_components_lose_least():
    """The loss is the sum of the variances left out, which no other plane through the mean can undercut."""
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(400, 1, 8, generator=generator) @ torch.randn(8, 8, generator=generator) + 0.5
    components = BlockPCA(1, NUM, (4,), causal=False)
    components.fit([sample])
    made = components.decode(components.encode(sample, True), True)
    blocks = sample.reshape(-1, 4).double()
    variances = torch.linalg.eigvalsh(torch.cov(blocks.T, correction=0))
    lost = (made - sample).square().mean().item()
    assert lost == pytest.approx(variances[: 4 - NUM].sum().item() / 4, rel=1e-3)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_fresh_network_is_its_components(rank):
    strides = [STRIDES[rank], [1] * rank]
    network = KLAutoencoder(
        2, NUM, rank=rank, strides=strides, widths=(8, 12), causal=True, linear_residual=True
    ).double()
    sample = samples_of_few_components(rank, causal=True)
    network.prepare(sample.split(16))
    mean, log_variance = network.posterior(sample)
    assert torch.equal(mean, network.components.encode(sample, True))
    assert (log_variance == INITIAL_LOG_VARIANCE).all()
    assert torch.allclose(network.synthesize(mean), sample, atol=1e-5)
    assert not any(name.startswith("components") for name, _ in network.named_parameters()), "measured, not trained"
    other = KLAutoencoder(
        2, NUM, rank=rank, strides=strides, widths=(8, 12), causal=True, linear_residual=True
    ).double()
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.posterior(sample)[0], mean), "weights bring the components along"


def test_pieces_are_the_whole_and_nothing_depends_on_what_comes_later():
    torch.manual_seed(0)
    network = KLAutoencoder(
        2, NUM, rank=3, strides=[(3, 1, 1), (1, 2, 2)], widths=(8, 8), causal=True, chunk=2, linear_residual=True
    ).double()
    sample = torch.cat([samples_of_few_components(3, causal=True)[:2]] * 2, 2)[:, :, :19]
    network.prepare([sample])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    network.fit([sample])
    whole = network.scale.normalize(network.posterior(sample)[0])
    latent = network.encode(sample)
    assert torch.allclose(latent, whole, atol=1e-12)
    made = network.synthesize(network.scale.denormalize(latent)).clamp(-1, 1)
    assert torch.allclose(network.decode(latent), made, atol=1e-12)
    changed = sample.clone()
    changed[:, :, 10:] += 1.0
    assert torch.equal(network.posterior(changed)[0][:, :, :4], network.posterior(sample)[0][:, :, :4])
    assert not torch.equal(network.posterior(changed)[0][:, :, 4], network.posterior(sample)[0][:, :, 4])


def test_data_with_fewer_components_and_wishes_that_exclude_each_other_are_refused():
    components = BlockPCA(1, NUM, (2, 2), causal=False)
    with pytest.raises(ValueError, match="16 blocks of the training data have fewer than 3 components"):
        components.fit([torch.zeros(4, 1, 4, 4)])
    with pytest.raises(ValueError, match=r"a block of 4 values has fewer than 5 components"):
        BlockPCA(1, 5, (2, 2), causal=False)
    with pytest.raises(ValueError, match="give image_weights or linear_residual, not both"):
        VideoAutoencoder(3, 8, 3, width=8, linear_residual=True, image_weights="pictures.safetensors")


def test_training_leaves_the_components_and_improves_on_them():
    torch.manual_seed(0)
    grid = torch.linspace(-math.pi, math.pi, 16)
    sample = torch.sin(grid + 6 * torch.rand(64, 1, 1)) * torch.sin(2 * grid + 6 * torch.rand(64, 1, 1)) * 0.5
    network = KLAutoencoder(1, 1, rank=1, strides=[4], widths=(16,), linear_residual=True)
    network.prepare([sample])
    before = {name: value.clone() for name, value in network.state_dict().items() if name.startswith("components")}
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    errors = []
    for _ in range(60):
        error = (network.synthesize(network.posterior(sample)[0]) - sample).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0]
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())

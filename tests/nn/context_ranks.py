"""Computes networks on two ranks that share the tokens: ``python -m tests.nn.context_ranks FOLDER RANK``.

Each rank leaves its results in FOLDER. ``compute`` without a group is the same on one process.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from modalities.video.backbone import SpaceTimeTransformer
from scm_media.conditioning import Conditioning
from scm_media.nn.context_parallel import context_parallel, exchange, gather, split
from scm_media.nn.dual import DualTensor
from scm_media.nn.text import text_widths
from scm_media.nn.transformer import Transformer
from scm_media.tangent import value_and_tangent
from tests.nn.texts import WIDTHS, with_text

NUM = 2
"""Ranks, which each share the tokens of all samples."""


def _noisy(net):
    """The network in float64 with weights that all count (a fresh one gives 0)."""
    for parameter in net.parameters():
        parameter.data = 0.2 * torch.randn_like(parameter) + (0.5 if parameter.ndim == 1 else 0.0)
    return net.double()


def line(**options):
    torch.manual_seed(0)
    return _noisy(Transformer(2, 1, 2, 24, 2, 2, labels={"class": 4}, num_cond_channels=3, guidance=True, **options))


def clip(attention="factorised", num_heads=2, **options):
    torch.manual_seed(0)
    options = {"labels": {"class": 4}, "num_cond_channels": 3, **options}
    return _noisy(SpaceTimeTransformer(2, (1, 2, 2), 24, 2, num_heads, attention, **options))


class Checkpointed(nn.Module):
    """A block whose activations are computed again in the backward pass."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, *inputs):
        return checkpoint(self.block, *inputs, use_reentrant=False)


def checkpointed(net):
    net.blocks = nn.ModuleList(map(Checkpointed, net.blocks))
    return net


def inputs(latent, masked=False):
    """Pairs u and t of three samples, of which the last has no place that is not padding where masked."""
    generator = torch.Generator().manual_seed(1)
    u, du = (torch.randn(3, *latent, generator=generator, dtype=torch.float64) for _ in range(2))
    t, dt = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    valid = torch.ones(3, 1, *latent[1:], dtype=torch.float64)
    valid[1, ..., latent[-1] // 2 :] = 0
    if len(latent) > 2:
        valid[1, :, latent[1] // 2 :] = 0
    valid[2] = 0
    cond = Conditioning(
        labels={"class": torch.arange(3)},
        concat=torch.randn(3, 3, *latent[1:], generator=generator, dtype=torch.float64),
        padding_mask=valid if masked else None,
        guidance=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64),
    )
    return u, t, cond, du, dt


CASES = {
    "even": (line, (2, 16), False),
    "odd": (line, (2, 10), False),
    "even, masked": (line, (2, 16), True),
    "odd, masked": (line, (2, 10), True),
    "one token": (line, (2, 2), False),
    "skip": (lambda: line(skip=True), (2, 10), True),
    "checkpointed": (lambda: checkpointed(line()), (2, 10), True),
    "full": (lambda: clip("full"), (2, 3, 2, 6), True),
    "clip": (clip, (2, 4, 2, 4), False),
    "odd clip": (clip, (2, 3, 2, 6), False),
    "odd clip, masked": (clip, (2, 3, 2, 6), True),
    "one frame": (clip, (2, 1, 2, 6), True),
    "odd heads": (lambda: clip(num_heads=3), (2, 3, 2, 6), True),
    "text": (lambda: line(text=WIDTHS), (2, 10), True),
    "text of a clip": (lambda: clip(text=WIDTHS), (2, 3, 2, 6), True),
    "checkpointed clip": (lambda: checkpointed(clip()), (2, 3, 2, 6), True),
}

VARIANTS = {
    "forward": {"method": "forward"},
    "finite_difference": {"method": "finite_difference"},
    "data parallel": {"wrap": lambda net: _Parallel(net)},
    "sharded": {"wrap": lambda net: _sharded(net)},
    "compiled": {"wrap": lambda net: _in_one_graph(net)},
}
"""What the ranks compute the case "odd, masked" with beside."""


def compute(name, group=None, weight=1.0, method="one_pass", wrap=None):
    """Returns value, tangent, gradients of a weighted loss and the tokens that the first block gets."""
    make, latent, masked = CASES[name]
    net = make()
    u, t, cond, du, dt = inputs(latent, masked)
    cond = with_text(cond) if text_widths(net) else cond
    u.requires_grad_()
    lengths = []
    net.blocks[0].register_forward_pre_hook(lambda _, args: lengths.append(_value(args[0]).shape[1]))
    called = net if wrap is None else wrap(net)
    with context_parallel(group):
        out = value_and_tangent(called, u, t, cond, du, dt, method)
    # The block has ended: what is computed again in the backward pass finds its group by itself.
    (weight * ((out.value - 0.3 * out.tangent).square().mean() + out.value.sin().sum())).backward()
    gradients = {key: _whole(parameter.grad) for key, parameter in net.named_parameters()} | {"u": u.grad}
    return {"value": out.value.detach(), "tangent": out.tangent, "gradients": gradients, "length": lengths[0]}


def _value(x):
    return x.value if isinstance(x, DualTensor) else x


def _whole(gradient):
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient


def _sharded(net):
    """The network with its parameters in parts on all ranks (FSDP2), whose gradients are averaged over all ranks."""
    ranks = init_device_mesh("cpu", (1, NUM), mesh_dim_names=("data", "tokens"))._flatten()
    for block in net.blocks:
        fully_shard(block, mesh=ranks)
    return fully_shard(net, mesh=ranks)


class _Parallel(DistributedDataParallel):
    """Data parallelism over all ranks, which takes dual tensors."""

    accepts_dual = True


def _in_one_graph(net):
    """The network as one compiled graph; torch raises an error where it would break it."""
    net.compile(backend="aot_eager", fullgraph=True)
    return net


def collectives(group):
    """Returns what the ranks of the group have of a pair of 5 places in 3 columns, and after each exchange."""
    whole = torch.arange(30.0, dtype=torch.float64).reshape(2, 5, 3)
    x = DualTensor(whole, -whole)
    rows = split(x, 1, group)
    columns = exchange(rows, 2, 1, 5, group)
    back = exchange(columns, 1, 2, 3, group)
    return {
        name: (each.value, each.tangent)
        for name, each in {
            "rows": rows,
            "columns": columns,
            "back": back,
            "whole": gather(rows, 1, 5, group),
            "units": split(x, 1, group, unit=2),
        }.items()
    }


def refusals(group):
    """Returns what a network says whose heads the ranks cannot share."""
    try:
        with context_parallel(group):
            clip("full", num_heads=3)(*inputs((2, 3, 2, 6))[:3])
    except ValueError as error:
        return str(error)
    return ""


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=NUM)
    group = dist.new_group(list(range(NUM)))
    found = {name: compute(name, group) for name in CASES}
    found |= {name: compute("odd, masked", group, **options) for name, options in VARIANTS.items()}
    found["unlike losses"] = compute("odd, masked", group, weight=1.0 + rank)
    results = {"networks": found, "collectives": collectives(group)}
    results["refused"] = refusals(group)
    torch.save(results, folder / f"rank-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

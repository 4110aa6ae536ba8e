"""Shards weights, gradients and the optimizer among devices (FSDP2, ``strategy=fsdp``).

Each weight is a ``DTensor``, of which a device holds a part of the rows. A block's whole weights are gathered before it
runs and given up after it. Weight files hold whole tensors, and checkpoints the parts of each device
(``sharded_checkpoints``); a run may go on with any number of devices and any strategy.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from scm_media.nn.recompute import repeated_blocks

if TYPE_CHECKING:  # it takes seconds to import, and most runs shard nothing
    from torch.distributed.device_mesh import DeviceMesh


def sharding_strategy(num_devices: int, num_sharing: int = 1, narrow: bool = False) -> Any:
    """Returns Fabric's strategy that shards the networks of a loss among all devices.

    num_sharing: devices that share the tokens of each sample, which divide ``num_devices``. narrow: networks compute in
    bfloat16, and the weights of their blocks are gathered in it.
    """
    from scm_media.fabric import ModelParallelStrategy

    groups, shard = num_devices // num_sharing, partial(shard_loss, narrow=narrow)
    return ModelParallelStrategy(shard, data_parallel_size=groups, tensor_parallel_size=num_sharing)


def is_sharded(fabric: Any) -> bool:
    """Returns whether a Fabric shards weights, so that all devices must run a network together."""
    from scm_media.fabric import ModelParallelStrategy

    return isinstance(fabric.strategy, ModelParallelStrategy)


def place_in_batch(fabric: Any) -> tuple[int, int]:
    """Returns the number of this device's part of the batch, and the number of parts.

    Devices that share the tokens of each sample have the same part.
    """
    if not is_sharded(fabric):
        return fabric.global_rank, fabric.world_size
    groups = fabric.strategy.device_mesh["data_parallel"]
    return groups.get_local_rank(), groups.size()


def token_group(fabric: Any) -> Any:
    """Returns the process group of the devices that share the tokens of each sample with this one, None for none."""
    if not is_sharded(fabric) or fabric.strategy.device_mesh["tensor_parallel"].size() == 1:
        return None
    return fabric.strategy.device_mesh["tensor_parallel"].get_group()


def shard_loss(module: nn.Module, mesh: DeviceMesh, narrow: bool = False) -> nn.Module:
    """Shards the networks of a wrapped loss, and the frozen ones beside it, with the values of the first device.

    module: has the loss as ``module.loss`` and frozen networks, which are no part of it, as ``module.frozen``. Networks
    of the other devices may be on the meta device: they never hold whole weights. narrow: the weights of blocks are
    gathered in bfloat16. Those that networks use in full precision, and those outside blocks, are gathered wide, and
    gradients are summed wide. Returns the module.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    half = torch.bfloat16 if narrow else None
    of_blocks = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)

    inner: Any = module
    sharing = mesh["tensor_parallel"].size() > 1
    devices = mesh[("data_parallel", "tensor_parallel")]._flatten() if sharing else mesh["data_parallel"]
    for network in (*inner.loss.children(), *inner.frozen):  # each is called on its own, in validations and sheets too
        whole = dict(_entries(network))
        if any(True for _ in network.parameters()):
            for block in repeated_blocks(network):
                if narrow and (wide := [each for each in block.modules() if hasattr(each, "in_full_precision")]):
                    fully_shard(wide, mesh=devices)
                fully_shard(block, mesh=devices, mp_policy=of_blocks)
            fully_shard(network, mesh=devices, reshard_after_forward=True)
        if devices.size() > 1:
            _take_from_first(network, whole, devices.device_type)
    return module


@torch.no_grad()
def _take_from_first(network: nn.Module, whole: Mapping[str, Tensor], device: str) -> None:
    """Gives a sharded network the values that the first device had before sharding, one tensor after the other.

    whole: the parameters and buffers from before, by name; those of other devices are not read.
    """
    from torch import distributed

    if any(entry.is_meta for _, entry in _entries(network)):
        network.to_empty(device=device)
    first = distributed.get_rank() == 0
    for name, own in _entries(network):
        value = whole[name].detach().to(device) if first else torch.empty(own.shape, dtype=own.dtype, device=device)
        distributed.broadcast(value, src=0)
        _own_part(own).copy_(_own_part(_shard(value, own)))


def _entries(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields the parameters and buffers of a network by name, those that no file holds among them."""
    yield from network.named_parameters()
    yield from network.named_buffers()


def _own_part(value: Tensor) -> Tensor:
    """Returns the part of a tensor that is on this device."""
    sharded: Any = value
    return sharded.to_local() if is_sharded_tensor(value) else value


def gather(state: Any, keep: bool = True) -> Any:
    """Returns nested dicts and lists with whole tensors on the CPU in the place of sharded ones.

    All devices must call this. keep: false gives None in the place of sharded tensors, on devices that write nothing.
    """
    if is_sharded_tensor(state):
        whole = whole_tensor(state).detach()
        return whole.cpu() if keep else None
    if isinstance(state, Mapping):
        return {name: gather(value, keep) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return [gather(value, keep) for value in state]
    return state


def shard_like(state: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Returns whole tensors, each sharded as the tensor of its name in ``like`` is.

    Gains that were saved without a dimension get one.
    """
    return {name: _shard(value, like.get(name)) for name, value in state.items()}


def shard_optimizer_state(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Returns an optimizer's saved state, whose averages are sharded as their parameters are."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    of_number = dict(zip(numbers, parameters, strict=True))
    entries = {
        number: {name: value if name == "step" else _shard(value, of_number[number]) for name, value in entry.items()}
        for number, entry in state["state"].items()
    }
    return {**state, "state": entries}


def whole_tensor(value: Tensor) -> Tensor:
    """Returns a tensor as a whole on each device, where devices hold parts of it or of its sum."""
    sharded: Any = value
    return sharded.full_tensor() if is_sharded_tensor(value) else value


def is_sharded_tensor(value: object) -> bool:
    """Returns whether a value is a tensor of which each device holds a part."""
    module = sys.modules.get("torch.distributed.tensor")  # nobody has made one before this is imported
    return module is not None and isinstance(value, module.DTensor)


def _shard(value: Any, like: Any) -> Any:
    """Returns a tensor sharded as ``like`` is, if that is sharded and of the same shape."""
    if isinstance(value, Tensor) and isinstance(like, Tensor) and value.ndim == 0 and like.shape == (1,):
        value = value.reshape(1)
    whole = isinstance(value, Tensor) and not is_sharded_tensor(value)
    if not whole or not is_sharded_tensor(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    local = value.to(like.device_mesh.device_type)
    return distribute_tensor(local, like.device_mesh, like.placements, src_data_rank=None)

"""Training whose weights, gradients and optimizer are divided among the devices (FSDP2, ``strategy=fsdp``).

Each weight is a ``DTensor``, of which a device holds a part of the rows. A block's whole weights are gathered before it
runs and given up after it. Checkpoints and weight files hold whole tensors, so a run may go on with any number of
devices and any strategy.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from scm_media.guidance import Guided
from scm_media.nn.recompute import repeated_blocks

if TYPE_CHECKING:  # they take seconds to import, and most runs divide nothing
    from torch.distributed.device_mesh import DeviceMesh


def sharding_strategy(num_devices: int, num_sharing: int = 1) -> Any:
    """Returns Fabric's strategy that divides the networks of a loss among all devices.

    num_sharing: devices that share the tokens of each sample, which divide ``num_devices``.
    """
    from lightning.fabric.strategies import ModelParallelStrategy

    groups = num_devices // num_sharing
    return ModelParallelStrategy(shard_loss, data_parallel_size=groups, tensor_parallel_size=num_sharing)


def is_sharded(fabric: Any) -> bool:
    """Returns whether a Fabric divides weights among devices, so that all of them must run a network together."""
    from lightning.fabric.strategies import ModelParallelStrategy

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


def shard_loss(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Divides the networks of a wrapped loss, and those of its frozen teacher, which are no part of the module.

    module: has the loss as ``module.loss``. Returns the module.
    """
    from torch.distributed.fsdp import fully_shard

    loss: Any = module.loss
    teacher = getattr(loss, "teacher", None)
    frozen = (teacher.backbone, teacher.guide) if isinstance(teacher, Guided) else (teacher,)
    sharing = mesh["tensor_parallel"].size() > 1
    devices = mesh[("data_parallel", "tensor_parallel")]._flatten() if sharing else mesh["data_parallel"]
    for network in (*loss.children(), *frozen):  # each is called on its own, in validations and sheets too
        if isinstance(network, nn.Module) and any(True for _ in network.parameters()):
            for block in repeated_blocks(network):
                fully_shard(block, mesh=devices)
            fully_shard(network, mesh=devices, reshard_after_forward=True)
    return module


def gathered(state: Any, keep: bool = True) -> Any:
    """Returns nested dicts and lists with whole tensors on the CPU in the place of divided ones.

    All devices must call this. keep: false gives None in the place of divided tensors, on devices that write nothing.
    """
    if is_divided(state):
        whole: Tensor = state.full_tensor().detach()
        return whole.cpu() if keep else None
    if isinstance(state, Mapping):
        return {name: gathered(value, keep) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return [gathered(value, keep) for value in state]
    return state


def divided(state: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Returns whole tensors, each divided among the devices as the tensor of its name in ``like`` is.

    Gains that were saved without a dimension get one.
    """
    return {name: _as_divided(value, like.get(name)) for name, value in state.items()}


def divided_optimizer(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Returns an optimizer's saved state, whose averages are divided as their parameters are."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    of_number = dict(zip(numbers, parameters, strict=True))
    entries = {
        number: {
            name: value if name == "step" else _as_divided(value, of_number[number]) for name, value in entry.items()
        }
        for number, entry in state["state"].items()
    }
    return {**state, "state": entries}


def whole_number(value: Tensor) -> float:
    """Returns a tensor of one entry as a number, also where devices hold parts of its sum."""
    whole: Any = value
    return float((whole.full_tensor() if is_divided(value) else whole).item())


def is_divided(value: object) -> bool:
    """Returns whether a value is a tensor of which each device holds a part."""
    module = sys.modules.get("torch.distributed.tensor")  # nobody has made one before this is imported
    return module is not None and isinstance(value, module.DTensor)


def _as_divided(value: Any, like: Any) -> Any:
    """Returns a tensor divided as ``like`` is, if that is divided and of the same shape."""
    if isinstance(value, Tensor) and isinstance(like, Tensor) and value.ndim == 0 and like.shape == (1,):
        value = value.reshape(1)
    if not is_divided(like) or not isinstance(value, Tensor) or is_divided(value) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    local = value.to(like.device_mesh.device_type)
    return distribute_tensor(local, like.device_mesh, like.placements, src_data_rank=None)

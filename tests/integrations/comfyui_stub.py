"""The part of ComfyUI that nodes see: its modules, the import of a node folder, and the execution of a graph.

Every value that goes from one node to another is held against the type that its node declares.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

NODES = Path(__file__).parents[2] / "integrations" / "comfyui"
CONSTANTS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass
class VideoComponents:
    """The frames, rate and sound of a VIDEO."""

    images: torch.Tensor
    frame_rate: Fraction
    audio: Any = None
    metadata: Any = None


class VideoFromComponents:
    """A VIDEO."""

    def __init__(self, components: VideoComponents) -> None:
        self.components = components

    def get_components(self) -> VideoComponents:
        return self.components


class Interrupted(Exception):
    """Raised where the user of ComfyUI cancels."""


@dataclass
class Comfy:
    """One ComfyUI: its folders, what its user did, and the nodes that were imported."""

    root: Path
    nodes: Any = None
    cancelled: bool = False
    progress: list[tuple[int, int]] = field(default_factory=list)
    args: Any = field(default_factory=lambda: SimpleNamespace(disable_metadata=False))
    cache: dict[str, Any] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)

    @property
    def models(self) -> Path:
        return self.root / "models" / "scm_media"

    @property
    def output(self) -> Path:
        return self.root / "output"


def install(patch: Any, root: Path, video: bool = True, extra_models: Path | None = None) -> Comfy:
    """Puts ComfyUI's modules in their place and imports the node folder by its path, as ComfyUI does."""
    made = Comfy(root)
    made.models.mkdir(parents=True)
    made.output.mkdir()
    modules = {"folder_paths": _folder_paths(made, extra_models), **_comfy(made)}
    modules["comfy_api"] = types.ModuleType("comfy_api")
    latest = types.ModuleType("comfy_api.latest")
    if video:
        latest.InputImpl = SimpleNamespace(VideoFromComponents=VideoFromComponents)
        latest.Types = SimpleNamespace(VideoComponents=VideoComponents)
    modules["comfy_api.latest"] = latest
    for name, module in modules.items():
        patch.setitem(sys.modules, name, module)
    made.nodes = import_nodes(patch, NODES)
    return made


def import_nodes(patch: Any, folder: Path) -> Any:
    """Imports a folder of nodes under the name that ComfyUI gives it: its path."""
    name = str(folder).replace(".", "_x_")
    for known in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
        patch.delitem(sys.modules, known)
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    for known in [each for each in sys.modules if each.startswith(f"{name}.")]:
        patch.setitem(sys.modules, known, sys.modules[known])  # so that they are forgotten after the test
    return module


def _folder_paths(comfy: Comfy, extra: Path | None) -> types.ModuleType:
    module: Any = types.ModuleType("folder_paths")
    module.models_dir = str(comfy.root / "models")
    module.folder_names_and_paths = {} if extra is None else {"scm_media": ([str(extra)], set())}

    def add_model_folder_path(name: str, path: str, is_default: bool = False) -> None:
        module.folder_names_and_paths.setdefault(name, ([], set()))[0].append(path)

    def get_save_image_path(
        prefix: str, output: str, width: int = 0, height: int = 0
    ) -> tuple[str, str, int, str, str]:
        subfolder, name = os.path.split(os.path.normpath(prefix))
        folder = os.path.join(output, subfolder)
        if os.path.commonpath((output, os.path.abspath(folder))) != output:
            raise Exception("Saving image outside the output folder is not allowed.")
        os.makedirs(folder, exist_ok=True)
        taken = [each[len(name) + 1 :].split("_")[0] for each in os.listdir(folder) if each.startswith(f"{name}_")]
        return folder, name, 1 + max((int(each) for each in taken if each.isdigit()), default=0), subfolder, prefix

    module.add_model_folder_path = add_model_folder_path
    module.get_folder_paths = lambda name: list(module.folder_names_and_paths[name][0])
    module.get_output_directory = lambda: str(comfy.output)
    module.get_save_image_path = get_save_image_path
    return module


def _comfy(comfy: Comfy) -> dict[str, types.ModuleType]:
    package, management, utils, cli = (
        types.ModuleType(name) for name in ("comfy", "comfy.model_management", "comfy.utils", "comfy.cli_args")
    )

    def throw_exception_if_processing_interrupted() -> None:
        if comfy.cancelled:
            raise Interrupted

    class ProgressBar:
        def __init__(self, total: int, node_id: Any = None) -> None:
            self.total, self.current = total, 0

        def update(self, value: int) -> None:
            self.current += value
            comfy.progress.append((self.current, self.total))

    management.get_torch_device = lambda: torch.device("cpu")
    management.throw_exception_if_processing_interrupted = throw_exception_if_processing_interrupted
    utils.ProgressBar = ProgressBar
    cli.args = comfy.args
    package.model_management, package.utils, package.cli_args = management, utils, cli
    return {each.__name__: each for each in (package, management, utils, cli)}


def check_type(value: Any, declared: str) -> None:
    """Asserts that a value is what ComfyUI means by a type."""
    if declared == "IMAGE":
        assert isinstance(value, torch.Tensor) and value.dtype == torch.float32 and value.device.type == "cpu"
        assert value.ndim == 4 and value.shape[-1] == 3 and value.is_contiguous()
        assert float(value.min()) >= 0 and float(value.max()) <= 1
    elif declared == "MASK":
        assert isinstance(value, torch.Tensor) and value.ndim == 3
    elif declared == "AUDIO":
        assert value.keys() == {"waveform", "sample_rate"} and isinstance(value["sample_rate"], int)
        assert value["waveform"].dtype == torch.float32 and value["waveform"].ndim == 3
    elif declared == "VIDEO":
        components = value.get_components()
        assert isinstance(components.frame_rate, Fraction)
        check_type(components.images, "IMAGE")
    else:
        assert declared.startswith("SCM_MEDIA_"), declared
        assert value is not None


def check_constant(name: str, value: Any, declared: tuple[Any, ...]) -> Any:
    """Returns a widget's value as ComfyUI hands it over; raises ValueError for one that it refuses."""
    kind, options = declared[0], declared[1] if len(declared) > 1 else {}
    if isinstance(kind, list):
        if value not in kind:
            raise ValueError(f"Value not in list: {name}: {value!r} not in {kind}")
        return value
    assert kind in CONSTANTS, f"{name} of type {kind} cannot be a widget"
    value = CONSTANTS[kind](value)
    if value < options.get("min", value) or value > options.get("max", value):
        raise ValueError(f"{name}: {value} is not within {options['min']} … {options['max']}")
    return value


def execute(
    comfy: Comfy, graph: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Runs a graph in ComfyUI's API format (nodes in order) and returns the outputs of each node.

    given: results of nodes that are not ours, by id, as ``[[type, value], ...]``. Nodes whose inputs are as they were
    the last time are not run again.
    """
    results: dict[str, Any] = {}
    with torch.inference_mode():
        for identity, node in graph.items():
            kind = comfy.nodes.NODE_CLASS_MAPPINGS[node["class_type"]]
            inputs, keys, lists = _inputs(comfy, kind, node["inputs"], results, given or {}, graph)
            stamp = None
            if hasattr(kind, "IS_CHANGED"):
                stamp = kind.IS_CHANGED(**inputs)
            key = (node["class_type"], keys, stamp)
            if identity in comfy.cache and comfy.cache[identity][0] == key and not getattr(kind, "OUTPUT_NODE", False):
                results[identity] = comfy.cache[identity][1]
                continue
            comfy.executed.append(identity)
            function = getattr(kind(), kind.FUNCTION)
            num = max((len(inputs[name]) for name in lists), default=1)
            calls = []
            for position in range(num):
                own = {
                    name: value[min(position, len(value) - 1)] if name in lists else value
                    for name, value in inputs.items()
                }
                calls.append(_checked(kind, function(**own)))
            results[identity] = calls[0] if num == 1 else _merged(kind, calls)
            comfy.cache[identity] = (key, results[identity])
    return results


def _inputs(comfy, kind, written, results, given, graph):
    """Returns the inputs of a node's function, a key of them, and the names of those that are lists."""
    declared = kind.INPUT_TYPES()
    known = {**declared["required"], **declared.get("optional", {})}
    assert not set(declared) - {"required", "optional", "hidden"}
    if missing := [name for name in declared["required"] if name not in written]:
        raise ValueError(f"Required input is missing: {', '.join(missing)}")
    inputs, lists = {}, set()
    for name, value in written.items():
        assert name in known, f"{kind.__name__} has no input {name}"
        if not isinstance(value, list):
            inputs[name] = check_constant(name, value, known[name])
            continue
        source, slot = value
        if source in given:
            offered, inputs[name], is_list = *given[source][slot], False
        else:
            maker = comfy.nodes.NODE_CLASS_MAPPINGS[graph[source]["class_type"]]
            offered, inputs[name] = maker.RETURN_TYPES[slot], results[source][slot]
            is_list = getattr(maker, "OUTPUT_IS_LIST", (False,) * len(maker.RETURN_TYPES))[slot]
        assert offered == known[name][0], f"{name} takes {known[name][0]}, got {offered}"
        if is_list:
            lists.add(name)
    hidden = {"PROMPT": dict(graph), "EXTRA_PNGINFO": {"workflow": {"nodes": sorted(graph)}}}
    keys = {name: id(value) if isinstance(written.get(name), list) else value for name, value in inputs.items()}
    inputs |= {name: hidden[each] for name, each in declared.get("hidden", {}).items()}
    return inputs, keys, lists


def _checked(kind: Any, made: Any) -> Any:
    """Returns the outputs of a call, each held against its declared type; of an output node what it shows."""
    if isinstance(made, dict):
        assert kind.OUTPUT_NODE and not kind.RETURN_TYPES and made.keys() == {"ui"}
        return made
    assert isinstance(made, tuple) and len(made) == len(kind.RETURN_TYPES) == len(kind.RETURN_NAMES)
    is_list = getattr(kind, "OUTPUT_IS_LIST", (False,) * len(made))
    assert len(is_list) == len(made)
    for value, declared, listed in zip(made, kind.RETURN_TYPES, is_list, strict=True):
        assert isinstance(value, list) == listed
        for each in value if listed else [value]:
            check_type(each, declared)
    return made


def _merged(kind: Any, calls: list[Any]) -> Any:
    """Returns the outputs of several calls of a node as lists."""
    is_list = getattr(kind, "OUTPUT_IS_LIST", (False,) * len(calls[0]))
    return tuple(
        [each for call in calls for each in call[slot]] if listed else [call[slot] for call in calls]
        for slot, listed in enumerate(is_list)
    )

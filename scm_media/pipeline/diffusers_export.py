"""Writes a distilled network of diffusers back into a pipeline of diffusers, with a scheduler of few steps."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from scm_media import weights
from scm_media.adapters import DiffusersFolder, merge, save_lora
from scm_media.adapters.few_steps import few_step_scheduler, few_step_times
from scm_media.adapters.loading import INDEX, read_index
from scm_media.adapters.lora_files import is_lora, restore_student
from scm_media.display import printable
from scm_media.networks import restore
from scm_media.pipeline.hub import find_folder
from scm_media.pipeline.model_folder import ModelFolder, file_within
from scm_media.pipeline.new_folder import check_new, new_folder
from scm_media.pipeline.sampling import FEW_STEPS
from scm_media.reading import read_json

UNREAD = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".msgpack", ".h5", ".onnx")
"""Files of weights in other formats, which are left out of the copy."""


def export_to_diffusers(model: ModelFolder, target: Path, pipeline: str | None = None) -> Path:
    """Writes a folder that ``DiffusionPipeline.from_pretrained`` opens, and returns it.

    It is a copy of the pipeline that the teacher came from, with the student in the place of its network and a
    scheduler that samples it in few steps. pipeline: that folder, by default the one that the recipe names
    (``teacher_from``). Raises ValueError for students of other networks, for a pipeline with another network, and for a
    target that exists.
    """
    check_new(target)
    backbone, config = _whole_student(model)
    source = _open_source(model, pipeline)
    described = source.backbone()
    if any(described[key] != config[key] for key in ("network", "config", "scheduler")):
        raise ValueError(
            f"{source.path} holds a {source.network} or a scheduler of another configuration than the student's: give "
            "the pipeline that its teacher came from, with --pipeline"
        )
    scheduler = few_step_scheduler(backbone, config["scheduler"], model.description.sampler.first_sigma)
    with new_folder(target) as folder:
        _copy_parts(source, folder)
        backbone.network.save_pretrained(folder / source.component, safe_serialization=True)
        scheduler.save_pretrained(folder / "scheduler")
        index = read_json(source.path / INDEX) | {"scheduler": ["diffusers", type(scheduler).__name__]}
        weights.write_whole(folder / INDEX, f"{json.dumps(index, indent=2)}\n".encode())
        weights.write_whole(folder / "README.md", _card(model, source, backbone, scheduler).encode())
    return target


def is_of_diffusers(model: ModelFolder) -> bool:
    """Returns true where a model's student is a network of diffusers, or a LoRA of one.

    Raises ValueError for a model without a student.
    """
    config = model.read("student", check=False).config
    return is_lora(config) or _is_network(config)


def _is_network(config: Mapping[str, Any]) -> bool:
    return {"scheduler", "network"} <= config.keys()


def export_lora(model: ModelFolder, target: Path) -> Path:
    """Writes a LoRA student to one safetensors file that ``pipeline.load_lora_weights`` reads, and returns it.

    Raises ValueError for a student that is no LoRA, and for a file that exists.
    """
    component = model.read("student")
    if not is_lora(component.config):
        raise ValueError(f"{model.path}: its student has weights of its own; train one with student.lora={{rank:16}}")
    if target.suffix != ".safetensors" or target.exists():
        raise ValueError(f"{target}: name a new file that ends in .safetensors")
    base: Any = restore(model.read("teacher"), "teacher", model.file("teacher"))
    first = model.description.sampler.first_sigma
    info = component.info if first is None else {**component.info, "first_sigma": first}
    save_lora(target, restore_student(component, base, model.file("student")), info)
    if first is not None:
        print(
            f"{target}: this LoRA samples from the noise level {first:g} on: take the scheduler of a folder exported "
            "with --format diffusers, which begins there",
            file=sys.stderr,
        )
    return target


def _whole_student(model: ModelFolder) -> tuple[Any, dict[str, Any]]:
    """Returns the student's backbone, with its LoRA in its weights, and its configuration."""
    component = model.read("student")
    if not is_lora(component.config):
        if not _is_network(component.config):
            raise ValueError(
                f"{model.path}: its student is no network of diffusers: scm_media.diffusers.export writes a pipeline "
                "of its own for it"
            )
        return restore(component, "student", model.file("student")), component.config
    teacher = model.read("teacher")
    base, whole = (cast(Any, restore(teacher, "teacher", model.file("teacher"))) for _ in range(2))
    whole.network.load_state_dict(merge(restore_student(component, base, model.file("student"))))
    return whole, teacher.config


def _open_source(model: ModelFolder, pipeline: str | None) -> DiffusersFolder:
    named = pipeline or (model.recipe() or {}).get("teacher_from")
    if named is None:
        raise ValueError(f"{model.path} does not say which pipeline its teacher came from: give it with --pipeline")
    try:
        return DiffusersFolder(find_folder(named))
    except ValueError as error:
        raise ValueError(f"{error}; give the pipeline that the teacher came from, with --pipeline") from error


def _copy_parts(source: DiffusersFolder, target: Path) -> None:
    """Copies the parts of a pipeline but for its network and its scheduler; weights of pickle are left out.

    Raises ValueError for links out of the folder, and for parts that have no other weights.
    """
    for part in read_index(source.path):
        if part in (source.component, "scheduler"):
            continue
        files = [file for file in sorted((source.path / part).rglob("*")) if file.is_file() and file.name[0] != "."]
        left_out = [file for file in files if file.suffix in UNREAD]
        if left_out and not any(file.suffix == ".safetensors" for file in files):
            raise ValueError(
                f"{left_out[0]} is not copied, and {part} has no other weights: save the pipeline with "
                "save_pretrained(safe_serialization=True) first"
            )
        for file in files:
            if file not in left_out:
                name = file.relative_to(source.path)
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file_within(source.path, str(name)), target / name)


def _card(model: ModelFolder, source: DiffusersFolder, backbone: Any, scheduler: Any) -> str:
    """Returns the text of the folder's card: how it is used, and the times of each number of steps."""
    rows = [f"| {steps} | {times} | {given} |" for steps, times, given in _list_times(backbone, scheduler)]
    return f"""# {printable(model.description.name)}

A {source.network} that was distilled with scm-media to sample in one or two
steps; all other parts are those of {printable(source.path.name)}.

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained(FOLDER)
{_call(model.description.guidance_max)}
```

| steps | times in radians (scm-media) | what {type(scheduler).__name__} calls them |
|---:|---|---|
{chr(10).join(rows)}
"""


def _call(guidance_max: float | None) -> str:
    """Returns the line of the card that calls the pipeline."""
    scale, why = (1.0, "guidance was distilled: leave it off")
    if guidance_max is not None:
        scale, why = (round((1 + guidance_max) / 2, 1), f"the network takes it as an input, 1 to {guidance_max:g}")
    return f"result = pipeline(..., num_inference_steps=2, guidance_scale={scale:g})  # {why}"


def _list_times(backbone: Any, scheduler: Any) -> list[tuple[int, str, str]]:
    found = []
    for steps in FEW_STEPS:
        try:
            times = few_step_times(backbone, scheduler, steps)
        except ValueError:
            continue  # not in so many steps
        given = ", ".join(f"{float(each):g}" for each in scheduler.timesteps[:steps])
        found.append((steps, ", ".join(f"{time:.4f}" for time in times), f"timesteps {given}"))
    return found

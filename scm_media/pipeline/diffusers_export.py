"""Writes a distilled network of diffusers back into a pipeline of diffusers, with a scheduler of few steps."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from scm_media import weights
from scm_media.adapters import DiffusersFolder
from scm_media.adapters.few_steps import few_step_scheduler, few_step_times
from scm_media.adapters.loading import INDEX
from scm_media.display import printable
from scm_media.networks import restore
from scm_media.pipeline.hub import find_folder
from scm_media.pipeline.model_folder import ModelFolder
from scm_media.reading import read_json

STEPS = (1, 2, 4)
UNREAD = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".msgpack", ".h5", ".onnx")
"""Files of weights in other formats, which are left out of the copy."""


def export_to_diffusers(model: ModelFolder, target: Path, pipeline: str | None = None) -> Path:
    """Writes a folder that ``DiffusionPipeline.from_pretrained`` opens, and returns it.

    It is a copy of the pipeline that the teacher came from, with the student in the place of its network and a
    scheduler that samples it in few steps. pipeline: that folder, by default the one that the recipe names
    (``teacher_from``). Raises ValueError for students of other networks, for a pipeline with another network, and for a
    target that exists.
    """
    student = model.read("student")
    if "scheduler" not in student.config or "network" not in student.config:
        raise ValueError(
            f"{model.path}: its student is no network of diffusers, so no pipeline there takes it; distil one of their "
            "teachers (teacher_from), or export without --format"
        )
    if target.exists():
        raise ValueError(f"{target} exists: export to a folder that does not")
    source = _open_source(model, pipeline)
    if (source.network, source.config) != (student.config["network"], student.config["config"]):
        raise ValueError(
            f"{source.path} holds a {source.network} of another configuration than the student's: give the pipeline "
            "that its teacher came from, with --pipeline"
        )
    backbone: Any = restore(student, "student", model.file("student"))
    scheduler = few_step_scheduler(backbone, source.scheduler)
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    weights.remove_leftovers(target.parent.glob(f".{target.name}.*.part"))
    try:
        shutil.copytree(source.path, aside, ignore=lambda _, names: [each for each in names if _is_left_out(each)])
        for name in (source.component, "scheduler", INDEX, "README.md"):
            _remove(aside / name)
        backbone.network.save_pretrained(aside / source.component, safe_serialization=True)
        scheduler.save_pretrained(aside / "scheduler")
        index = read_json(source.path / INDEX) | {"scheduler": ["diffusers", type(scheduler).__name__]}
        weights.write_whole(aside / INDEX, f"{json.dumps(index, indent=2)}\n".encode())
        weights.write_whole(aside / "README.md", _card(model, source, backbone, scheduler).encode())
        os.rename(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return target


def _open_source(model: ModelFolder, pipeline: str | None) -> DiffusersFolder:
    named = pipeline or (model.recipe() or {}).get("teacher_from")
    if named is None:
        raise ValueError(f"{model.path} does not say which pipeline its teacher came from: give it with --pipeline")
    try:
        return DiffusersFolder(find_folder(named))
    except ValueError as error:
        raise ValueError(f"{error}; give the pipeline that the teacher came from, with --pipeline") from error


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or Path(name).suffix in UNREAD


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _card(model: ModelFolder, source: DiffusersFolder, backbone: Any, scheduler: Any) -> str:
    """Returns the text of the folder's card: how it is used, and the times of each number of steps."""
    rows = [f"| {steps} | {times} | {given} |" for steps, times, given in _list_times(backbone, scheduler)]
    return f"""# {printable(model.description.name)}

A {source.network} that was distilled with scm-media to sample in one or two
steps; all other parts are those of {printable(source.path.name)}.

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained(FOLDER)
result = pipeline(..., num_inference_steps=2, guidance_scale=1.0)  # guidance was distilled: leave it off
```

| steps | times in radians (scm-media) | what {type(scheduler).__name__} calls them |
|---:|---|---|
{chr(10).join(rows)}
"""


def _list_times(backbone: Any, scheduler: Any) -> list[tuple[int, str, str]]:
    found = []
    for steps in STEPS:
        try:
            times = few_step_times(backbone, scheduler, steps)
        except ValueError:
            continue  # not in so many steps
        given = ", ".join(f"{float(each):g}" for each in scheduler.timesteps[:steps])
        found.append((steps, ", ".join(f"{time:.4f}" for time in times), f"timesteps {given}"))
    return found

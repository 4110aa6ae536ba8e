"""Writes a student of ours as a folder that ``DiffusionPipeline.from_pretrained`` opens."""

from __future__ import annotations

from pathlib import Path

from diffusers import SCMScheduler

from scm_media import weights
from scm_media.build import build
from scm_media.diffusers.components import ScmMediaAutoencoder, ScmMediaBackbone
from scm_media.diffusers.pipeline import ScmMediaPipeline
from scm_media.pipeline.card import markdown_code, markdown_text
from scm_media.pipeline.export import without_folders
from scm_media.pipeline.model_folder import ModelFolder
from scm_media.pipeline.new_folder import new_folder
from scm_media.pipeline.sampling import student_times


def export_pipeline(model: ModelFolder, target: Path) -> Path:
    """Writes a ``ScmMediaPipeline`` with the model's student and autoencoder into a new folder, and returns it.

    Raises ValueError for a target that exists, a model without one of the two, and one of samples that pipelines of
    diffusers do not return, or that takes texts.
    """
    if model.description.text is not None:
        raise ValueError(
            f"{model.path} takes texts, which our pipelines of diffusers do not take yet: leave --format out, or set "
            "--format safetensors"
        )
    with new_folder(target) as folder:
        parts = {}
        for kind in (ScmMediaBackbone, ScmMediaAutoencoder):
            component = model.read(kind.name)
            plain = weights.Component(component.state, without_folders(component.config), {})
            parts[kind.name] = kind.from_component(plain, model.file(kind.name))
        flow = build(model.description.flow, "flow")
        pipeline = ScmMediaPipeline(
            parts["student"],
            parts["autoencoder"],
            SCMScheduler(sigma_data=flow.sigma_data),
            without_folders(model.description.to_json()),
        )
        pipeline.save_pretrained(folder)
        weights.write_whole(folder / "README.md", _card(pipeline).encode())
    return target


def _card(pipeline: ScmMediaPipeline) -> str:
    """Returns the text of the folder's card: how it is used, its labels, and the times of each number of steps."""
    model = pipeline.model
    rows = [
        f"| {steps} | {', '.join(f'{time:.4f}' for time in times)} |"
        for steps, times in student_times(model.settings, model.flow).items()
    ]
    labels = [
        f"- `{markdown_code(name)}`: {', '.join(map(markdown_text, classes)) or 'a number'}"
        for name, classes in model.labels.names.items()
    ]
    return f"""# {markdown_text(model.name)}

A consistency model of scm-media for diffusers. It needs `pip install 'scm-media[diffusers]'`; the folder has no code.

```python
import scm_media.diffusers  # makes the pipeline's classes known to diffusers
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained(FOLDER)
result = pipeline(batch_size=4, num_inference_steps={model.settings.steps})
```

Labels, as `labels={{name: value}}`; those that are not given are drawn and stand in `pipeline.sample_labels`:

{chr(10).join(labels) or "none"}

`SCMScheduler` steps through these times, which `set_timesteps(steps, timesteps=[*times, 0], max_timesteps=None,
intermediate_timesteps=None)` gives it:

| steps | times in radians |
|---:|---|
{chr(10).join(rows)}
"""

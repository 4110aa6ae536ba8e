"""This module is the REST interface: it has the functions of the tabs under names of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from scm_media.app.asking import Asked, format_walk, parse_walk
from scm_media.app.context import App
from scm_media.app.errors import guarded
from scm_media.app.making import make
from scm_media.app.restore import restore_settings


def build(app: App) -> None:
    """Adds the endpoints to the blocks around it."""

    def models() -> list[dict[str, Any]]:
        """Returns the models with their labels, without the names of hundreds of texts."""
        found = []
        for name in app.models.names:
            pipeline = app.models.pipeline(name)
            labels = {label: list(classes)[:200] for label, classes in pipeline.labels.names.items()}
            found.append({"model": name, "modality": pipeline.modality.name, "labels": labels})
        return found

    def generate(
        model: str,
        label: str = "",
        prompt: str = "",
        seed: int = 0,
        num: int = 1,
        steps: str = "",
        guidance: float | None = None,
        first: int = 0,
        sizes: str = "",
        walk: str = "",
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> list[dict[str, Any]]:
        """Makes samples and returns the settings and the address of each."""
        asked = Asked(
            model=model,
            label=label,
            prompt=prompt,
            seed=seed,
            num=num,
            steps=str("" if steps is None else steps),
            guidance=guidance,
            first=first,
            sizes=sizes,
            walk=parse_walk(walk),
        )
        *_, made = make(app.models, app.folder(request), asked, app.settings.most)
        return [{**each.record, "url": f"/{app.url(each.file)}"} for each in made.results]

    def settings(file: str, request: gr.Request = None) -> dict[str, Any]:  # type: ignore[assignment]
        """Returns the settings inside an uploaded file, by the names that ``generate`` takes; file: as uploads say."""
        path = Path(file).resolve()
        if not path.is_relative_to(app.folders.root) or not path.is_file():
            raise ValueError("file must be what /gradio_api/upload returned for an uploaded file")
        asked, remark = restore_settings(app.models, app.claim(request, path))
        label = " ".join(f"{name}={value}" for name, value in asked.labels.items())
        walk = format_walk(asked.walk) or None
        found = {
            name: getattr(asked, name) for name in ("model", "prompt", "seed", "first", "steps", "guidance", "sizes")
        }
        given = {
            name: value for name, value in {**found, "label": label or None, "walk": walk}.items() if value is not None
        }
        return {"settings": given, "remark": remark}

    gr.api(guarded(settings, page=False), api_name="settings")
    gr.api(guarded(models, page=False), api_name="models")
    gr.api(guarded(generate, page=False), api_name="generate", concurrency_id="make")

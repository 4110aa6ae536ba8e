"""The REST interface: the functions of the tabs under names of their own."""

from __future__ import annotations

from typing import Any

import gradio as gr

from scm_media.app.asking import Asked
from scm_media.app.context import App
from scm_media.app.errors import guarded
from scm_media.app.making import make


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
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> list[dict[str, Any]]:
        """Makes samples and returns the settings and the address of each."""
        asked = Asked(
            model=model,
            label=label,
            prompt=prompt,
            seed=seed,
            num=num,
            steps=str(steps or ""),
            guidance=guidance,
            first=first,
            sizes=sizes,
        )
        *_, made = make(app.models, app.folder(request), asked, app.settings.most)
        return [{**each.record, "url": f"/{app.url(each.file)}"} for each in made.results]

    gr.api(guarded(models, page=False), api_name="models")
    gr.api(guarded(generate, page=False), api_name="generate", concurrency_id="make")

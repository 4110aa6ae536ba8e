"""A folder of pictures with texts beside them, and overrides that train it with a tiny text encoder in seconds."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.text.tiny import save_model

TEXTS = {"dark": "a dog barks", "bright": "bells ring far away"}
LEVELS = {"dark": 20, "bright": 230}


def make_folder(root: Path, num: int = 24) -> Path:
    """Writes pictures, dark and bright ones in turns, with the text of their kind beside each, and returns the root."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(num):
        kind = list(TEXTS)[number % 2]
        Image.new("L", (16, 16), LEVELS[kind] + number % 8).save(root / f"{number:03d}.png")
        (root / f"{number:03d}.txt").write_text(f"{TEXTS[kind]}\n", encoding="utf-8")
    return root


def make_encoder(folder: Path) -> Path:
    """Saves a tiny BERT-like text encoder and returns its folder."""
    save_model("bert", folder)
    return folder


def words(root: Path, encoder: Path, *more: str) -> list[str]:
    """Returns overrides of image/tiny that train the folder's pictures with their texts."""
    return [
        "data=folder",
        f"data.root={root}",
        "data.labels=none",
        "data.held_out=0.2",
        "modality.flip=false",
        "text=minilm",
        f"text.encoder={encoder}",
        "text.max_tokens=8",
        "teacher.loss.label_dropout=0.1",
        "sampler.guidance=2",
        *more,
    ]

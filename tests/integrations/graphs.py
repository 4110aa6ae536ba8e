"""Graphs in ComfyUI's API format, and how the files that they save are read."""

from __future__ import annotations

import modalities.audio
import modalities.image
import modalities.video

KINDS = {"image": "Images", "audio": "Audio", "video": "Video"}
READ = {kind: getattr(modalities, kind).read_metadata for kind in KINDS}


def sampled(kind, **inputs):
    """A graph that loads a model, samples it and saves the samples."""
    given = {"model": ["load", 0], "label": "", "seed": 3, "batch_size": 2, "steps": 2, **inputs}
    return {
        "load": {"class_type": "ScmMediaLoadModel", "inputs": {"model": f"{kind}.safetensors"}},
        "sample": {"class_type": f"ScmMediaSample{KINDS[kind]}", "inputs": given},
        "save": saving("sample"),
    }


def saving(source, **inputs):
    given = {"samples": [source, 1], "filename_prefix": "mine/made", "format": "auto", **inputs}
    return {"class_type": "ScmMediaSaveSamples", "inputs": given}


def edited(kind, **inputs):
    """A graph that loads a model and edits what other nodes gave, and saves the result."""
    given = {"model": ["load", 0], "label": "", "seed": 3, "batch_size": 1, "steps": 2, **inputs}
    return {
        "load": {"class_type": "ScmMediaLoadModel", "inputs": {"model": f"{kind}.safetensors"}},
        "edit": {"class_type": f"ScmMediaEdit{KINDS[kind]}", "inputs": given},
        "save": saving("edit"),
    }

"""Nodes of ComfyUI that load, sample, edit and save scm-media's models.

ComfyUI imports this folder by its path, under a name of its own; so the files import each other relatively.
"""

from __future__ import annotations

import importlib.util
import sys

if importlib.util.find_spec("scm_media") is None:
    raise ImportError(
        "the nodes of scm-media need its package in the Python that runs ComfyUI: "
        f"{sys.executable} -m pip install 'scm-media[image,audio,video]'"
    )

from .editing import EditAudio, EditImages, EditVideo
from .models import LoadModel, register_folder
from .sampling import SampleAudio, SampleImages, SampleVideo
from .saving import SaveSamples

register_folder()

NODE_CLASS_MAPPINGS = {
    "ScmMediaLoadModel": LoadModel,
    "ScmMediaSampleImages": SampleImages,
    "ScmMediaSampleAudio": SampleAudio,
    "ScmMediaSampleVideo": SampleVideo,
    "ScmMediaEditImages": EditImages,
    "ScmMediaEditAudio": EditAudio,
    "ScmMediaEditVideo": EditVideo,
    "ScmMediaSaveSamples": SaveSamples,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "ScmMediaLoadModel": "Load Model (scm-media)",
    "ScmMediaSampleImages": "Sample Images (scm-media)",
    "ScmMediaSampleAudio": "Sample Audio (scm-media)",
    "ScmMediaSampleVideo": "Sample Video (scm-media)",
    "ScmMediaEditImages": "Inpaint Images (scm-media)",
    "ScmMediaEditAudio": "Edit Audio (scm-media)",
    "ScmMediaEditVideo": "Edit Video (scm-media)",
    "ScmMediaSaveSamples": "Save Samples (scm-media)",
}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

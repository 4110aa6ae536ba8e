"""The node that writes samples as files, with their record and ComfyUI's graph inside."""

from __future__ import annotations

import json
import logging
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import folder_paths
from comfy.cli_args import args

from scm_media.weights import write_whole

from .models import CATEGORY
from .sampling import SAMPLES, RecordedSamples

FORMATS = ["auto", "png", "wav", "flac", "ogg", "mp3", "mp4", "webm", "gif"]
BEHIND_HEADER = 33
"""Bytes of a PNG's signature and its first chunk, which texts may follow."""
KEY = "comfyui"
"""The key of the graph in the record of sounds and clips."""


class SaveSamples:
    """Writes samples as the command line does: PNG, WAV, MP4 …, with what they were made by inside."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Writes pictures, sounds and clips with model, seed, label and steps inside, and with the workflow."
    FUNCTION = "save"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Returns the inputs; ComfyUI fills in the hidden ones."""
        prefix = {"default": "scm-media/sample", "tooltip": "start of the files' names in ComfyUI's output folder"}
        format = {"tooltip": "auto: png, wav or mp4"}
        return {
            "required": {"samples": (SAMPLES, {}), "filename_prefix": ("STRING", prefix), "format": (FORMATS, format)},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save(
        self,
        samples: RecordedSamples,
        filename_prefix: str,
        format: str = "auto",
        prompt: Any = None,
        extra_pnginfo: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Writes the files and returns what ComfyUI shows of them.

        Raises ValueError for a format that the modality is not written in, OSError for a file that cannot be written.
        """
        modality = samples.modality
        known = list(modality.written_suffixes)
        suffix = known[0] if format == "auto" else f".{format}"
        if suffix not in known:
            raise ValueError(f"{modality.name} is written as {', '.join(known)}; got the format {format}")
        height, width = samples.samples.shape[-2:]
        output = folder_paths.get_output_directory()
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, output, width, height)
        graph = {**({} if prompt is None else {"prompt": prompt}), **(extra_pnginfo or {})}
        saved = []
        for number, (sample, record) in enumerate(zip(samples.samples, samples.records, strict=True)):
            file = f"{name.replace('%batch_num%', str(number))}_{counter + number:05}_{suffix}"
            warning = _write(modality, Path(folder, file), sample, record, graph)
            if warning is not None:
                logging.warning("scm-media: %s: %s", file, warning)
            saved.append({"filename": file, "subfolder": subfolder, "type": "output"})
        if modality.name == "audio":
            return {"ui": {"audio": saved}}
        return {"ui": {"images": saved, **({"animated": (True,)} if modality.name == "video" else {})}}


def _write(modality: Any, file: Path, sample: Any, record: Mapping[str, Any], graph: Mapping[str, Any]) -> str | None:
    """Writes one sample, whole or not at all, and returns the modality's warning.

    ComfyUI reads its graph out of texts of a PNG; sounds and clips have it in our record. Neither is written where
    ComfyUI was started with --disable-metadata, except for the rate that a clip is played at.
    """
    if args.disable_metadata:
        return modality.write(file, sample, {key: value for key, value in record.items() if key == "fps"})
    if file.suffix != ".png":
        return modality.write(file, sample, {**record, **({KEY: dict(graph)} if graph else {})})
    aside = file.with_name(f".{file.stem}.{os.getpid()}{file.suffix}")
    try:
        warning = modality.write(aside, sample, record)
        write_whole(file, _with_texts(aside.read_bytes(), graph))
    finally:
        aside.unlink(missing_ok=True)
    return warning


def _with_texts(picture: bytes, texts: Mapping[str, Any]) -> bytes:
    """Returns a PNG with more texts, as JSON, which is ASCII."""
    chunks = b""
    for key, value in texts.items():
        content = b"tEXt" + key.encode("latin-1", "replace")[:79] + b"\0" + json.dumps(value).encode()
        chunks += struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return picture[:BEHIND_HEADER] + chunks + picture[BEHIND_HEADER:]

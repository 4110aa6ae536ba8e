"""Collects recordings of five voices in five languages into a folder with a manifest, for the recipe audio/voices.

    apt-get install asterisk-core-sounds-{en,es,fr,it,ru} asterisk-core-sounds-{en,es,fr,it,ru}-g722
    pip install av soundfile
    python examples/collect_voices.py data/voices
    scm-media check audio/voices data.path=data/voices/manifest.jsonl

The recordings are the prompts of the telephone exchange Asterisk: one voice a language, 16 kHz (G.722). They are
written as ``<voice>/<prompt>.wav``, with ``manifest.jsonl``: path, voice (english, spanish, french, italian, russian),
language, speaker, prompt, seconds and, where Debian's list of the prompts has it, the text that is spoken as the
caption. By Debian's copyright files the English and the Spanish voice are one person's. ``silence/`` and what is no
speech (tones, the monkeys) are left out, and so are files that cannot be decoded: all are counted. Recordings are kept
whole; the recipe cuts its clips from them. ATTRIBUTION.txt says whose they are, and goes wherever they go.

Without Debian, give the folder that holds the packages' files with ``--root``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rendering import write_whole

SOUNDS = Path("usr/share/asterisk/sounds")
TEXTS = Path("usr/share/doc/asterisk-core-sounds-{0}/core-sounds-{0}.txt.gz")
RATE = 16_000
NO_SPEECH = frozenset({"ascending-2tone", "beep", "beeperr", "descending-2tone", "tt-monkeys"})


@dataclass(frozen=True)
class Voice:
    """A voice with its class, its language's code, its speaker and its licence."""

    name: str
    language: str
    speaker: str
    licence: str


VOICES = (
    Voice("english", "en", "Allison Smith", "CC-BY-SA-3.0"),
    Voice("spanish", "es", "Allison Smith", "CC-BY-SA-3.0"),
    Voice("french", "fr", "June Wallack", "CC-BY-SA-3.0"),
    Voice("italian", "it", "Carlo Flora", "CC-BY-3.0"),
    Voice("russian", "ru", "IvrvoiceRU, provided by Maxim Topal", "CC-BY-3.0"),
)


def texts(root: Path, language: str) -> dict[str, str]:
    """Returns the spoken text of each prompt in the packages' list, without remarks in brackets."""
    file = root / str(TEXTS).format(language)
    if not file.is_file():
        return {}
    found = {}
    for line in gzip.decompress(file.read_bytes()).decode("utf-8-sig", "replace").splitlines():
        prompt, colon, text = line.partition(":")
        text = " ".join(re.sub(r"\[[^]]*\]", "", text).strip(": ").split())
        if colon and text and not line.startswith(";"):
            found[prompt.strip()] = text
    return found


def recordings(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yields name and file of each prompt below a voice's folder, in the order of names; some have no speech."""
    for path in sorted(folder.rglob("*.g722")):
        yield path.relative_to(folder).with_suffix("").as_posix(), path


def decode(path: Path) -> np.ndarray:
    """Returns the samples ``(T,)`` of a G.722 file as int16; raises ValueError where there are none."""
    import av

    try:
        with av.open(str(path), format="g722") as container:
            frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"cannot be decoded ({error})") from error
    if not frames or not any(frame.any() for frame in frames):
        raise ValueError("holds no sound")
    return np.concatenate(frames)


def collect(root: Path, folder: Path) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Writes every voice's recordings; returns a row of the manifest for each, and the files left out by reason.

    Exits where a voice is missing, naming its packages.
    """
    import soundfile

    rows, left_out = [], Counter()
    for voice in VOICES:
        source = root / SOUNDS / voice.language
        found = list(recordings(source))
        if not found:
            package = f"asterisk-core-sounds-{voice.language}"
            sys.exit(f"{source} holds no .g722: apt-get install {package} {package}-g722, or give another --root")
        spoken = texts(root, voice.language)
        for prompt, path in found:
            if prompt.startswith("silence/") or prompt in NO_SPEECH:
                left_out["no speech"] += 1
                continue
            try:
                samples = decode(path)
            except ValueError as error:
                left_out[str(error)] += 1
                print(f"{path}: {error}", file=sys.stderr)
                continue
            target = f"{voice.name}/{prompt}.wav"
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / target, samples, RATE, subtype="PCM_16")
            rows.append(
                {
                    "path": target,
                    "voice": voice.name,
                    "language": voice.language,
                    "speaker": voice.speaker,
                    "prompt": prompt,
                    "seconds": round(len(samples) / RATE, 3),
                    **({"caption": spoken[prompt]} if prompt in spoken else {}),
                }
            )
    return rows, left_out


def attribution() -> str:
    """Returns the text that attributes the recordings to their owners, with the licences."""
    lines = [f"{voice.name}/: spoken by {voice.speaker}; {voice.licence}" for voice in VOICES]
    return "\n".join(
        [
            "Prompts of the exchange Asterisk (asterisk-core-sounds), decoded from G.722 to WAV, otherwise",
            "as they are; the recordings were paid for by Digium, Inc. and others.",
            *lines,
            "https://creativecommons.org/licenses/by-sa/3.0/  https://creativecommons.org/licenses/by/3.0/",
            "",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, collects, and says what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to; recordings of the same name are replaced")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the packages are unpacked; default: /")
    options = parser.parse_args(arguments)
    rows, left_out = collect(options.root, options.folder)
    (options.folder / "ATTRIBUTION.txt").write_text(attribution(), encoding="utf-8")
    manifest = options.folder / "manifest.jsonl"
    write_whole(manifest, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    for voice in VOICES:
        own = [row for row in rows if row["voice"] == voice.name]
        minutes, told = sum(row["seconds"] for row in own) / 60, sum("caption" in row for row in own)
        print(f"{len(own):6d} {voice.name}: {minutes:.1f} minutes, {told} with their text")
    for reason, count in left_out.items():
        print(f"{count:6d} left out: {reason}")
    print(f"{len(rows)} recordings, {sum(row['seconds'] for row in rows) / 60:.0f} minutes, listed in {manifest}")


if __name__ == "__main__":
    main()

"""Fetches the emoji pictures of two vendors and lays them out as a folder with a manifest, for the recipe image/emoji.

    python examples/fetch_emoji.py data/emoji
    scm-media check image/emoji data.path=data/emoji/manifest.jsonl

The pictures come from the npm packages emoji-datasource-google and emoji-datasource-twitter, version 16.0.0, and the
keywords from emojilib 4.0.3, which ``npm pack`` fetches from whatever registry npm is set up for. Without npm, run
``npm pack NAME@VERSION`` for the three on a machine that has it and give the folder of the .tgz files with
``--archives``.

What is written: ``<category>/<vendor>-<short name>.png``, 64×64 with transparency, and ``manifest.jsonl`` with path,
category, subcategory, vendor, caption (the emoji's name), keywords and the skin's tone where they are known, and emoji
(its code without skin tones: what is to stay on one side of a held-out split). Google's pictures are under the Apache
License 2.0, Twitter's under CC-BY-4.0 (attribute "Twitter, Inc and other contributors"), the tables and the keywords
(Mu-An Chiou) under MIT.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

VENDORS = ("google", "twitter")
VERSION = "16.0.0"
KEYWORDS = ("emojilib", "4.0.3")
"""The package with keywords of emoji, and its version."""
NUM_KEYWORDS = 6
TONES = {
    "1F3FB": "light",
    "1F3FC": "medium-light",
    "1F3FD": "medium",
    "1F3FE": "medium-dark",
    "1F3FF": "dark",
}
"""Skin tones by the code of their modifier."""
NUM_PICTURES = 3786
"""The number of pictures of each vendor in this version."""


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, fetches, unpacks and says what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to; pictures of the same name are replaced")
    parser.add_argument("--archives", type=Path, help="a folder with the .tgz files, in place of npm")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        archives = options.archives or Path(scratch)
        rows = []
        fetches = options.archives is None
        keywords = opened(archives, *KEYWORDS, fetches, read_keywords)
        for vendor in VENDORS:
            read = partial(unpack, vendor=vendor, folder=options.folder, keywords=keywords)
            found = opened(archives, f"emoji-datasource-{vendor}", VERSION, fetches, read)
            if len(found) != NUM_PICTURES:
                sys.exit(
                    f"emoji-datasource-{vendor} holds {len(found)} pictures, expected {NUM_PICTURES}; fetch it again"
                )
            rows += found
    manifest = options.folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    for category, count in Counter(row["category"] for row in rows).most_common():
        print(f"{count:6d} {category}")
    print(f"{len(rows)} pictures, listed in {manifest}")


def opened(folder: Path, name: str, version: str, fetches: bool, read: Callable[[Path], Any]) -> Any:
    """Returns what ``read`` makes of a package's .tgz, which is fetched first; exits where it is missing or damaged."""
    archive = folder / f"{name}-{version}.tgz"
    if fetches:
        fetch(f"{name}@{version}", folder)
    if not archive.is_file():
        sys.exit(f"{archive}: no such file; npm pack {name}@{version} makes it")
    try:
        return read(archive)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        sys.exit(f"{archive} is damaged ({error}); fetch it again")


def fetch(package: str, folder: Path) -> None:
    """Fetches a package's .tgz into the folder by ``npm pack``; exits with the remedy where npm is missing or fails."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit(
            f"npm is not installed (Debian: apt-get install npm); or run `npm pack {package}` elsewhere and pass "
            "--archives FOLDER"
        )
    print(f"fetching {package}", file=sys.stderr)
    done = subprocess.run([npm, "pack", package, "--silent"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"npm pack {package} failed: {done.stderr.strip() or f'exit code {done.returncode}'}")


def read_keywords(archive: Path) -> dict[str, str]:
    """Returns the first keywords of each emoji, by its characters without variation selectors; the name is left out."""
    with tarfile.open(archive) as packed:
        table = json.load(member(packed, "package/dist/emoji-en-US.json"))
    found = {}
    for emoji, (_, *words) in table.items():
        usable = [word.replace("_", " ") for word in words if re.fullmatch(r"[a-z][a-z _-]+", word)]
        found[emoji.replace("\ufe0f", "")] = ", ".join(usable[:NUM_KEYWORDS])
    return found


def unpack(archive: Path, vendor: str, folder: Path, keywords: Mapping[str, str]) -> list[dict[str, Any]]:
    """Writes the pictures of one archive and returns a row of the manifest for each, in the order of their paths."""
    rows = []
    with tarfile.open(archive) as packed:
        table = json.load(member(packed, "package/emoji.json"))
        described = {image: row for emoji in table for image, row in pictures(emoji, vendor, keywords)}
        for entry in packed:
            place = Path(entry.name)
            if place.parent != Path("package/img") / vendor / "64" or place.name not in described:
                continue
            row = described[place.name]
            target = folder / row["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            with member(packed, entry.name) as source:
                target.write_bytes(source.read())
            rows.append(row)
    return sorted(rows, key=lambda row: row["path"])


def member(packed: tarfile.TarFile, name: str) -> Any:
    """Returns an open file of the archive; exits where there is none of this name."""
    try:
        found = packed.extractfile(name)
    except KeyError:
        found = None
    if found is None:
        sys.exit(f"{packed.name} holds no {name}: it is another package or version")
    return found


def pictures(emoji: dict[str, Any], vendor: str, keywords: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields file name and row of an emoji and of each of its skin tones."""
    characters = "".join(chr(int(code, 16)) for code in emoji["unified"].split("-") if code != "FE0F")
    words = {"keywords": found} if (found := keywords.get(characters)) else {}
    folder = re.sub(r"\W+", "-", emoji["category"].lower())
    for tones, variant in {"": emoji, **emoji.get("skin_variations", {})}.items():
        name = f"{vendor}-{emoji['short_name']}{f'-{tones.lower()}' if tones else ''}.png"
        yield (
            variant["image"],
            {
                "path": f"{folder}/{name}",
                "category": emoji["category"],
                "subcategory": emoji["subcategory"],
                "vendor": vendor,
                "caption": emoji["name"].lower(),
                **words,
                **({"tone": TONES[tones]} if tones in TONES else {}),
                "emoji": emoji["unified"],
            },
        )


if __name__ == "__main__":
    main()

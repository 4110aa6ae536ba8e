"""The emoji pictures: laid out by category, listed in a manifest that training can use, counted."""

from __future__ import annotations

import importlib.util
import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from modalities.image import ImageModality
from scm_media.data import ManifestDataset

SCRIPT = Path(__file__).parents[2] / "examples" / "fetch_emoji.py"
TABLE = [
    {
        "name": "GRINNING FACE",
        "unified": "1F600",
        "image": "1f600.png",
        "short_name": "grinning",
        "category": "Smileys & Emotion",
        "subcategory": "face-smiling",
    },
    {
        "name": "WAVING HAND",
        "unified": "1F44B",
        "image": "1f44b.png",
        "short_name": "wave",
        "category": "People & Body",
        "subcategory": "hand-fingers-open",
        "skin_variations": {"1F3FB": {"image": "1f44b-1f3fb.png"}},
    },
]


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("fetch_emoji", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "NUM_PICTURES", 3)
    return module


KEYWORDS = {"😀": ["grinning_face", "face", ":D", "big_smile"], "👋": ["waving_hand"]}


def write(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))


@pytest.fixture
def archives(tmp_path, script):
    """Packages of three pictures of each vendor, and one of another size; and one of keywords."""
    (tmp_path / "archives").mkdir()
    words = {"package/dist/emoji-en-US.json": json.dumps(KEYWORDS).encode()}
    write(tmp_path / "archives" / "emojilib-4.0.3.tgz", words)
    for level, vendor in enumerate(script.VENDORS):
        content = io.BytesIO()
        Image.new("RGBA", (4, 4), (100 + level, 0, 0, 255)).save(content, "PNG")
        files = {"package/emoji.json": json.dumps(TABLE).encode()}
        for name in ("1f600.png", "1f44b.png", "1f44b-1f3fb.png"):
            files[f"package/img/{vendor}/64/{name}"] = content.getvalue()
        files[f"package/img/{vendor}/sheets/1f600.png"] = b"another size"
        write(tmp_path / "archives" / f"emoji-datasource-{vendor}-16.0.0.tgz", files)
    return tmp_path / "archives"


def test_the_layout_is_what_the_recipe_reads(tmp_path, script, archives, capsys):
    script.main([str(tmp_path / "data"), "--archives", str(archives)])
    assert "6 pictures" in capsys.readouterr().out
    assert sorted(str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*.png")) == [
        *(f"people-body/{vendor}-wave{tone}.png" for vendor in script.VENDORS for tone in ("-1f3fb", "")),
        *(f"smileys-emotion/{vendor}-grinning.png" for vendor in script.VENDORS),
    ]
    dataset = ManifestDataset(
        modality=ImageModality(size=4, channels=3),
        path=tmp_path / "data" / "manifest.jsonl",
        labels=["category"],
        group="emoji",
    )
    assert dataset.label_names == {"category": ("People & Body", "Smileys & Emotion")}
    assert dataset.rejects == {}
    assert len(dataset) in (2, 4), "both vendors and all tones of one emoji are on one side"
    assert len(set(dataset.captions())) == 1


def test_keywords_and_tones_are_listed_where_they_are_known(tmp_path, script, archives):
    script.main([str(tmp_path / "data"), "--archives", str(archives)])
    rows = [json.loads(line) for line in (tmp_path / "data" / "manifest.jsonl").read_text().splitlines()]
    listed = {(row["caption"], row.get("keywords"), row.get("tone")) for row in rows}
    assert listed == {
        ("grinning face", "face, big smile", None),
        ("waving hand", None, None),
        ("waving hand", None, "light"),
    }


def test_another_number_of_pictures_stops_with_the_file(tmp_path, script, archives, monkeypatch):
    monkeypatch.setattr(script, "NUM_PICTURES", 4)
    with pytest.raises(SystemExit, match=r"google holds 3 pictures, expected 4"):
        script.main([str(tmp_path / "data"), "--archives", str(archives)])


def test_without_npm_or_archive_the_remedy_is_told(tmp_path, script, monkeypatch):
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"npm is not installed .*--archives"):
        script.main([str(tmp_path / "data")])
    with pytest.raises(SystemExit, match=r"no such file; npm pack emojilib@4\.0\.3"):
        script.main([str(tmp_path / "data"), "--archives", str(tmp_path)])


def test_a_damaged_archive_is_named(tmp_path, script, archives):
    archive = archives / "emoji-datasource-twitter-16.0.0.tgz"
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(SystemExit, match=r"twitter-16\.0\.0\.tgz is damaged .*; fetch it again"):
        script.main([str(tmp_path / "data"), "--archives", str(archives)])

"""Manifests: labels, scalars and captions by file, rejects counted by reason."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from PIL import Image

from modalities.image import ImageModality
from scm_media.data import ManifestDataset


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "files").mkdir()
    for number in range(12):
        Image.new("L", (8, 8), 10 * number).save(tmp_path / "files" / f"{number}.png")
    return [
        {
            "path": f"files/{number}.png",
            "family": "guitar" if number % 3 else "flute",
            "pitch": number * 0.5,
            "caption": f"note {number}",
        }
        for number in range(12)
    ]


def write(folder, rows, kind):
    path = folder / f"list.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def open_manifest(path, **options):
    return ManifestDataset(modality=ImageModality(size=8), path=path, **{"held_out": 0.1, **options})


def test_labels_that_occur_together_are_counted_and_numbers_told_by_quantiles(tmp_path, rows):
    for number, row in enumerate(rows):
        row["size"] = "large" if number > 5 else "small"
    dataset = open_manifest(write(tmp_path, rows, "jsonl"), scalars=["pitch"])
    counted = dict.fromkeys(dataset.label_combinations, 0)
    for example in map(dataset.__getitem__, range(len(dataset))):
        counted[example.labels["family"], example.labels["size"]] += 1
    assert dataset.label_combinations == counted
    assert len(counted) == 4
    pitches = sorted(dataset[place].labels["pitch"] for place in range(len(dataset)))
    quantiles = dataset.label_quantiles["pitch"]
    assert (quantiles[0], quantiles[5], quantiles[-1]) == (pitches[0], pitches[5], pitches[-1])
    assert quantiles == sorted(quantiles)
    one = open_manifest(write(tmp_path, rows, "jsonl"), labels=["family"])
    assert one.label_combinations == {}
    assert one.label_quantiles == {}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_labels_scalars_and_captions_stay_with_their_file(tmp_path, rows, kind):
    dataset = open_manifest(write(tmp_path, rows, kind), scalars=["pitch"])
    assert dataset.label_names == {"family": ("flute", "guitar"), "pitch": ()}
    assert dataset.label_counts["pitch"] == ()
    assert sum(dataset.label_counts["family"]) == len(dataset) == 11
    for place in range(len(dataset)):
        example = dataset[place]
        number = round((float(example.sample.mean()) + 1) * 12.75)
        assert example.labels == {"family": int(bool(number % 3)), "pitch": number * 0.5}
        assert dataset.captions()[place] == (f"note {number}",)
    batch = dataset.batch([0, 1])
    assert batch.labels["pitch"].dtype == torch.float32
    assert batch.labels["family"].dtype == torch.int64


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_rows_of_no_use_are_counted_by_reason(tmp_path, rows, kind):
    (tmp_path / "files" / "torn.png").write_bytes(b"torn")
    base = rows[1]
    bad = [
        {**base, "path": "files/missing.png"},
        {**base, "path": "files/torn.png"},
        {**base, "path": "files/../files/3.png"},
        {**base, "path": "files/x.png", "family": "drum"},
        {**base, "path": "files/y.png", "family": ""},
        {**base, "path": "files/z.png", "pitch": "high"},
        {**base, "path": "files/w.png", "pitch": "1e39"},
        {**base, "path": ""},
    ]
    path = write(tmp_path, rows + bad, kind)
    with path.open("a") as file:
        file.write("files/1.png,guitar,1,a,b,c\n" if kind == "csv" else "{torn\n")
    dataset = open_manifest(path, scalars=["pitch"], classes={"family": ["guitar", "flute", "oboe"]})
    assert dataset.rejects == {
        "missing file": 1,
        "undecodable": 1,
        "duplicate": 1,
        "unknown label": 1,
        "missing label": 1,
        "scalar label that is no number": 2,
        "no path": 1,
        "row with more fields than the header" if kind == "csv" else "line that is no JSON object": 1,
    }
    assert len(dataset.rejected) == 9
    assert (f"{path}:{17 if kind == 'csv' else 16}", "unknown label: family=drum") in dataset.rejected
    assert dataset.label_names["family"] == ("guitar", "flute", "oboe")
    assert dataset.label_counts["family"][2] == 0
    assert len(dataset) == 11


def test_label_columns_can_be_chosen_and_files_lie_elsewhere(tmp_path, rows):
    path = write(tmp_path, rows, "csv")
    elsewhere = tmp_path / "lists" / "list.csv"
    elsewhere.parent.mkdir()
    path.rename(elsewhere)
    assert open_manifest(elsewhere, root=tmp_path, labels=["family"]).label_names == {"family": ("flute", "guitar")}
    assert open_manifest(elsewhere, root=tmp_path, labels=[]).label_names == {}
    with pytest.raises(ValueError, match="12 missing file"):
        open_manifest(elsewhere)


def test_an_index_column_without_a_name_is_no_label(tmp_path, rows):
    path = write(tmp_path, [{"": number, **row} for number, row in enumerate(rows)], "csv")
    dataset = open_manifest(path, scalars=["pitch"])
    assert dataset.rejects == {}
    assert set(dataset.label_names) == {"family", "pitch"}


def test_missing_columns_are_named_with_those_there_are(tmp_path, rows):
    path = write(tmp_path, rows, "csv")
    with pytest.raises(ValueError, match="no column instrument; it has path, family, pitch, caption"):
        open_manifest(path, labels=["instrument"])
    with pytest.raises(ValueError, match="velocity, which is no label"):
        open_manifest(path, scalars=["velocity"])
    renamed = write(tmp_path, [{"file": row["path"], "family": row["family"]} for row in rows], "jsonl")
    with pytest.raises(ValueError, match="no column path; it has file, family"):
        open_manifest(renamed)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("list.csv", None, "no such file"),
        ("list.xlsx", b"", r"a \.csv or a \.jsonl"),
        ("list.csv", b"", "it is empty"),
        ("list.csv", b'"a\nb\x1b[0m",kind\n1,2\n', r"has no column path; it has a\\nb\\x1b\[0m, kind"),
        ("list.csv", b"path,family\n", "it is empty"),
        ("list.csv", b"path\n\xff\xfe.png\n", r"1 missing file .*\\xff\\xfe\.png"),
        ("list.jsonl", b"[1, 2]\nnothing\n", "2 line that is no JSON object"),
    ],
)
def test_manifests_of_no_use_are_refused_by_name(tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}.*{said}"):
        open_manifest(path)


def test_a_group_is_held_out_together_or_not_at_all(tmp_path, rows):
    path = write(tmp_path, [{**row, "song": f"s{number // 3}"} for number, row in enumerate(rows)], "csv")
    songs = {}
    for split in ("train", "held_out"):
        dataset = open_manifest(path, scalars=["pitch"], group="song", split=split, held_out=0.2)
        assert set(dataset.label_names) == {"family", "pitch"}
        songs[split] = {int(dataset[place].labels["pitch"] * 2) // 3 for place in range(len(dataset))}
        assert len(dataset) == 3 * len(songs[split])
    assert songs["train"].isdisjoint(songs["held_out"])
    assert songs["train"] | songs["held_out"] == {0, 1, 2, 3}
    half = open_manifest(path, scalars=["pitch"], group="song", split="held_out", held_out=0.5)
    assert len(half) == 6, "held_out counts files, not groups"
    with pytest.raises(ValueError, match=r"no column album.*data\.group"):
        open_manifest(path, group="album")
    one = write(tmp_path, [{**row, "song": "s"} for row in rows], "jsonl")
    with pytest.raises(ValueError, match="usable files of one group alone"):
        open_manifest(one, group="song", labels=[])


def test_fields_are_for_templates_and_no_labels(tmp_path, rows):
    named = [{**row, **({"mood": "soft"} if number % 2 else {})} for number, row in enumerate(rows)]
    dataset = open_manifest(write(tmp_path, named, "jsonl"), scalars=["pitch"], fields=["mood"])
    assert set(dataset.label_names) == {"family", "pitch"} and dataset.rejects == {}
    assert {dataset.fields(place).get("mood") for place in range(len(dataset))} == {"soft", None}

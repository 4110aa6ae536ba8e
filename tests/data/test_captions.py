"""Texts of examples: from captions, sidecar files and templates, one drawn by seed, numbered alike in both splits."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from modalities.image.modality import ImageModality
from scm_media.conditioning import NO_LABEL
from scm_media.data import FashionMNISTDataset, FolderDataset, ManifestDataset, ShapesDataset, batches
from scm_media.data.captions import CaptionTable, add_captions

SIZE = ImageModality(size=8, channels=1)


def picture(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), level).save(path)


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures in two classes: ten with a text beside them, in a .txt, a .json, or both."""
    for number in range(12):
        path = tmp_path / ("red" if number % 2 else "blue") / f"{number:02d}.png"
        picture(path, 20 * number)
        if number in (3, 8):
            continue
        if number % 3:
            path.with_suffix(".txt").write_text(f"picture {number}\n\n  number   {number}  \n", encoding="utf-8")
        if number % 3 == 0 or number == 4:
            path.with_suffix(".json").write_text(json.dumps({"caption": f"object {number}"}))
    return tmp_path


def splits(root, **more):
    return {split: FolderDataset(SIZE, root, split=split, held_out=0.2, **more) for split in ("train", "held_out")}


def number_of(example):
    return round((float(example.sample.mean()) + 1) * 127.5 / 20)


def test_texts_beside_a_file_are_its_captions_and_no_rejects(folder):
    data = splits(folder)["train"]
    assert data.rejects == {}
    for place, captions in enumerate(data.captions()):
        number = number_of(data[place])
        expected = [f"object {number}"] if number % 3 == 0 or number == 4 else []
        expected += [f"picture {number}", f"number   {number}"] if number % 3 else []
        assert captions == (() if number in (3, 8) else tuple(expected)), number


def test_a_text_beside_nothing_and_unreadable_texts_are_counted(folder):
    (folder / "red" / "alone.txt").write_text("a text of no picture")
    (folder / "red" / "01.txt").write_bytes(b"\xff\xfe broken")
    (folder / "blue" / "00.json").write_text('{"title": "no caption"}')
    data = splits(folder)["train"]
    assert data.rejects == {"of another kind": 1}, "captions are read when they are asked for"
    data.captions()
    data.captions()
    assert data.rejects == {"of another kind": 1, "unreadable captions": 2}
    assert any("00.json" in source and "caption or captions" in reason for source, reason in data.rejected)


def test_examples_without_text_are_left_out_or_have_none(folder):
    made = add_captions(splits(folder))
    counts = {split: len(data) for split, data in made.items()}
    assert sum(counts.values()) == 10
    assert sum(data.rejects.get("no text", 0) for data in made.values()) == 2
    for data in made.values():
        for place in range(len(data)):
            example = data[place]
            assert f"{number_of(example)}" in data.caption_table.texts[example.labels["prompt"]]
    kept = add_captions(splits(folder), missing="unconditional")
    assert sum(map(len, kept.values())) == 12
    labels = [data[place].labels["prompt"] for data in kept.values() for place in range(len(data))]
    assert labels.count(NO_LABEL) == 2


def test_both_splits_number_the_same_texts(folder):
    train, held_out = add_captions(splits(folder)).values()
    assert train.caption_table.texts == held_out.caption_table.texts == tuple(sorted(train.caption_table.texts))
    assert train.label_names["prompt"] == train.caption_table.texts
    assert train.label_counts["prompt"] != held_out.label_counts["prompt"]
    assert train.fingerprint() != held_out.fingerprint()


def test_a_text_of_several_is_drawn_by_seed_and_all_of_them_come(folder):
    data = add_captions(splits(folder))["train"]
    of_place = [set(data.captions()[place]) for place in range(len(data))]
    drawn = {}
    for batch in batches(data, 4, 0, 60, seed=5):
        for level, text in zip(batch.sample.flatten(1).mean(1).tolist(), batch.labels["prompt"].tolist(), strict=True):
            drawn.setdefault(round(level, 4), set()).add(data.caption_table.texts[text])
    assert sorted(map(sorted, drawn.values())) == sorted(map(sorted, of_place))
    again = [batch.labels["prompt"].tolist() for batch in batches(data, 4, 7, 3, seed=5)]
    assert again == [batch.labels["prompt"].tolist() for batch in batches(data, 4, 7, 3, seed=5)]
    assert again != [batch.labels["prompt"].tolist() for batch in batches(data, 4, 7, 3, seed=6)]
    assert data.batch([0]).labels["prompt"].tolist() == [data[0].labels["prompt"]]


def test_templates_are_filled_with_labels_and_fields(tmp_path):
    rows = []
    for number in range(8):
        picture(tmp_path / f"{number}.png")
        row = {"path": f"{number}.png", "family": "flute" if number % 2 else "harp", "pitch": 60 + number}
        rows.append({**row, "mood": "soft", "caption": [f"note {number}", f"tone {number}"]} if number < 6 else row)
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = {"labels": ["family", "pitch"], "scalars": ["pitch"], "fields": ["mood"], "held_out": 0.2}
    made = {
        split: ManifestDataset(SIZE, tmp_path / "list.jsonl", split=split, **given) for split in ("train", "held_out")
    }
    data = add_captions(made, ["a {mood} {family}", "{family} at {pitch}"])["train"]
    for place in range(len(data)):
        fields = data.fields(place)
        number = int(fields["pitch"]) - 60
        expected = [f"{fields['family']} at {number + 60}"]
        if number < 6:
            expected = [f"note {number}", f"tone {number}", f"a soft {fields['family']}", *expected]
        assert list(data.captions()[place]) == expected
    few = add_captions(made, ["a {family}", "one {family}", "the {family}", "this {family}"], per_example=3)["train"]
    assert {len(captions) for captions in few.captions()} == {3}
    assert len({captions[2:] for captions in few.captions()}) > 2, "each example has other ones"
    assert (
        few.captions()
        == add_captions(made, ["a {family}", "one {family}", "the {family}", "this {family}"], 3)["train"].captions()
    )


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("a {class", "cannot be read"),
        ("a {}", "expected the name"),
        ("a {class.__class__}", "expected the name"),
        ("a {class:>9}", "the name alone"),
        ("a {colour}", "the data have no colour; there are class"),
    ],
)
def test_templates_that_cannot_be_filled_say_why(template, problem):
    made = {split: ShapesDataset(SIZE, num=8, split=split) for split in ("train", "held_out")}
    with pytest.raises(ValueError, match=problem):
        add_captions(made, [template])


def test_data_without_texts_say_how_to_give_some():
    made = {split: ShapesDataset(SIZE, num=8, split=split) for split in ("train", "held_out")}
    with pytest.raises(ValueError, match=r"put NAME.txt beside each file.*there are: class"):
        add_captions(made)


def test_labels_and_text_are_listed_together():
    made = {split: ShapesDataset(SIZE, num=30, split=split) for split in ("train", "held_out")}
    data = add_captions(made, ["a {class}", "one {class}"])["train"]
    shapes, texts = data.label_names["class"], data.label_names["prompt"]
    assert sum(data.label_combinations.values()) == 30
    for shape, text in data.label_combinations:
        assert shapes[shape] in texts[text]


def test_a_table_counts_and_draws():
    table = CaptionTable.of([["b", "a"], [], ["a"]], ["a", "b"])
    assert table.counts() == (2, 1)
    assert table.draw([0, 1, 2]).tolist() == [1, NO_LABEL, 0]
    generators = [torch.Generator().manual_seed(seed) for seed in range(40)]
    assert set(table.draw([0] * 40, generators).tolist()) == {0, 1}


def test_old_digests_of_data_stay_and_texts_have_their_own(folder):
    with_texts = splits(folder)["train"].fingerprint()
    captioned = add_captions(splits(folder))["train"].fingerprint()
    for path in folder.rglob("*.txt"):
        path.write_text("another text")
    assert splits(folder)["train"].fingerprint() == with_texts, "a run without text goes on"
    assert add_captions(splits(folder))["train"].fingerprint() != captioned


def test_texts_without_room_are_counted_and_others_for_each_example():
    made = {split: ShapesDataset(SIZE, num=40, split=split) for split in ("train", "held_out")}
    data = add_captions(made, ["a {class}", "one {class}", "the {class}"], per_example=2)["train"]
    assert data.caption_table.num_unused == 40
    assert {len(captions) for captions in data.captions()} == {2}
    assert len({captions[0].split()[0] for captions in data.captions()}) == 2


def test_any_data_with_labels_take_templates():
    data = FashionMNISTDataset.__new__(FashionMNISTDataset)
    data._classes, data.label_names = torch.tensor([3, 0, 1, 1]), {"class": tuple("abcd")}
    assert [data.fields(place) for place in range(4)] == [{"class": each} for each in "dabb"]

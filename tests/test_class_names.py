"""Class names: one spelling each, whatever wrote them, and lists of names as recipes give them."""

from __future__ import annotations

import json
import math
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from modalities.image import ImageModality
from scm_media import recipe
from scm_media.build import build
from scm_media.class_names import class_name, classes_of, find_class, names_of, utf8_text
from scm_media.cli import main
from scm_media.data import FolderDataset, ManifestDataset, ShardsDataset
from scm_media.data.actions import check_actions
from scm_media.data.entries import Unusable, read_label
from tests.data.test_shards import append, png

NFC, NFD = "caf\u00e9", "cafe\u0301"
BYTES = os.fsdecode(b"caf\xe9")


def pictures(folder, num, level=10):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(num):
        Image.new("L", (8, 8), level * number).save(folder / f"{len(list(folder.iterdir()))}.png")


def test_class_names_have_one_form():
    assert class_name(NFD) == class_name(NFC) == NFC
    assert class_name(BYTES) == r"caf\xe9"
    assert class_name("\ud800x") == r"\ud800x"
    assert [class_name(value) for value in (True, False, 1, 1.0, -2.0, 1.5, "1.0", "yes")] == [
        *("true", "false", "1", "1", "-2", "1.5", "1.0", "yes")
    ]
    assert find_class("1.0", ["1", "2"]) == "1"
    assert find_class(2.0, ["1", "2"]) == "2"
    assert find_class("1.5", ["1", "2"]) is None
    assert utf8_text(f"a/{BYTES}\n").encode() == b"a/caf\\xe9\n"


def test_folders_whose_names_look_alike_are_one_class(tmp_path):
    for name in (NFC, NFD, BYTES, "tea"):
        pictures(tmp_path / name, 3)
    dataset = FolderDataset(ImageModality(size=8), tmp_path, held_out=0.05)
    assert dataset.label_names == {"class": (r"caf\xe9", NFC, "tea")}
    held_out = FolderDataset(ImageModality(size=8), tmp_path, held_out=0.05, split="held_out")
    counts = zip(dataset.label_counts["class"], held_out.label_counts["class"], strict=True)
    assert [sum(both) for both in counts] == [3, 6, 3]
    assert dataset.rejects == {}
    assert json.dumps(dataset.label_names, ensure_ascii=False).encode()
    assert dataset.fingerprint()


@pytest.fixture
def manifest(tmp_path):
    """Writes a manifest of one label, of the values of twelve pictures."""
    pictures(tmp_path / "p", 12)

    def write(values, kind="jsonl"):
        path = tmp_path / f"list.{kind}"
        if kind == "csv":
            path.write_text("path,mood\n" + "".join(f"p/{n}.png,{value}\n" for n, value in enumerate(values)))
        else:
            rows = ({"path": f"p/{number}.png", "mood": value} for number, value in enumerate(values))
            path.write_text("\n".join(map(json.dumps, rows)))
        return path

    return write


def opened(path, **options):
    return ManifestDataset(ImageModality(size=8), path, **options)


def test_labels_of_a_manifest_are_counted_by_what_they_mean(manifest):
    dataset = opened(manifest([1, 1.0, "1", True, True, False, NFC, NFD, math.nan, math.inf, None, "nan"]))
    assert set(dataset.label_names["mood"]) == {"1", "true", "false", NFC, "nan"}
    assert dataset.rejects == {"label that is not finite": 2, "missing label": 1}
    assert dataset.rejected[0][1] == "label that is not finite: mood=nan"


@pytest.mark.parametrize("words", [("yes", "no"), ("Yes", "No"), ("on", "off"), ("TRUE", "FALSE")])
def test_classes_that_yaml_makes_booleans_of_are_the_words_of_the_data(manifest, tmp_path, words):
    path = manifest([words[number % 2] for number in range(12)], "csv")
    file = tmp_path / "mine.yaml"
    file.write_text(
        "defaults: [image/folder, override /data: manifest, _self_]\nrecipe: mine\n"
        f"data: {{path: {path}, labels: [mood], classes: {{mood: [{words[0]}, {words[1]}]}}}}\n"
    )
    config = recipe.compose(str(file))["data"]
    assert config["classes"] == {"mood": [True, False]}
    dataset = build(config, "data", modality=ImageModality(size=8), split="train")
    assert dataset.label_names == {"mood": words}
    assert dataset.rejects == {}
    assert min(dataset.label_counts["mood"]) >= 5


def test_booleans_of_json_are_the_classes_true_and_false(manifest):
    dataset = opened(manifest([True, False] * 6), classes={"mood": [False, True]})
    assert dataset.label_names == {"mood": ("false", "true")}
    assert dataset.rejects == {}


def test_one_word_of_a_pair_tells_the_other(manifest):
    dataset = opened(manifest(["no"] * 12, "csv"), classes={"mood": [True, False, "maybe"]})
    assert dataset.label_names == {"mood": ("yes", "no", "maybe")}


@pytest.mark.parametrize(("values", "said"), [(["yes", "on"], "several"), (["good", "bad"], "none")])
def test_booleans_that_the_data_do_not_explain_are_refused_with_the_remedy(manifest, values, said):
    with pytest.raises(ValueError, match=rf"data\.classes\.mood holds true or false.*{said} of these words.*in quotes"):
        opened(manifest(values * 6, "csv"), classes={"mood": [True, False]})


def test_numbers_given_as_classes_are_found_in_either_form(manifest):
    for classes in ([1, 2], [1.0, 2.0], ["1", "2"]):
        dataset = opened(manifest(["1.0", "2", "2.0", "1"] * 3, "csv"), classes={"mood": classes})
        assert dataset.label_names == {"mood": ("1", "2")}
        assert dataset.rejects == {}


def test_labels_of_a_function_may_be_numbers_of_numpy(tmp_path):
    pictures(tmp_path / "a", 6)

    def function(path):
        number = int(path.stem)
        return {"kind": np.float32(number % 2), "odd": np.bool_(number % 2), "size": np.float64(number)}

    dataset = FolderDataset(ImageModality(size=8), tmp_path, label_function=function, scalars=["size"])
    assert dataset.label_names == {"class": ("a",), "kind": ("0", "1"), "odd": ("false", "true"), "size": ()}


@pytest.mark.parametrize("given", ["mood", 3, True, {"mood": 1}])
def test_what_is_no_list_of_names_is_named_with_the_remedy(given):
    with pytest.raises(ValueError, match=r"data\.labels must be a list of names, got .*: write data\.labels=\["):
        names_of(given, "data.labels")


def test_names_without_quotes_that_yaml_reads_otherwise_are_refused():
    with pytest.raises(
        ValueError, match=r"data\.labels must be a list of names, got \[True\]: yes, no, .* need quotes"
    ):
        names_of([True], "data.labels")
    assert names_of([2024, "mood"], "data.labels") == ["2024", "mood"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["yes", "no"], r"data\.classes must map labels to lists of classes, got \['yes', 'no'\]"),
        ("mood", r"data\.classes must map labels"),
        (
            {"mood": "good"},
            r"data\.classes\.mood must be a list of classes, got 'good': write data\.classes\.mood=\[good\]",
        ),
        ({"mood": 3}, r"data\.classes\.mood must be a list of classes, got 3"),
        ({"mood": [None, "a"]}, r"data\.classes\.mood lists null.*quotes"),
        ({"mood": [NFC, NFD]}, rf"data\.classes\.mood names {NFC} twice"),
        ({"mood": [1, "1"]}, r"data\.classes\.mood names 1 twice"),
        ({"mood": [True]}, "none of these words"),
    ],
)
def test_classes_that_are_none_are_named_with_the_remedy(given, said):
    with pytest.raises(ValueError, match=said):
        classes_of(given, "data.classes")


def test_every_dataset_names_the_key(tmp_path, manifest):
    path, modality = manifest(["a", "b"] * 6), ImageModality(size=8)
    append(tmp_path / "a.tar", {"1.png": png(1), "2.png": png(2)})
    for key in ("labels", "scalars", "measures"):
        with pytest.raises(
            ValueError, match=rf"data\.{key} must be a list of names, got 'mood': write data\.{key}=\[mood\]"
        ):
            opened(path, **{key: "mood"})
    with pytest.raises(ValueError, match=r"data\.classes must map"):
        opened(path, classes="mood")
    for key in ("scalars", "measures"):
        with pytest.raises(ValueError, match=rf"data\.{key} must be a list"):
            FolderDataset(modality, tmp_path, **{key: "mood"})
        with pytest.raises(ValueError, match=rf"data\.{key} must be a list"):
            ShardsDataset(modality, "a.tar", tmp_path, **{key: "mood"})
    with pytest.raises(ValueError, match=r"data\.labels must map labels to their sources, got 'cls'"):
        ShardsDataset(modality, "a.tar", tmp_path, labels="cls")
    modality.check_actions = lambda: None
    with pytest.raises(ValueError, match=r"data\.action_names must be a list of names, got 'left'"):
        check_actions("keys", "left", path, modality)


def test_the_command_line_says_it_in_one_line(manifest, tmp_path, capsys):
    words = ["image/tiny", "data=manifest", f"data.path={manifest(['a', 'b'] * 6)}", f"run_dir={tmp_path}/run"]
    assert main(["check", *words, "data.labels=mood"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "scm-media check: image/tiny: data.labels must be a list with each entry text or null, got 'mood': "
        "write data.labels=[mood]"
    ]
    assert unicodedata.is_normalized("NFC", NFC)


@pytest.mark.parametrize("value", [1e308, -1e308, 3.5e38, "1e300"])
def test_a_scalar_that_float32_does_not_hold_is_counted(value):
    with pytest.raises(Unusable, match="scalar label that is no number"):
        read_label(value, "speed", True, None)
    assert read_label(3.4e38, "speed", True, None) == 3.4e38

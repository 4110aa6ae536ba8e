"""Rows of numbers in a manifest: what is read, what is left out and why, what is refused, and what a model keeps."""

from __future__ import annotations

import json
import math

import pytest
import torch

from modalities.image import ImageModality
from modalities.video import VideoModality
from scm_media.data import ManifestDataset, batches, read_ranges
from scm_media.data.actions import ActionBank, select_for_bank
from scm_media.latents import LatentDataset, Manifest
from scm_media.latents.cache import write_missing
from tests.data.strips import PLACES, StripModality, write_strips


@pytest.fixture
def rows(tmp_path):
    """Twelve strips whose rows say their own number: [number, place]."""
    return [
        {"path": path, "kind": ["even", "odd"][number % 2], "moves": [[number, place] for place in range(PLACES)]}
        for number, path in enumerate(write_strips(tmp_path, 12))
    ]


def write(folder, rows):
    path = folder / "list.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def open_manifest(path, modality=None, **options):
    told = {"actions": "moves", "held_out": 0.1, **options}
    return ManifestDataset(modality=modality or StripModality(), path=path, **told)


def test_rows_stay_with_their_file(tmp_path, rows):
    dataset = open_manifest(write(tmp_path, rows), action_names=["number", "place"])
    assert dataset.action_names == ("number", "place")
    assert dataset.label_names == {"kind": ("even", "odd")}, "the column is no label"
    for place in range(len(dataset)):
        example = dataset[place]
        number = round(example.sample[0, 0, 0].item() * 100)
        assert example.actions.dtype == torch.float32
        assert example.actions.tolist() == [[number] * PLACES, list(range(PLACES))]
    batch = dataset.batch([2, 0])
    assert batch.actions.shape == (2, 2, PLACES)
    assert torch.equal(batch.actions[1], dataset[0].actions)
    assert batch.to("meta").actions.device.type == "meta"
    with_workers = next(batches(dataset, 4, 0, 1, seed=3, num_workers=1))
    assert torch.equal(with_workers.actions, next(batches(dataset, 4, 0, 1, seed=3)).actions)


def test_without_the_column_named_it_is_a_label_and_nothing_is_aligned(tmp_path, rows):
    dataset = open_manifest(write(tmp_path, rows), actions=None, labels=["kind"])
    assert dataset.action_names == ()
    assert dataset[0].actions is None
    assert dataset.batch([0, 1]).actions is None


def test_rows_of_no_use_are_counted_by_reason(tmp_path, rows):
    good = rows[0]["moves"]
    bad = [
        good[:-1],
        [*good, [0, 0]],
        [[1]] * PLACES,
        [[1, 2, 3]] * PLACES,
        [*good[1:], [0, "left"]],
        [*good[1:], [0, None]],
        [*good[1:], [0, math.nan]],
        [*good[1:], [0, math.inf]],
        [*good[1:], [0, 1e39]],
        [*good[1:], 0],
        "left",
        None,
    ]
    paths = write_strips(tmp_path, 12 + len(bad))[12:]
    lines = [{"path": path, "kind": "odd", "moves": moves} for path, moves in zip(paths, bad, strict=True)]
    path = write(tmp_path, [*rows, *lines, {"path": write_strips(tmp_path, 30)[29], "kind": "odd"}])
    dataset = open_manifest(path)
    assert dataset.rejects == {
        "actions for too few or too many frames": 2,
        "too few or too many actions for a frame": 2,
        "actions that are no lists of numbers": 7,
        "missing actions": 2,
    }
    assert (f"{path}:13", "actions for too few or too many frames: moves: 5, expected 6") in dataset.rejected
    assert (f"{path}:15", "too few or too many actions for a frame: moves: 1 numbers, expected 2") in dataset.rejected
    assert (f"{path}:17", "actions that are no lists of numbers: moves: 'left'") in dataset.rejected
    assert len(dataset) == 11
    assert dataset.action_names == ("1", "2")
    with pytest.raises(ValueError, match=r"nothing in .* can be used: .*too few or too many actions for a frame"):
        open_manifest(path, action_names=["a", "b", "c", "d"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"actions": "steps"}, "has no column steps"),
        ({"actions": None, "action_names": ["a"]}, "names the numbers of no column: set data.actions"),
        ({"action_names": ["a", "a"]}, "must differ.*got 'a'"),
        ({"action_names": ["turn left", "b"]}, "no spaces.*got 'turn left'"),
        ({"action_names": ["a", "None"]}, "not be 'none'; got 'None'"),
        ({"action_names": []}, "a list of names, or null"),
        ({"modality": ImageModality(size=8)}, "image does not tell whether a sample begins where its file does"),
        ({"modality": VideoModality(window="random")}, "modality.window=random .* set modality.window=start"),
        ({"modality": VideoModality(window="start", flip=True)}, "modality.flip=True .* set modality.flip=false"),
    ],
)
def test_rows_that_cannot_lie_beside_samples_are_refused_by_key(tmp_path, rows, options, said):
    with pytest.raises(ValueError, match=said):
        open_manifest(write(tmp_path, rows), **options)


def test_a_table_of_commas_is_refused(tmp_path, rows):
    path = tmp_path / "list.csv"
    path.write_text("path,moves\na,1\n")
    with pytest.raises(ValueError, match=r"data.actions=moves: actions are lists of numbers in a .jsonl, got"):
        open_manifest(path)


def test_the_fingerprint_tells_other_rows_and_is_the_old_one_without(tmp_path, rows):
    path = write(tmp_path, rows)
    one, plain = (open_manifest(path, actions=actions, labels=["kind"]) for actions in ("moves", None))
    rows[3]["moves"][2][1] += 1
    other = open_manifest(write(tmp_path, rows), labels=["kind"])
    assert one.fingerprint() != other.fingerprint()
    assert one.fingerprint().startswith(plain.fingerprint() + "-")


def test_kept_latents_have_the_rows_of_their_examples(tmp_path, rows):
    data = open_manifest(write(tmp_path, rows))
    manifest = Manifest(
        autoencoder="a", dataset=data.fingerprint(), modality={}, variants=1, num=len(data), shape=[1, PLACES, 4],
        dtype="float16", shard_size=4,
    )  # fmt: skip
    manifest.save(tmp_path / "kept")
    write_missing(
        tmp_path / "kept", manifest, lambda ranges: read_ranges(data, ranges, 1, seed=0), lambda x: x[..., ::2], None, 3
    )
    kept = LatentDataset(tmp_path / "kept", data)
    assert kept.action_names == data.action_names
    for one, other in zip(batches(kept, 3, 0, 5, seed=1), batches(data, 3, 0, 5, seed=1), strict=True):
        assert torch.equal(one.actions, other.actions)
    assert torch.equal(kept[7].actions, data[7].actions)
    plain = open_manifest(tmp_path / "list.jsonl", actions=None, labels=["kind"])
    assert LatentDataset(tmp_path / "kept", plain)[0].actions is None
    (tmp_path / "kept" / "00001.safetensors").unlink()
    write_missing(
        tmp_path / "kept",
        manifest,
        lambda ranges: read_ranges(plain, ranges, 1, seed=0),
        lambda x: x[..., ::2],
        None,
        3,
    )
    with pytest.raises(ValueError, match=r"00001.safetensors holds no actions: delete it"):
        LatentDataset(tmp_path / "kept", data)


def test_some_rows_are_kept_with_their_classes(tmp_path, rows):
    data = open_manifest(write(tmp_path, rows))
    data.action_bank(5).save(tmp_path / "action_bank.safetensors")
    kept = ActionBank.load(tmp_path / "action_bank.safetensors")
    assert kept.actions.shape == (5, 2, PLACES)
    assert len({int(number) for number in kept.actions[:, 0, 0]}) == 5
    assert torch.equal(kept.labels["kind"], kept.actions[:, 0, 0].long() % 2)
    assert len(data.action_bank().actions) == 11
    assert select_for_bank(1000, (2, PLACES)) == select_for_bank(1000, (2, PLACES))
    assert len(select_for_bank(1000, (2, PLACES))) == 512
    assert len(select_for_bank(1000, (1, 45_056))) == 5, "a mebibyte at most"
    with pytest.raises(ValueError, match="is no whole safetensors file"):
        ActionBank.load(write(tmp_path, rows))

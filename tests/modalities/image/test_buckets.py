"""Aspect buckets: the nearest shape, batches of one shape, every picture equally often, resumable, on ranks."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from PIL import Image

from modalities.image import ImageModality
from scm_media import recipe, training
from scm_media.cli import main
from scm_media.data import FolderDataset, batches
from scm_media.data.order import Division, select_from_bucket
from tests.training.small import SMALL

BUCKETS = [[16, 16], [12, 20], [20, 12]]


@pytest.fixture
def root(tmp_path):
    """24 square, 12 lying and 4 standing pictures, of one level each."""
    (tmp_path / "data" / "all").mkdir(parents=True)
    sizes = [(30, 30)] * 24 + [(50, 30)] * 12 + [(24, 40)] * 4
    for number, size in enumerate(sizes):
        Image.new("L", size, 5 * number).save(tmp_path / "data" / "all" / f"{number}.png")
    return tmp_path / "data"


def modality(**options):
    return ImageModality(size=16, fit="crop", buckets=BUCKETS, **options)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(9, 9, 0), (100, 110, 0), (300, 500, 1), (10, 1000, 1), (500, 300, 2), (40, 31, 0), (40, 30, 2)],
)
def test_a_picture_takes_the_nearest_aspect_and_keeps_its_form(height, width, expected):
    ramp = torch.linspace(-1, 1, width).expand(1, height, width)
    assert modality().transform(ramp).shape == (1, *BUCKETS[expected])


def test_the_first_bucket_is_the_shape_and_a_size_stays_a_square():
    assert modality().shape() == (1, 16, 16)
    assert modality(channels=3).shape(size=8) == (3, 8, 8)
    assert ImageModality(size=16, fit="crop", buckets=BUCKETS[1:]).shape() == (1, 12, 20)


@pytest.mark.parametrize("verify", [True, False])
def test_batches_have_one_shape_and_show_every_picture_equally_often(root, verify):
    dataset = FolderDataset(modality=modality(), root=root, held_out=0.1, verify=verify)
    assert dataset.buckets.bincount().tolist()[0] > dataset.buckets.bincount().tolist()[1]
    num = len(dataset)
    seen, shapes = Counter(), Counter()
    for batch in batches(dataset, 4, 0, 3 * num, seed=2):
        shapes[tuple(batch.sample.shape[2:])] += 1
        seen.update(round((float(sample.mean()) + 1) * 127.5) for sample in batch.sample)
    assert {BUCKETS.index(list(shape)): count for shape, count in shapes.items()} == {
        bucket: 3 * count for bucket, count in enumerate(dataset.buckets.bincount().tolist())
    }
    assert set(seen.values()) == {12}
    assert len(seen) == num


def test_the_order_is_the_same_after_a_resume_with_workers_and_on_ranks(root):
    dataset = FolderDataset(modality=modality(flip=True, random_crop=True), root=root)
    whole = list(batches(dataset, 6, 0, 30, seed=1))
    resumed = batches(dataset, 6, 11, 19, seed=1, num_workers=2)
    assert all(torch.equal(one.sample, other.sample) for one, other in zip(resumed, whole[11:], strict=True))
    halves = [list(batches(dataset, 6, 0, 30, seed=1, division=Division(rank, 2))) for rank in (0, 1)]
    for first, second, both in zip(*halves, whole, strict=True):
        assert torch.equal(torch.cat([first.sample, second.sample]), both.sample)


def test_buckets_take_turns_in_an_order_of_the_seed():
    buckets = torch.tensor([0] * 6 + [1] * 3)
    turns = [
        [int(buckets[select_from_bucket(step, range(2), 2, buckets, seed)[0][1]]) for step in range(27)]
        for seed in (0, 1)
    ]
    assert turns[0] != turns[1]
    for start in (0, 9, 18):
        assert sum(turns[0][start : start + 9]) == 3
    assert turns[0][:9] != turns[0][9:18]
    with pytest.raises(ValueError, match="the data have no example to train on"):
        select_from_bucket(0, range(2), 2, buckets[:0], 0)


def test_what_takes_examples_in_turn_is_refused(root):
    dataset = FolderDataset(modality=modality(), root=root)
    with pytest.raises(ValueError, match=r"cannot be one batch.*modality\.buckets"):
        dataset.batch(range(len(dataset)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"buckets": [[16, 17]]}, r"\[16, 17\] has more pixels than modality\.size²"),
        ({"buckets": [[16]]}, r"list of \[height, width\]"),
        ({"buckets": [16, 16]}, r"list of \[height, width\]"),
        ({"buckets": []}, "at least one shape"),
        ({"buckets": [[8, 8], [8, 8]]}, "none of them twice"),
        ({"buckets": [[8, 8]], "fit": "pad"}, r"needs modality\.fit=crop"),
    ],
)
def test_impossible_buckets_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        ImageModality(**{"size": 16, "fit": "crop", **options})


def test_training_check_and_encode_take_them_or_say_why_not(root, tmp_path, capsys):
    run = tmp_path / "run"
    words = [
        *(word for word in SMALL if not word.startswith(("data.num", "modality"))),
        "data=folder",
        f"data.root={root}",
        f"run_dir={run}",
        "modality.fit=crop",
        f"modality.buckets={BUCKETS}".replace(" ", ""),
        "trainer.validate_every=3",
        "trainer.accumulate=2",
    ]
    assert main(["check", "image/tiny", *words]) == 0
    said = capsys.readouterr().out
    assert "buckets: 16×16 2" in said
    assert ", 12×20 1" in said
    assert main(["train", "image/tiny", *words]) == 0
    assert (run / "student" / "weights.safetensors").exists()
    assert sorted(path.name for path in (run / "student" / "samples").iterdir()) == ["step-0.png", "step-6.png"]
    assert "held_out/loss" in (run / "teacher" / "metrics.jsonl").read_text()
    capsys.readouterr()
    assert main(["encode", "image/tiny", *words]) == 1
    assert "set modality.buckets=null" in capsys.readouterr().err


def test_a_bucket_that_the_autoencoder_cannot_halve_is_refused_before_training(root, tmp_path):
    words = [
        *(word for word in SMALL if not word.startswith(("data.num", "modality", "autoencoder"))),
        "data=folder",
        f"data.root={root}",
        f"run_dir={tmp_path / 'run'}",
        "autoencoder=kl",
        "autoencoder.network.factor=4",
        "modality.fit=crop",
        "modality.buckets=[[16,16],[12,20],[18,14]]",
    ]
    with pytest.raises(ValueError, match=r"size 18×14 cannot be encoded: .* multiples of 4×4"):
        training.run(recipe.compose("image/tiny", words))
    assert not (tmp_path / "run").exists()

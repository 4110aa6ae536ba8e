"""Batches: the same from any step on, with workers or without."""

from __future__ import annotations

import errno
import os
import signal
import time

import pytest
import torch
from torch.utils.data import get_worker_info

from modalities.image import ImageModality
from scm_media.data import Dataset, Example, ShapesDataset, batches
from scm_media.data.order import Division, select


@pytest.fixture
def shapes():
    return ShapesDataset(modality=ImageModality(size=12, flip=True), num=50)


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a.sample, b.sample) and torch.equal(a.labels["class"], b.labels["class"])
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumed_batches_equal_those_of_an_undisturbed_run(shapes, num_workers):
    undisturbed = list(batches(shapes, 8, 0, 14, seed=7))
    resumed = list(batches(shapes, 8, 5, 9, seed=7, num_workers=num_workers))
    assert same(resumed, undisturbed[5:])
    assert not same(resumed, undisturbed[:9])


def test_two_ranks_with_workers_see_disjoint_halves(shapes):
    halves = [list(batches(shapes, 10, 0, 5, seed=1, num_workers=2, division=Division(rank, 2))) for rank in (0, 1)]
    whole = list(batches(shapes, 10, 0, 5, seed=1))
    for first, second, both in zip(*halves, whole, strict=True):
        assert torch.equal(torch.cat([first.sample, second.sample]), both.sample)
    plain = ShapesDataset(modality=ImageModality(size=12), num=50)
    pictures = [
        {
            tuple(sample.flatten().tolist())
            for b in batches(plain, 10, 0, 5, seed=1, division=Division(rank, 2))
            for sample in b.sample
        }
        for rank in (0, 1)
    ]
    assert len(pictures[0]) == len(pictures[1]) == 25
    assert not pictures[0] & pictures[1]


def test_augmentation_changes_from_epoch_to_epoch_alone(shapes):
    picture_by_epoch = []
    for batch, step in zip(batches(shapes, 50, 0, 8, seed=0), range(8), strict=True):
        place = [index for _, index in select(range(50 * step, 50 * step + 50), 50, seed=0)].index(13)
        picture_by_epoch.append(batch.sample[place])
    plain = shapes[13].sample
    flipped = [torch.equal(picture, plain.flip(-1)) for picture in picture_by_epoch]
    assert all(turned or torch.equal(picture, plain) for turned, picture in zip(flipped, picture_by_epoch, strict=True))
    assert 0 < sum(flipped) < 8


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_global_generator_is_left_alone(shapes, num_workers):
    before = torch.get_rng_state()
    list(batches(shapes, 4, 0, 2, seed=0, num_workers=num_workers))
    assert torch.equal(torch.get_rng_state(), before)


class Plain(Dataset):
    """A dataset as simple as the protocol allows."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return Example(torch.full((1, 3), float(index)), {"class": index % 2, "pitch": index / 4}, f"number {index}")


class Listed(Plain):
    def __getitems__(self, indices):
        return [Plain.__getitem__(self, index) for index in indices]

    def __getitem__(self, index):
        raise AssertionError("the list should have been asked for")


@pytest.mark.parametrize("dataset", [Plain(), Listed()])
def test_datasets_without_batches_are_collated(dataset):
    batch = dataset.batch([3, 0, 5])
    assert batch.sample.tolist() == [[[3.0] * 3], [[0.0] * 3], [[5.0] * 3]]
    assert batch.labels["class"].dtype == torch.int64
    assert batch.labels["class"].tolist() == [1, 0, 1]
    assert batch.labels["pitch"].dtype == torch.float32
    assert batch.labels["pitch"].tolist() == [0.75, 0.0, 1.25]
    assert set(batch.conditioning().labels) == {"class", "pitch"}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_users_error_stays_one_line(num_workers):
    class Broken(Plain):
        def __getitem__(self, index):
            raise ValueError("mine.png cannot be decoded")

    with pytest.raises(ValueError, match=r"^mine\.png cannot be decoded$"):
        list(batches(Broken(), 2, 0, 1, seed=0, num_workers=num_workers))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_cannot_be_read_stays_one_line_too(num_workers):
    class Unreadable(Plain):
        def __getitem__(self, index):
            raise PermissionError(errno.EACCES, "Permission denied", "mine.png")

    with pytest.raises(PermissionError) as caught:
        list(batches(Unreadable(), 2, 0, 1, seed=0, num_workers=num_workers))
    assert str(caught.value) == f"[Errno {errno.EACCES}] Permission denied: 'mine.png'"
    assert caught.value.filename == "mine.png"


def test_data_in_memory_is_batched_fast():
    class FeatureCache(Plain):
        pictures = torch.zeros(10_000, 1, 32, 32, dtype=torch.uint8)

        def __len__(self):
            return len(self.pictures)

        def batch(self, indices, generators):
            from scm_media.data import Batch

            return Batch(ImageModality().transform_batch(self.pictures[torch.tensor(indices)].float(), generators))

    start = time.perf_counter()
    num = sum(len(batch.sample) for batch in batches(FeatureCache(), 64, 0, 300, seed=0))
    assert num / (time.perf_counter() - start) > 5_000, "four times slower than promised, or a very busy machine"


class Stuck(Plain):
    """A data set whose third example is on a place that does not answer."""

    def __getitem__(self, index):
        if index == 2:
            time.sleep(60)
        return super().__getitem__(index)


def test_a_worker_that_stands_still_is_noticed(monkeypatch):
    monkeypatch.setattr("scm_media.data.loader.SECONDS_FOR_A_BATCH", 1)
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)  # seconds that a worker has to end
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"a worker that reads data stopped \(DataLoader timed out after 1 seconds"):
        list(batches(Stuck(), 4, 0, 4, seed=0, num_workers=1))
    assert time.monotonic() - began < 20


class Killed(Plain):
    """A data set whose worker is killed while it reads the third example, as for want of memory."""

    def __getitem__(self, index):
        if index == 2 and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_worker_that_is_killed_is_noticed_at_once():
    began = time.monotonic()
    with pytest.raises(
        ValueError, match=r"a worker that reads data stopped \(DataLoader worker .* memory may be short"
    ):
        list(batches(Killed(), 4, 0, 4, seed=0, num_workers=1))
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("broken", [ConnectionResetError(104, "reset by peer"), EOFError()])
def test_a_worker_that_is_killed_while_it_hands_a_batch_over_is_noticed_once(monkeypatch, broken):
    ended = []

    class Breaking:
        def __init__(self, *arguments, **settings):
            pass

        def __iter__(self):
            return self

        def __next__(self):
            raise broken

        def _shutdown_workers(self):
            ended.append(True)
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")  # by the handler of its signal

    monkeypatch.setattr("scm_media.data.loader.DataLoader", Breaking)
    with pytest.raises(
        ValueError, match=r"stopped \(DataLoader worker ended while it handed a batch over.*may be short"
    ):
        list(batches(Plain(), 4, 0, 4, seed=0, num_workers=1))
    assert ended == [True]

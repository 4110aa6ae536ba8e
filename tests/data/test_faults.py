"""Files whose decoders fail: counted with name and reason wherever that is, and never the end of a run."""

from __future__ import annotations

import struct
from itertools import chain
from pathlib import Path

import pytest
import torch
from PIL import Image

from modalities.image import ImageModality
from scm_media.data import FolderDataset, ManifestDataset, ShardsDataset, batches
from tests.data.test_shards import append, png

ERRORS = [
    TypeError,
    AttributeError,
    RecursionError,
    MemoryError,
    struct.error,
    KeyError,
    OSError,
    UnicodeError,
    type("PluginError", (Exception,), {}),
]


class Failing(ImageModality):
    """Raises an error for files of a name, in one of its methods."""

    takes_segments = True

    def __init__(self, where, error, broken="/5.png", **options):
        super().__init__(size=8, **options)
        self.where, self.error, self.broken = where, error, broken

    def _fail(self, where, file):
        source = str(file) if isinstance(file, str | Path) else file.name
        if where == self.where and source.endswith(self.broken):
            raise self.error("deep inside")

    def read(self, path):
        self._fail("read", path)
        return super().read(path)

    def validate(self, file):
        self._fail("validate", file)
        super().validate(file)

    def transform(self, sample, generator=None):
        self._fail("transform", "/5.png" if round((float(sample.mean()) + 1) * 127.5) == 50 else "")
        return super().transform(sample, generator)

    def measure(self, file):
        self._fail("measure", file)
        return {"lightness": 1.0}

    def bucket(self, file):
        self._fail("bucket", file)
        return super().bucket(file)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data" / "a").mkdir(parents=True)
    for number in range(20):
        Image.new("L", (8, 8), 10 * number).save(tmp_path / "data" / "a" / f"{number}.png")
    return tmp_path / "data"


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("where", ["validate", "measure", "bucket"])
def test_whatever_is_raised_while_data_are_opened_is_a_counted_reject(root, where, error):
    more = {"buckets": [[8, 8]], "fit": "crop"} if where == "bucket" else {}
    measures = ["lightness"] if where == "measure" else []
    for verify in (True, False):
        dataset = FolderDataset(Failing(where, error, **more), root, measures=measures, verify=verify)
        if where == "validate" and not verify:
            assert dataset.rejects == {}
            continue
        assert dataset.rejects == {"undecodable": 1}
        ((source, reason),) = dataset.rejected
        assert source == str(root / "a" / "5.png")
        assert "5.png" in reason and "deep inside" in reason
        if error not in (OSError, UnicodeError):
            assert error.__name__ in reason
        held_out = FolderDataset(dataset.modality, root, measures=measures, verify=verify, split="held_out")
        assert len(dataset) + len(held_out) == 19


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["validate", "read"])
def test_a_stop_ends_the_run(root, where, stop):
    def run():
        list(batches(FolderDataset(Failing(where, stop), root, held_out=0.05), 20, 0, 1, seed=0))

    with pytest.raises(stop):
        run()


def test_members_of_shards_are_counted_alike(tmp_path):
    append(tmp_path / "a.tar", {f"{number}.png": png(9 * number) for number in range(8)})
    dataset = ShardsDataset(Failing("validate", AttributeError, broken="#5.png"), "a.tar", tmp_path)
    assert dataset.rejects == {"undecodable": 1}
    assert dataset.rejected[0][1].startswith("undecodable: a.tar#5.png: cannot be decoded: AttributeError: deep inside")


def levels(batch):
    return [round((float(sample.mean()) + 1) * 12.75) for sample in batch.sample]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("where", ["read", "transform"])
@pytest.mark.parametrize("error", [TypeError, MemoryError, OSError, ValueError])
def test_a_file_that_fails_in_training_is_named_counted_and_replaced(root, capfd, where, error, num_workers):
    good = FolderDataset(ImageModality(size=8), root, held_out=0.05)
    bad = FolderDataset(Failing(where, error), root, held_out=0.05)
    expected = [levels(batch) for batch in batches(good, 6, 0, 9, seed=2)]
    found = [levels(batch) for batch in batches(bad, 6, 0, 9, seed=2, num_workers=num_workers)]
    pairs = zip(chain.from_iterable(expected), chain.from_iterable(found), strict=True)
    other = next(new for old, new in pairs if old == 5)
    assert other != 5
    assert found == [[other if level == 5 else level for level in batch] for batch in expected]
    assert sum(batch.count(5) for batch in expected) > 1, "it is met more than once"
    assert bad.rejects == {"unreadable since the data was opened": 1}
    assert bad.rejected[0][0] == str(root / "a" / "5.png")
    said = capfd.readouterr().err
    assert said.count("5.png") == 1
    assert "(left out: another file takes its place)" in said
    resumed = [levels(batch) for batch in batches(bad, 6, 4, 5, seed=2)]
    assert resumed == found[4:]


def test_labels_rows_and_buckets_are_those_of_the_file_that_takes_the_place(root):
    wide = root / "wide"
    wide.mkdir()
    for number in range(10):
        Image.new("L", (12, 6), 100 + number).save(wide / f"{number}.png")
    modality = Failing("read", TypeError, broken="wide/5.png", fit="crop", buckets=[[8, 8], [5, 10]])
    dataset = FolderDataset(modality, root, held_out=0.05)
    for batch in batches(dataset, 4, 0, 60, seed=0):
        kind = 1 if batch.sample.shape[-1] == 10 else 0
        assert set(batch.labels["class"].tolist()) == {kind}
    assert dataset.rejects == {"unreadable since the data was opened": 1}


def test_a_disk_that_is_gone_stops_the_run_in_one_line(root):
    dataset = FolderDataset(ImageModality(size=8), root)
    for path in (root / "a").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"^16 files, tried one in place of the other, cannot be read"):
        list(batches(dataset, 4, 0, 1, seed=0))


def test_names_that_no_file_can_have_are_counted(tmp_path, root):
    rows = [f"a/{number}.png" for number in range(6)]
    odd = ["x" * 5000 + ".png", "nul\\u0000.png", "lone\\ud800.png", "a"]
    lines = [f'{{"path": "{path}"}}' for path in rows + odd]
    (root / "list.jsonl").write_text("\n".join([*lines, "[" * 100_000]))
    for verify in (True, False):
        dataset = ManifestDataset(ImageModality(size=8), root / "list.jsonl", verify=verify)
        assert dataset.rejects["line that is no JSON object"] == 1
    assert len(dataset) == 9, "unverified"
    verified = ManifestDataset(ImageModality(size=8), root / "list.jsonl")
    assert verified.rejects["unreadable file"] + verified.rejects["missing file"] == 3
    assert verified.rejects["folder that is not one sample"] == 1
    assert len(verified) == 5
    assert torch.isfinite(dataset.batch(range(len(dataset))).sample).all(), "others take their places"


def test_a_whole_folder_of_bad_files_does_not_stop_the_run(root):
    (root / "b").mkdir()
    for number in range(100):
        (root / "b" / f"{number}.png").write_bytes(b"torn")
        Image.new("L", (8, 8), number).save(root / "a" / f"more {number}.png")
    dataset = FolderDataset(ImageModality(size=8), root, verify=False)
    assert sum(len(batch.sample) for batch in batches(dataset, 20, 0, 22, seed=0)) == 440
    assert 95 <= dataset.rejects["unreadable since the data was opened"] <= 100

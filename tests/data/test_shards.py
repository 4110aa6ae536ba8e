"""WebDataset shards: members grouped, labelled, read by number in the order that folders are read in."""

from __future__ import annotations

import io
import json
import sys
import tarfile

import pytest
import torch
import webdataset
from PIL import Image

from modalities.image import ImageModality
from scm_media import Modality
from scm_media.cli import main
from scm_media.data import FolderDataset, ShardsDataset, batches
from scm_media.data import tars as module
from scm_media.data.order import Division

NAMES = ("cat", "dog")


def png(level):
    content = io.BytesIO()
    Image.new("L", (8, 8), level).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def root(tmp_path):
    """Three shards of ten pictures each, the level of number i being 8 i, written by the library itself."""
    for shard in range(3):
        with webdataset.TarWriter(str(tmp_path / f"train-{shard:03d}.tar")) as tar:
            for number in range(10 * shard, 10 * shard + 10):
                told = {"label": NAMES[number % 2], "pitch": number / 4, "caption": f"number {number}"}
                tar.write(
                    {
                        "__key__": f"a/{number:04d}",
                        "png": png(8 * number),
                        "cls": number % 2,
                        "txt": f"picture {number}",
                        "json": told,
                        "mask.png": png(255),
                    }
                )
    return tmp_path


def open_shards(root, **options):
    options = {"shards": "train-{000..002}.tar", "root": root, "held_out": 0.1, **options}
    return ShardsDataset(modality=options.pop("modality", ImageModality(size=8)), **options)


def level(example):
    return round((float(example.sample.mean()) + 1) * 127.5)


def test_members_of_an_example_stay_together(root):
    dataset = open_shards(root, labels={"class": "cls"}, caption="txt")
    assert (len(dataset), dataset.rejects, dataset.label_names) == (27, {}, {"class": ("0", "1")})
    for place in range(27):
        example = dataset[place]
        number = level(example) // 8
        assert example.labels == {"class": number % 2}
        assert dataset.captions()[place] == (f"picture {number}",)
        assert example.source == f"{root}/train-{number // 10:03d}.tar#{number:04d}.png"
    held_out = open_shards(root, split="held_out", labels={"class": "cls"})
    both = [level(data[place]) for data in (dataset, held_out) for place in range(len(data))]
    assert sorted(both) == [8 * number for number in range(30)]


def test_labels_and_captions_come_from_json_too(root):
    dataset = open_shards(
        root, labels={"kind": "json:label", "pitch": "json:pitch"}, scalars=["pitch"], caption="json:caption"
    )
    assert dataset.label_names == {"kind": NAMES, "pitch": ()}
    number = level(dataset[5]) // 8
    assert dataset[5].labels == {"kind": number % 2, "pitch": number / 4}
    assert dataset.captions()[5] == (f"number {number}",)
    named = open_shards(root, labels={"class": "cls"}, classes={"class": NAMES})
    assert named.label_names == {"class": NAMES}
    assert named[5].labels == {"class": number % 2}
    assert open_shards(root).label_names == {}


def test_many_classes_keep_the_order_of_their_numbers(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as tar:
        for number in range(12):
            tar.write({"__key__": f"{number}", "png": png(number), "cls": number})
    dataset = open_shards(tmp_path, shards="a.tar", labels={"class": "cls"})
    assert dataset.label_names["class"] == tuple(map(str, range(12)))
    assert all(dataset[place].labels["class"] == level(dataset[place]) for place in range(len(dataset)))


def test_order_is_the_same_after_a_resume_on_ranks_and_with_workers(root):
    dataset = open_shards(root, labels={"class": "cls"}, modality=ImageModality(size=6, fit="crop", flip=True))
    whole = [batch.sample for batch in batches(dataset, 8, 0, 9, seed=3)]
    resumed = [batch.sample for batch in batches(open_shards(root, labels={"class": "cls"}), 8, 4, 5, seed=3)]
    assert [round(float(a.sum())) for a in resumed] != [round(float(b.sum())) for b in whole[:5]]
    again = open_shards(root, labels={"class": "cls"}, modality=ImageModality(size=6, fit="crop", flip=True))
    for one, other in zip(batches(again, 8, 4, 5, seed=3, num_workers=2), whole[4:], strict=True):
        assert torch.equal(one.sample, other)
    halves = [list(batches(again, 8, 0, 9, seed=3, division=Division(rank, 2))) for rank in (0, 1)]
    for first, second, both in zip(*halves, whole, strict=True):
        assert torch.equal(torch.cat([first.sample, second.sample]), both)


def test_the_order_is_that_of_a_folder_of_the_same_names(root, tmp_path):
    for shard in range(3):
        folder = tmp_path / "folder" / f"train-{shard:03d}.tar" / "a"
        folder.mkdir(parents=True)
        for number in range(10 * shard, 10 * shard + 10):
            (folder / f"{number:04d}.png").write_bytes(png(8 * number))
    plain = FolderDataset(modality=ImageModality(size=8), root=tmp_path / "folder", labels="none", held_out=0.1)
    shards = open_shards(root)
    for one, other in zip(batches(shards, 5, 0, 8, seed=0), batches(plain, 5, 0, 8, seed=0), strict=True):
        assert torch.equal(one.sample, other.sample)


def append(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def test_rejects_are_counted_by_reason(root):
    append(
        root / "odd.tar",
        {
            "good.png": png(1),
            "good.cls": b"1",
            "torn.png": png(1)[:30],
            "torn.cls": b"1",
            "bare.png": png(2),
            "deaf.wav": b"RIFF",
            "deaf.cls": b"0",
            "README": b"no suffix",
        },
    )
    dataset = open_shards(root, shards=["odd.tar", "train-{000..003}.tar"], labels={"class": "cls"})
    assert dataset.rejects == {
        "member without a suffix": 1,
        "missing label": 1,
        "no file of the modality's": 1,
        "missing shard": 1,
        "undecodable": 1,
    }
    told = dict(dataset.rejected)
    assert told[f"{root}/train-003.tar"] == "missing shard"
    assert told[f"{root}/odd.tar#deaf"] == "no file of the modality's: wav, cls"
    assert told[f"{root}/odd.tar#torn.png"].startswith("undecodable: odd.tar#torn.png cannot be decoded")


@pytest.mark.parametrize("where", ["in a file", "in a header", "before the end mark"])
def test_a_truncated_shard_is_named_and_used_up_to_the_cut(root, where):
    path = root / "train-001.tar"
    with tarfile.open(path) as tar:
        pictures = [entry for entry in tar if entry.name.endswith("4.png")]
        last = tar.getmembers()[-1]
    ends = {
        "in a file": pictures[0].offset_data + 20,
        "in a header": pictures[0].offset + 100,
        "before the end mark": last.offset_data + 512,
    }
    with path.open("r+b") as file:
        file.truncate(ends[where])
    dataset = open_shards(root)
    torn = {} if where == "before the end mark" else {"no file of the modality's": 1}
    assert dataset.rejects == {"shard that is cut short": 1, **torn}
    assert dataset.rejected[0][0] == str(path)
    held_out = open_shards(root, split="held_out")
    assert len(dataset) + len(held_out) == (30 if where == "before the end mark" else 24)


def test_what_is_no_tar_is_named(root):
    (root / "train-001.tar").write_bytes(b"\x1f\x8b" + b"x" * 2000)
    with tarfile.open(root / "train-002.tar") as tar:
        place = tar.getmembers()[12].offset
    with (root / "train-002.tar").open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 512)
    dataset = open_shards(root)
    assert dataset.rejects["shard that is no plain tar"] == 1
    assert dataset.rejects["shard that is damaged"] == 1
    with pytest.raises(ValueError, match=r"data\.shards=none\.tar can be used: 1 missing shard"):
        open_shards(root, shards="none.tar")


def test_the_index_is_made_once_and_again_when_a_shard_changes(root, tmp_path, monkeypatch):
    walked = []
    walk = module.walk
    monkeypatch.setattr(module, "walk", lambda path: walked.append(path.name) or walk(path))
    first = open_shards(root, index=tmp_path / "index", labels={"class": "cls"})
    open_shards(root, index=tmp_path / "index", split="held_out", labels={"class": "cls"})
    second = open_shards(root, index=tmp_path / "index", labels={"class": "cls"})
    assert sorted(walked) == [f"train-00{number}.tar" for number in range(3)]
    assert first.fingerprint() == second.fingerprint()
    append(root / "train-002.tar", {"a/0020.png": png(3), "a/0020.cls": b"0"})
    third = open_shards(root, index=tmp_path / "index", labels={"class": "cls"})
    assert walked[3:] == ["train-002.tar"]
    assert third.fingerprint() != first.fingerprint()
    for file in (tmp_path / "index").iterdir():
        file.write_text("{")
    with pytest.raises(ValueError, match="is no index of"):
        open_shards(root, index=tmp_path / "index")


def test_members_of_one_name_are_counted(tmp_path):
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        for number in (1, 2, 3, 2):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(png(9 * number))
            tar.addfile(member, io.BytesIO(png(9 * number)))
    dataset = open_shards(tmp_path, shards="one.tar")
    assert len(dataset) == 2
    assert dataset.rejects == {"member of the same name as an earlier one": 1}


def test_a_member_without_a_header_is_named_where_buckets_need_its_size(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "one.tar")) as tar:
        for key in "ab":
            tar.write({"__key__": key, "png": b"no picture"})
    crop = ImageModality(size=8, fit="crop", buckets=[[8, 8]])
    with pytest.raises(ValueError, match=r"one\.tar#[ab]\.png"):
        open_shards(tmp_path, shards="one.tar", modality=crop, verify=False)


def test_a_modality_that_reads_files_alone_is_given_one(root):
    class OnlyFiles(Modality):
        name, suffixes = "image", frozenset({".png"})
        inner = ImageModality(size=8)
        shape, transform, write, preview = inner.shape, inner.transform, inner.write, inner.preview

        def read(self, path):
            assert path.suffix == ".png"
            return self.inner.read(path)

    dataset = open_shards(root, modality=OnlyFiles())
    assert torch.equal(dataset[3].sample, open_shards(root)[3].sample)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": {"class": "jpg"}}, r"data\.labels\.class must be cls, txt or json:KEY, got 'jpg'"),
        ({"scalars": ["pitch"]}, "pitch, which data.labels does not"),
        ({"shards": "http://host/a.tar"}, "not on this machine"),
        ({"shards": []}, "names no shard"),
    ],
)
def test_impossible_options_are_refused_by_key(root, options, said):
    with pytest.raises(ValueError, match=said):
        open_shards(root, **options)


def test_without_the_library_the_extra_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset.shardlists", None)
    with pytest.raises(ValueError, match=r"pip install 'scm-media\[shards\]'"):
        open_shards(root)


def test_check_opens_them_by_recipe(root, capsys):
    words = ["data=shards", f"data.root={root}", "data.shards='train-{000..002}.tar'", "data.labels={class: cls}"]
    assert main(["check", "image/tiny", *words, f"run_dir={root}/run"]) == 0
    said = capsys.readouterr().out
    assert "29 examples to train on, 1 held out" in said
    assert "label class: 2 classes: 0 1" in said
    assert json.dumps(said).count("rejected: none") == 1


def test_names_end_at_their_first_dot_and_suffixes_are_of_any_case(tmp_path):
    """webdataset's own reading gives the members; those of one name are examples where their suffixes part them."""
    files = {f"v1.{number}.PNG": png(9 * number) for number in range(4)}
    files |= {f"v1.{number}.Cls": b"%d" % (number % 2) for number in range(4)}
    files |= {"a.b/v2.png": png(90), "a.b/v2.CLS": b"1"}
    append(tmp_path / "dots.tar", files)
    dataset = open_shards(tmp_path, shards="dots.tar", labels={"class": "cls"})
    held_out = open_shards(tmp_path, shards="dots.tar", labels={"class": "cls"}, split="held_out")
    both = [data[place] for data in (dataset, held_out) for place in range(len(data))]
    assert dataset.rejects == {}
    assert sorted(map(level, both)) == [0, 9, 18, 27, 90]
    names = dataset.label_names["class"]
    assert all(names[each.labels["class"]] == str(level(each) // 9 % 2) for each in both if level(each) < 90)


def test_members_with_longer_suffixes_share_what_belongs_to_the_whole_name(tmp_path):
    views = {f"{key}.{view}.png": png(level) for key, level in (("a", 10), ("b", 20)) for view in ("left", "right")}
    append(tmp_path / "views.tar", views | {"a.cls": b"0", "b.cls": b"1", "b.right.cls": b"2"})
    dataset = open_shards(tmp_path, shards="views.tar", labels={"class": "cls"})
    held_out = open_shards(tmp_path, shards="views.tar", labels={"class": "cls"}, split="held_out")
    both = [data[place] for data in (dataset, held_out) for place in range(len(data))]
    assert sorted((level(each), each.labels["class"]) for each in both) == [(10, 0), (10, 0), (20, 1), (20, 2)]


def test_what_stands_beside_a_picture_elsewhere_is_no_picture_where_one_is_missing(tmp_path):
    append(
        tmp_path / "a.tar",
        {f"{n}{end}": png(n) for n in range(1, 4) for end in (".png", ".mask.png") if n < 3 or end[1] == "m"},
    )
    dataset = open_shards(tmp_path, shards="a.tar")
    assert dataset.rejects == {"no file of the modality's": 1}
    assert level(dataset[0]) in (1, 2)


def test_an_index_of_an_older_form_is_not_read(root, tmp_path, monkeypatch):
    open_shards(root, index=tmp_path / "index")
    monkeypatch.setattr(module, "INDEX", module.INDEX + 1)
    open_shards(root, index=tmp_path / "index")
    assert len(list((tmp_path / "index").iterdir())) == 6


def test_labels_that_are_not_utf_8_stay_apart(tmp_path):
    append(
        tmp_path / "a.tar",
        {
            f"{n}.{end}": png(n) if end == "png" else b"caf" + bytes([232 + n % 2])
            for n in range(4)
            for end in ("png", "cls")
        },
    )
    dataset = open_shards(tmp_path, shards="a.tar", labels={"class": "cls"})
    assert dataset.label_names == {"class": (r"caf\xe8", r"caf\xe9")}

"""Processes of torchrun share samples, chunks and shards; together they leave what one process leaves."""

from __future__ import annotations

import json

import pytest
import torch

from scm_media import load, weights
from scm_media.cli import main
from scm_media.evaluation import FeatureNetwork, rows
from scm_media.processes import Share, own_share
from scm_media.training import encoding
from tests.evaluation.test_features import Flat
from tests.pipeline.tiny import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(write_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def be(monkeypatch):
    """Returns a function that makes this process one of several."""

    def become(rank: int, world: int) -> None:
        run = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "TORCHELASTIC_RUN_ID": "none"}
        for name, value in run.items():
            monkeypatch.setenv(name, str(value))

    return become


def test_parts_follow_one_another_and_leave_nothing_out():
    for num in (0, 1, 7, 64):
        parts = [Share(rank, 5).part(num) for rank in range(5)]
        assert [number for part in parts for number in part] == list(range(num))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert sorted(n for rank in range(5) for n in range(num) if Share(rank, 5).takes(n)) == list(range(num))


def test_the_share_is_that_of_the_environment(be, monkeypatch):
    assert own_share() == Share()
    be(2, 4)
    assert own_share() == Share(2, 4, 2)
    assert own_share().device("cuda") == "cuda:2"
    assert (own_share().device("cpu"), Share().device("cuda")) == ("cpu", "cuda")
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(ValueError, match=r"RANK='4', WORLD_SIZE='4'.*RANK below WORLD_SIZE"):
        own_share()
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert own_share() == Share(), "variables of other programs say nothing"


def test_processes_generate_the_samples_of_one(model, be, tmp_path, capsys):
    words = ["generate", model, "-n", "5", "--seed", "3", "--json"]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    one = json.loads(capsys.readouterr().out)["samples"]
    together = []
    for rank in range(3):
        be(rank, 3)
        assert main([*words, "--out", str(tmp_path / "three")]) == 0
        together += json.loads(capsys.readouterr().out)["samples"]
    assert [each["index"] for each in together] == [each["index"] for each in one] == list(range(5))
    for each in one:
        name = each["path"].rpartition("/")[2]
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()
    be(5, 8)  # a process without samples
    with pytest.raises(SystemExit) as ended:
        main([*words, "--out", str(tmp_path / "none")])
    assert ended.value.code == 0 and not (tmp_path / "none").exists()


def test_processes_encode_the_shards_of_one(be, tmp_path, monkeypatch):
    words = ["image/tiny", "logger=none", "feature_extractor=null", "data.num=40", "autoencoder.num_samples=32"]
    words += ["latents.shard_size=8", "latents.batch_size=8"]
    found = {}
    for world in (1, 2):
        run = f"run_dir={tmp_path / str(world)}"
        assert main(["train", *words, run, "stage=autoencoder"]) == 0
        monkeypatch.setattr(encoding, "wait_until", lambda done: None)  # the other one comes afterwards
        counts = []
        for rank in range(world):
            be(rank, world)
            assert main(["encode", *words, run]) == 0
            counts.append(len(list((tmp_path / str(world)).rglob("latents/train/*.safetensors"))))
        be(0, 1)
        assert counts[-1] == 5 and (world == 1 or counts[0] == 3)
        files = sorted((tmp_path / str(world) / "latents").rglob("*.safetensors"))
        found[world] = [weights.read(file).state["latents"] for file in files]
    assert len(found[1]) == len(found[2]) > 5
    be(1, 2)  # a process that is not the first refuses latents of another autoencoder too
    manifest = tmp_path / "2" / "latents" / "train" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"autoencoder": "', '"autoencoder": "0'))
    assert main(["encode", *words, f"run_dir={tmp_path / '2'}"]) == 1
    assert all(torch.equal(*pair) for pair in zip(found[1], found[2], strict=True))


class Measured:
    """Features that tell which samples they are of, and which process measured them."""

    def __init__(self) -> None:
        self.chunks: list[tuple[int, int]] = []

    def __call__(self, pipeline, row, indices, batch_size, seed, instruments):
        self.chunks.append((own_share().rank, indices.start))
        return rows.Measured(torch.arange(indices.start, indices.stop, dtype=torch.float32)[:, None], None, 1)


def test_processes_measure_the_chunks_of_one(model, be, tmp_path, monkeypatch):
    measured = Measured()
    monkeypatch.setattr(rows, "_measure_chunk", measured)
    monkeypatch.setattr(rows, "_fingerprint", lambda *_: "same")
    pipeline = load(model)
    row, instruments = rows.Row.parse("1", pipeline, None), rows.Instruments(FeatureNetwork("flat", Flat()))
    for rank in (1, 2, 0):  # the first one waits for none here
        be(rank, 3)
        found = rows.measure(pipeline, instruments, row, 1100, 64, 0, rows.Work(tmp_path, own_share()))
    assert found.features.flatten().tolist() == list(range(1100))
    assert sorted(measured.chunks) == [(0, 0), (0, 750), (1, 250), (1, 1000), (2, 500)]
    with pytest.raises(ValueError, match="need a folder for its chunks"):
        rows.Work(None, own_share())
    assert rows.measure(pipeline, instruments, row, 250, 64, 0, rows.Work(tmp_path / "other", Share(1, 2))) is None


@pytest.mark.parametrize("words", [["--search-times"], ["--search-ema", "student"], ["--memorization", "5"]])
def test_what_one_process_does_is_refused_in_several(model, be, words, capsys):
    be(0, 2)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", model, *words])
    assert ended.value.code == 2
    assert f"{words[0]} is the work of one process: start it without torchrun" in capsys.readouterr().err

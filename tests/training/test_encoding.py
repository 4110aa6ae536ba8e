"""The cache of latents in training: the same weights with it as without, resumed after a kill, refused when foreign."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from scm_media import recipe, weights
from scm_media.latents import Manifest
from scm_media.training import encoding
from tests.training.small import SMALL, same, state, train

PLAIN = ("modality.flip=false", "latents.dtype=float32", "latents.shard_size=16", "trainer.validate_every=3")


def encode(run_dir, *overrides):
    return encoding.encode(recipe.compose("image/tiny", [*SMALL, *PLAIN, f"run_dir={run_dir}", *overrides]))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return train(tmp_path_factory.mktemp("fitted"), *PLAIN, "stage=autoencoder")


@pytest.fixture
def run_dir(fitted, tmp_path):
    """A run whose autoencoder is trained."""
    return shutil.copytree(fitted, tmp_path / "run")


def test_training_with_the_cache_is_training_without_to_the_bit(run_dir, capsys):
    without = train(shutil.copytree(run_dir, run_dir.with_name("without")), *PLAIN)
    done = encode(run_dir)
    assert (done["examples"], done["variants"], done["folder"]) == (65, 1, run_dir / "latents")
    assert encode(run_dir)["examples"] == 0
    capsys.readouterr()
    train(run_dir, *PLAIN)
    said = capsys.readouterr().err
    for stage in ("teacher", "student"):
        assert f"{stage}: trains on the latents in {run_dir}/latents/train" in said
    for stage in ("teacher", "student"):
        assert same(state(without, stage), state(run_dir, stage)), stage
        held_out = [
            (folder / stage / "metrics.jsonl").read_text().count("held_out/loss") for folder in (without, run_dir)
        ]
        assert held_out[0] == held_out[1] > 0


def test_train_encodes_by_itself_once_the_autoencoder_is_there(run_dir, tmp_path, capsys):
    by_hand = shutil.copytree(run_dir, run_dir.with_name("by_hand"))
    encode(by_hand)
    train(by_hand, *PLAIN)
    capsys.readouterr()
    alone = train(tmp_path / "alone", *PLAIN, "latents.automatic=true")
    said = capsys.readouterr().err
    assert "latents: 65 examples encoded" in said and f"teacher: trains on the latents in {alone}/latents/train" in said
    for stage in ("teacher", "student"):
        assert same(state(by_hand, stage), state(alone, stage)), stage
    (alone / "latents" / "train" / "00001.safetensors").unlink()  # as of a run that was killed while it encoded
    train(alone, *PLAIN, "latents.automatic=true", "teacher.max_steps=7")
    assert "latents: 16 examples encoded" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"latents\.variants=2, but the modality does not augment"):
        train(tmp_path / "early", *PLAIN, "latents.automatic=true", "latents.variants=2")
    assert not (tmp_path / "early").exists(), "known before anything is trained"


def test_variants_stand_for_the_augmentation(run_dir):
    with pytest.raises(ValueError, match=r"augments at random .*set latents\.variants=K"):
        encode(run_dir, "modality.flip=true")
    with pytest.raises(ValueError, match=r"latents\.variants=2, but the modality does not augment"):
        encode(run_dir, "latents.variants=2")
    assert not (run_dir / "latents").exists()
    encode(run_dir, "modality.flip=true", "latents.variants=3")
    train(run_dir, *PLAIN, "modality.flip=true", "latents.variants=3", "stage=teacher")
    with pytest.raises(ValueError, match=r"modality\.flip: True → False"):
        train(run_dir, *PLAIN, "stage=teacher")


def test_a_cache_of_another_autoencoder_is_refused_with_both_digests(run_dir, tmp_path):
    encode(run_dir)
    other = train(tmp_path / "other", *PLAIN, "data.seed=1", "stage=autoencoder")
    shutil.copy(other / "autoencoder" / "weights.safetensors", run_dir / "autoencoder" / "weights.safetensors")
    before = Manifest.load(run_dir / "latents" / "train").autoencoder
    with pytest.raises(ValueError, match=f"autoencoder {before}, the recipe's is [0-9a-f]{{16}}: delete {run_dir}/lat"):
        train(run_dir, *PLAIN, "stage=teacher")
    with pytest.raises(ValueError, match=f"autoencoder {before}"):
        encode(run_dir)
    assert not (run_dir / "teacher").exists()
    shutil.rmtree(run_dir / "latents")
    train(run_dir, *PLAIN, "stage=teacher")


@pytest.mark.parametrize(("override", "said"), [("data.seed=5", "dataset"), ("modality.background=1.0", "background")])
def test_a_cache_of_other_data_is_refused(run_dir, override, said):
    encode(run_dir)
    with pytest.raises(ValueError, match=rf"{said} .*, the recipe's is"):
        train(run_dir, *PLAIN, override, "stage=teacher")


def test_half_a_cache_and_none_of_the_autoencoder_are_refused(run_dir, tmp_path):
    encode(run_dir)
    (run_dir / "latents" / "train" / "00001.safetensors").unlink()
    with pytest.raises(ValueError, match="1 of 4 shards are missing"):
        train(run_dir, *PLAIN, "stage=teacher")
    assert encode(run_dir)["examples"] == 16
    shutil.rmtree(run_dir / "latents" / "held_out")
    (run_dir / "latents" / "train" / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"has no manifest\.json"):
        train(run_dir, *PLAIN, "stage=teacher")
    with pytest.raises(ValueError, match="train stage=autoencoder first"):
        encode(tmp_path / "empty")


SLOW_ENCODE = """
import sys, time
from modalities.image import PixelAutoencoder
plain = PixelAutoencoder.encode
PixelAutoencoder.encode = lambda *arguments: time.sleep(0.02) or plain(*arguments)
from scm_media.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_killed_and_resumed_is_the_undisturbed_cache(run_dir):
    words = [*SMALL, *PLAIN, "data.num=600", "latents.batch_size=4"]
    undisturbed = shutil.copytree(run_dir, run_dir.with_name("undisturbed"))
    encode(undisturbed, "data.num=600", "latents.batch_size=4")
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_ENCODE, "encode", "image/tiny", *words, f"run_dir={run_dir}"]
    )
    folder = run_dir / "latents" / "train"
    try:
        deadline = time.monotonic() + 120
        while not (folder / "00002.safetensors").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline, "no shard after two minutes"
            time.sleep(0.002)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    there = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert 3 <= len(there) < 37
    done = encode(run_dir, "data.num=600", "latents.batch_size=4")
    assert done["examples"] == 612 - 16 * len(there)
    for split in ("train", "held_out"):
        one, other = (Manifest.load(run / "latents" / split) for run in (run_dir, undisturbed))
        assert one == other
        for number in range(one.num_shards):
            file = f"latents/{split}/{number:05d}.safetensors"
            assert same(weights.read(run_dir / file).state, weights.read(undisturbed / file).state), file
    assert {name: (folder / name).stat().st_mtime_ns for name in there} == there

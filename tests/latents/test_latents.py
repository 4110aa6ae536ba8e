"""Latents on disk: what was written comes back, from mapped files, and only what belongs together is used."""

from __future__ import annotations

import pickle

import pytest
import torch

from modalities.image import ImageModality
from scm_media.data import ShapesDataset, batches, read_ranges
from scm_media.latents import LatentDataset, Manifest
from scm_media.latents.cache import write_missing, write_shard


def manifest(**changes):
    told = {"autoencoder": "aa", "dataset": "dd", "modality": {"size": 8, "flip": False}, "num": 50, "variants": 1}
    return Manifest(**{**told, "shape": [1, 4, 4], "dtype": "float32", "shard_size": 20, **changes})


def shapes(**options):
    return ShapesDataset(modality=ImageModality(size=8, **options), num=50)


def halved(sample):
    return sample[..., ::2, ::2] / 2


def write(folder, data, **changes):
    made = manifest(**changes)
    made.save(folder)
    num = write_missing(
        folder, made, lambda ranges: read_ranges(data, ranges, made.variants, seed=3), halved, None, batch_size=7
    )
    assert num == len(data)
    return LatentDataset(folder, data)


def test_batches_are_the_encoded_batches_in_the_same_order(tmp_path):
    data = shapes()
    cached = write(tmp_path, data)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(f"0000{number}.safetensors" for number in range(3)),
        "manifest.json",
    ]
    assert (len(cached), cached.shape, cached.label_names) == (50, (1, 4, 4), data.label_names)
    pairs = zip(batches(cached, 8, 0, 13, seed=5), batches(data, 8, 0, 13, seed=5), strict=True)
    for latents, samples in pairs:
        assert latents.encoded
        assert not samples.encoded
        assert torch.equal(latents.sample, halved(samples.sample))
        assert torch.equal(latents.labels["class"], samples.labels["class"])
    assert cached[49].labels == data[49].labels
    with_workers = list(batches(cached, 8, 0, 4, seed=5, num_workers=1))
    for one, other in zip(with_workers, batches(cached, 8, 0, 4, seed=5), strict=True):
        assert torch.equal(one.sample, other.sample)


def test_half_precision_keeps_three_digits_and_takes_half_the_place(tmp_path):
    data = shapes()
    full, half = write(tmp_path / "full", data), write(tmp_path / "half", data, dtype="float16")
    one, other = full.batch(range(50)).sample, half.batch(range(50)).sample
    assert other.dtype == torch.float32
    assert 0 < (one - other).abs().max() < 1e-3
    sizes = [sum(path.stat().st_size for path in (tmp_path / name).glob("*.safetensors")) for name in ("full", "half")]
    assert 1.5 < sizes[0] / sizes[1] < 2.1


def test_variants_are_augmentations_chosen_by_the_generator_alone(tmp_path):
    data, plain = shapes(flip=True), shapes()
    cached = write(tmp_path, data, variants=4)
    straight = halved(plain[1].sample)
    turned = halved(plain[1].sample.flip(-1))
    assert not torch.equal(straight, turned)
    every = torch.stack([torch.stack([cached._row("latents", index, v) for v in range(4)]) for index in range(50)])
    assert all(torch.equal(latent, turned) or torch.equal(latent, straight) for latent in every[1])
    assert not torch.equal(every[:, 0], every[:, 1])
    chosen = [cached.batch([1], [torch.Generator().manual_seed(seed)]).sample[0] for seed in range(60)]
    numbers = {next(v for v in range(4) if torch.equal(latent, every[1, v])) for latent in chosen}
    assert len(numbers) == len({tuple(latent.flatten().tolist()) for latent in every[1]})
    first, second = (list(batches(cached, 8, 2, 5, seed=1)) for _ in range(2))
    assert all(torch.equal(a.sample, b.sample) for a, b in zip(first, second, strict=True))


def test_only_missing_shards_are_encoded_and_the_bits_are_the_same(tmp_path):
    data = shapes()
    write(tmp_path, data)
    whole = LatentDataset(tmp_path, data).batch(range(50))
    (tmp_path / "00001.safetensors").unlink()
    (tmp_path / ".00001.safetensors.123.part").write_bytes(b"half")
    assert manifest().find_missing(tmp_path) == [1]
    with pytest.raises(ValueError, match="1 of 3 shards are missing; the same scm-media encode"):
        LatentDataset(tmp_path, data)
    asked = []

    def read(ranges):
        asked.extend(ranges)
        return read_ranges(data, ranges, 1, seed=3)

    assert write_missing(tmp_path, manifest(), read, halved, None, batch_size=7) == 20
    assert asked == [range(20, 27), range(27, 34), range(34, 40)]
    again = LatentDataset(tmp_path, data).batch(range(50))
    assert torch.equal(again.sample, whole.sample)
    assert torch.equal(again.labels["class"], whole.labels["class"])
    assert not list(tmp_path.glob(".*"))


def test_files_are_mapped_and_not_copied_to_workers(tmp_path):
    data = shapes()
    cached = write(tmp_path, data)
    with open("/proc/self/maps") as maps:
        assert sum(str(tmp_path) in line for line in maps) >= 3
    again = pickle.loads(pickle.dumps(cached))
    assert again._opened == {}
    assert torch.equal(again[40].sample, cached[40].sample)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"autoencoder": "bb"}, "autoencoder aa, the recipe's is bb"),
        ({"dataset": "ee", "num": 9}, "num 50, the recipe's is 9; with dataset dd, the recipe's is ee"),
        ({"modality": {"size": 8, "flip": True}}, "modality.flip False, the recipe's is True"),
        ({"dtype": "float16"}, "dtype float32, the recipe's is float16"),
    ],
)
def test_what_differs_is_named_with_both_values_and_the_remedy(tmp_path, changes, said):
    manifest().save(tmp_path / "train")
    manifest().check(tmp_path / "train")
    with pytest.raises(ValueError, match=f"{said}: delete {tmp_path} and run scm-media encode again"):
        manifest(**changes).check(tmp_path / "train")


def test_a_setting_that_is_newer_than_the_latents_may_be_off(tmp_path):
    manifest(modality={"_target_": "m"}).save(tmp_path)
    manifest(modality={"_target_": "m", "gain": 0.0}).check(tmp_path)
    with pytest.raises(ValueError, match=r"made with modality\.gain None, the recipe's is 6\.0"):
        manifest(modality={"_target_": "m", "gain": 6.0}).check(tmp_path)


def test_damage_is_named(tmp_path):
    data = shapes()
    write(tmp_path, data)
    state = {"latents": torch.zeros(10, 1, 1, 4, 2), "label.class": torch.zeros(10, dtype=torch.int64)}
    write_shard(tmp_path, 2, state, "float32")
    with pytest.raises(
        ValueError, match=r"00002\.safetensors holds latents \(10, 1, 1, 4, 2\), expected \(10, 1, 1, 4, 4\)"
    ):
        LatentDataset(tmp_path, data)
    (tmp_path / "00001.safetensors").write_bytes((tmp_path / "00001.safetensors").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"00001\.safetensors is no whole shard of latents: delete it"):
        LatentDataset(tmp_path, data)
    write_shard(tmp_path, 1, {"latents": torch.zeros(20, 1, 1, 4, 4)}, "float32")
    with pytest.raises(ValueError, match=r"00001\.safetensors holds no label\.class: delete it"):
        LatentDataset(tmp_path, data)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is no manifest of latents"):
        LatentDataset(tmp_path, data)


@pytest.mark.parametrize(("value", "dtype"), [(1e5, "float16"), (float("nan"), "float32")])
def test_latents_that_do_not_fit_are_refused(tmp_path, value, dtype):
    with pytest.raises(ValueError, match=f"shard 3 are not finite as {dtype}.*latents.dtype=float32"):
        write_shard(tmp_path, 3, {"latents": torch.full((2, 1, 1), value)}, dtype)
    assert list(tmp_path.iterdir()) == []

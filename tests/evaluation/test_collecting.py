"""Statistics of real data go on where they were interrupted, to the same numbers."""

from __future__ import annotations

import pytest
import torch
import yaml

import scm_media
from scm_media import weights
from scm_media.evaluation import FeatureNetwork, collecting, recipe_data
from scm_media.evaluation.collecting import Collection, UnfinishedFile
from scm_media.evaluation.reference import as_reference
from tests.pipeline.tiny import DESCRIPTION, write_tiny_model

NAME = "pixels"
DATA = {"_target_": "scm_media.data.shapes.ShapesDataset", "num": 150, "held_out": 0.2, "seed": 0, "root": None}


def assert_same(one, other):
    for name in ("mean", "covariance", "neighbours"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for name in ("num_train", "held_out_distances", "accuracy", "precision", "recall"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize("stop", range(7))
def test_a_collection_goes_on_from_its_state_as_if_it_had_not_stopped(stop):
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(30, 4, generator=generator) for _ in range(6)]

    def add(collection, number):
        if number < 4:
            collection.add_train(features[number])
        else:
            collection.add_held_out(features[number], (features[number][:, 0] > 0).double())

    whole, begun = Collection(num_neighbours=50), Collection(num_neighbours=50)
    for number in range(6):
        add(whole, number)
    for number in range(stop):
        add(begun, number)
    resumed = Collection(num_neighbours=50, seed=9)
    resumed.load_state_dict(begun.state_dict())
    assert resumed.num_batches == {"train": min(stop, 4), "held_out": max(0, stop - 4)}
    for number in range(stop, 6):
        add(resumed, number)
    assert_same(as_reference(resumed), as_reference(whole))


class Pixels:
    """Features that are the sample itself; the call of a number fails once, as where a run is interrupted."""

    def __init__(self):
        self.calls, self.fails = 0, []

    def features(self, sample):
        self.calls += 1
        if self.calls in self.fails:
            raise KeyboardInterrupt
        return sample.flatten(1)

    def logits(self, sample):
        return {}


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Returns a function that takes the statistics of a run's data into a folder, by a network of pixels."""
    run = write_tiny_model(tmp_path / "run", run_folder=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump({"modality": DESCRIPTION.modality, "data": DATA}))
    pipeline, network = scm_media.load(run, "cpu"), Pixels()
    monkeypatch.setattr(recipe_data, "BATCH_SIZE", 20)
    monkeypatch.setattr(recipe_data, "named_network", lambda *given: FeatureNetwork(NAME, network))
    monkeypatch.setattr(collecting, "SAVE_SECONDS", 0.0)

    def run_it(folder, *fails, progress=None):
        network.calls, network.fails = 0, fails
        found = recipe_data.load_reference(pipeline, NAME, tmp_path / folder, progress, num=100)[1]
        return found, network.calls

    return run_it


def test_an_interrupted_reference_reads_no_batch_again_and_is_the_same(measure, tmp_path):
    whole, calls = measure("whole")  # one call finds the number of features, 5 + 2 take them
    told = []
    with pytest.raises(KeyboardInterrupt):
        measure("parts", 4)
    (kept,) = (tmp_path / "parts").iterdir()
    assert kept.suffix == ".unfinished"
    with pytest.raises(KeyboardInterrupt):
        measure("parts", calls - 2, progress=lambda *each: told.append(each[1:]))
    found, last = measure("parts")
    assert_same(found, whole)
    assert told == [(60, 100), (80, 100), (100, 100)] and last < calls - 3
    (kept,) = (tmp_path / "parts").iterdir()
    assert kept.suffix == ".safetensors"


@pytest.mark.parametrize("spoil", ["cut", "a part missing", "other data"])
def test_an_unfinished_file_that_does_not_fit_is_as_good_as_none(measure, tmp_path, spoil):
    whole, calls = measure("whole")
    with pytest.raises(KeyboardInterrupt):
        measure("parts", 4)
    (kept,) = (tmp_path / "parts").iterdir()
    if spoil == "cut":
        kept.write_bytes(kept.read_bytes()[:-9])
    elif spoil == "a part missing":
        found = weights.read(kept)
        state = {name: tensor for name, tensor in found.state.items() if name != "held_out"}
        weights.save(kept, state, found.config)
    else:
        identity = weights.read(kept).config
        collection = UnfinishedFile(kept, identity).resume()
        assert collection.moments is not None and identity["train fingerprint"] != identity["held_out fingerprint"]
        kept.unlink()
        UnfinishedFile(kept, identity | {"train fingerprint": "other files of the same number"}).save(collection)
        assert kept.is_file()
    found, again = measure("parts")
    assert again == calls
    assert_same(found, whole)


@pytest.fixture
def take_own(tmp_path, monkeypatch):
    """Returns a function that takes the own statistics of a run, and fails after some batches."""
    run = write_tiny_model(tmp_path / "run", run_folder=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump({"modality": DESCRIPTION.modality, "data": DATA}))
    monkeypatch.setattr(recipe_data, "BATCH_SIZE", 20)
    monkeypatch.setattr(collecting, "SAVE_SECONDS", 0.0)

    def run_it(batches=99):
        told = []

        def progress(*each):
            told.append(each[1:])
            if len(told) > batches:
                raise KeyboardInterrupt

        return recipe_data.own_reference(scm_media.load(run, "cpu"), progress), told

    return run_it


@pytest.mark.parametrize("retrained", [False, True])
def test_a_runs_own_statistics_go_on_too_in_the_features_of_the_same_network(take_own, tmp_path, retrained):
    folder = tmp_path / "run" / "feature_extractor"
    with pytest.raises(KeyboardInterrupt):
        take_own(batches=3)
    assert (folder / "reference.unfinished").is_file() and not (folder / "reference.safetensors").exists()
    if retrained:
        found = weights.read(folder / "weights.safetensors")
        weights.save(
            folder / "weights.safetensors", {name: 1.1 * each for name, each in found.state.items()}, found.config
        )
    resumed, told = take_own()
    assert told[0] == ((20, 150) if retrained else (100, 150)) and told[-1] == (150, 150)
    assert sorted(file.name for file in folder.iterdir()) == ["reference.safetensors", "weights.safetensors"]
    (folder / "reference.safetensors").unlink()
    assert_same(resumed, take_own()[0])

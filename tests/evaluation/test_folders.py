"""Two folders of pictures compared."""

from __future__ import annotations

import json
import os

import pytest
import torch

from modalities.image.features import ImageClassifier
from modalities.image.modality import ImageModality
from scm_media.cli import main
from scm_media.data import Batch
from scm_media.evaluation import evaluate_folder, evaluate_folders, report
from scm_media.evaluation.features import FeatureNetwork
from scm_media.evaluation.recipe_data import load_reference
from scm_media.evaluation.reference import make_reference
from scm_media.pipeline import load

MODALITY = ImageModality(size=16, channels=1)


@pytest.fixture(scope="module")
def feature_extractor():
    torch.manual_seed(0)
    return FeatureNetwork("four numbers", ImageClassifier(1, {"class": 3}, width=4, num_features=4).eval())


def _write(folder, num, shift=0.0, seed=0):
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    for k in range(num):
        sample = (torch.randn(1, 16, 16, generator=generator) * 0.3 + shift).clamp(-1, 1)
        MODALITY.write(folder / f"{k:03d}.png", sample, {})
    return folder


def _read(folder):
    return torch.stack([MODALITY.read(each) for each in sorted(folder.iterdir())])


def test_distances_grow_with_the_difference(tmp_path, feature_extractor):
    reference = _write(tmp_path / "reference", 40)
    near = evaluate_folders(_write(tmp_path / "near", 30, seed=1), reference, MODALITY, feature_extractor, batch_size=7)
    far = evaluate_folders(_write(tmp_path / "far", 30, 0.8, seed=1), reference, MODALITY, feature_extractor)
    same = evaluate_folders(reference, reference, MODALITY, feature_extractor)
    assert same["frechet"] == pytest.approx(0, abs=1e-6)
    assert (same["precision"], same["recall"]) == (1, 1)
    assert near["frechet"] * 3 < far["frechet"]
    assert near["kernel"] < far["kernel"]
    assert (near["num_samples"], near["num_reference"]) == (30, 40)


def test_a_folder_is_compared_with_the_training_data_of_a_model(tmp_path, feature_extractor):
    """Its distance is that of two folders, one of which has the training samples."""
    train, held_out = _write(tmp_path / "train", 40), _write(tmp_path / "held_out", 30, seed=2)
    batches = ([Batch(_read(folder), {"class": torch.zeros(len(_read(folder)))})] for folder in (train, held_out))
    reference = make_reference(feature_extractor, *batches)
    near, far = _write(tmp_path / "near", 30, seed=1), _write(tmp_path / "far", 30, 0.8, seed=1)
    (far / "notes.png").write_bytes(b"no picture")
    for folder in (near, far):
        alone = evaluate_folder(folder, MODALITY, feature_extractor, reference, batch_size=7)
        both = evaluate_folders(folder, train, MODALITY, feature_extractor)
        assert alone["frechet"] == pytest.approx(both["frechet"], rel=1e-4)
        assert (alone["num_samples"], alone["num_reference"]) == (30, 40)
    floor = evaluate_folders(held_out, train, MODALITY, feature_extractor)["frechet"]
    assert alone["frechet_held_out"] == pytest.approx(floor, rel=1e-4)
    text = report(alone)
    assert text.startswith("30 samples against 40 of the training data, 4-dimensional features: four numbers.")
    assert f"- frechet of 30 held-out samples: {floor:.4g}" in text and "left out of samples: 1" in text


@pytest.mark.parametrize(
    ("num_samples", "num_reference", "remarks"),
    [
        (30, 40, []),
        (8, 40, ["only 8 samples for 8 feature dimensions"]),
        (30, 8, ["only 8 reference samples for 8 feature dimensions"]),
        (5, 6, ["only 5 samples for 8 feature dimensions", "only 6 reference samples for 8 feature dimensions"]),
        (9, 9, []),
    ],
)
def test_too_few_files_on_either_side_are_remarked(tmp_path, num_samples, num_reference, remarks):
    torch.manual_seed(0)
    feature_extractor = FeatureNetwork(
        "eight numbers", ImageClassifier(1, {"class": 3}, width=4, num_features=8).eval()
    )
    folders = _write(tmp_path / "samples", num_samples), _write(tmp_path / "reference", num_reference, seed=1)
    result = evaluate_folders(*folders, MODALITY, feature_extractor)
    assert result["too_few"] is bool(remarks)
    assert (result["num_samples"], result["num_reference"]) == (num_samples, num_reference)
    told = [line for line in report(result).splitlines() if "says little" in line]
    assert [line.partition(":")[0] for line in told] == [f"- {remark}" for remark in remarks]


def test_unreadable_files_are_counted_by_reason(tmp_path, feature_extractor):
    reference = _write(tmp_path / "reference", 6)
    (reference / "bad.png").write_bytes(b"no picture")
    result = evaluate_folders(reference, reference, MODALITY, feature_extractor)
    assert sum(result["rejects"]["reference"].values()) == 1
    assert result["num_reference"] == 6
    assert "left out of reference: 1 ×" in report(result)


def test_precision_is_of_the_samples_and_recall_of_the_reference(tmp_path, feature_extractor):
    reference = _write(tmp_path / "reference", 30, seed=1)
    copies = _write(tmp_path / "copies", 1, seed=1)
    for k in range(1, 30):
        (copies / f"{k:03d}.png").write_bytes((copies / "000.png").read_bytes())
    result = evaluate_folders(copies, reference, MODALITY, feature_extractor)
    assert result["precision"] == 1
    assert result["recall"] < 0.2


def test_folders_that_cannot_be_listed_are_counted(tmp_path, feature_extractor, monkeypatch):
    reference = _write(tmp_path / "reference", 6)
    closed = reference / "closed"
    closed.mkdir()
    real = os.scandir

    def scandir(path="."):
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(closed))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    result = evaluate_folders(reference, reference, MODALITY, feature_extractor)
    assert sum(result["rejects"]["samples"].values()) == 1
    assert "Permission denied" in next(iter(result["rejects"]["samples"]))


def test_folders_with_nothing_usable_are_refused(tmp_path, feature_extractor):
    reference = _write(tmp_path / "reference", 6)
    few = _write(tmp_path / "few", 2)
    with pytest.raises(ValueError, match="few has 2 usable files of 2"):
        evaluate_folders(few, reference, MODALITY, feature_extractor)
    with pytest.raises(ValueError, match="is no folder"):
        evaluate_folders(tmp_path / "none", reference, MODALITY, feature_extractor)


def test_the_command_compares_a_folder_with_the_data_of_a_model(evaluated_model, tmp_path, capsys):
    folder = _write(tmp_path / "samples", 30)
    words = ["evaluate", str(evaluated_model), "--samples", str(folder), "--device", "cpu", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_samples"], found["num_reference"], found["num_held_out"]) == (30, 600, 200)
    pipeline = load(evaluated_model, "cpu")
    network, reference = load_reference(pipeline)
    assert found["frechet"] == pytest.approx(evaluate_folder(folder, MODALITY, network, reference)["frechet"])
    assert found["frechet_held_out"] == pytest.approx(reference.held_out_distance(200))

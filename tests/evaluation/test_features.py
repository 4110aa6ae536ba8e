"""Named feature networks: the projection against closed forms, an evaluation by the installed one, what is refused."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

import scm_media
from modalities.image.modality import ImageModality
from scm_media.cli import main
from scm_media.evaluation import FeatureNetwork, Moments, frechet_distance, named_network, project_features
from scm_media.evaluation.features import PROJECTED_DIMENSION
from scm_media.evaluation.recipe_data import load_reference
from tests.evaluation.quick import evaluate
from tests.pipeline.tiny import DESCRIPTION, write_tiny_model
from tests.pipeline.waves import WaveModality

NAME = "efficientnet-lite0"
DATA = {"_target_": "scm_media.data.shapes.ShapesDataset", "num": 150, "held_out": 0.2, "seed": 0, "root": None}


class Flat:
    """Features that are the sample itself."""

    def features(self, sample):
        return sample.flatten(1)

    def logits(self, sample):
        return {}


@pytest.fixture
def run(tmp_path):
    folder = write_tiny_model(tmp_path / "run", run_folder=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"modality": DESCRIPTION.modality, "data": DATA}))
    return folder


def _projected(dimension: int) -> FeatureNetwork:
    return project_features(FeatureNetwork("flat", Flat()), (dimension,))


def test_directions_are_orthonormal_and_the_same_every_time():
    one, other = _projected(700).projection, _projected(700).projection
    assert one is not None
    assert one.shape == (700, PROJECTED_DIMENSION)
    torch.testing.assert_close(one.T @ one, torch.eye(PROJECTED_DIMENSION), atol=1e-5, rtol=0)
    assert torch.equal(one, other)
    assert _projected(128).projection is None


def test_directions_do_not_depend_on_the_signs_that_a_library_chooses(monkeypatch):
    expected = _projected(300).projection
    qr = torch.linalg.qr

    def flipped(matrix):
        signs = torch.tensor([1.0, -1.0], dtype=matrix.dtype).repeat(PROJECTED_DIMENSION // 2)
        directions, triangle = qr(matrix)
        return directions * signs, triangle * signs[:, None]

    monkeypatch.setattr(torch.linalg, "qr", flipped)
    assert torch.equal(_projected(300).projection, expected)


def test_a_projected_frechet_distance_is_that_of_the_projected_gaussians():
    dimension, num = 300, 20_000
    network = _projected(dimension)
    generator = torch.Generator().manual_seed(1)
    deviations = torch.linspace(0.5, 2, dimension)
    mean = torch.linspace(-0.3, 0.3, dimension)
    a = torch.randn(num, dimension, generator=generator) * deviations
    b = torch.randn(num, dimension, generator=generator) * 2 * deviations + mean
    found = [Moments.of(network.features(features)) for features in (a, b)]
    measured = frechet_distance(found[0].mean, found[0].covariance, found[1].mean, found[1].covariance)
    # B = 4 A commute whatever the projection: |Pᵀm|² + tr(PᵀAP) (2 − 1)²
    directions = network.projection.double()
    covariance = directions.T @ deviations.double().square().diag() @ directions
    expected = float((directions.T @ mean.double()).square().sum() + covariance.trace())
    assert measured == pytest.approx(expected, rel=0.02)


def test_a_squared_distance_shrinks_by_the_share_of_dimensions():
    network = _projected(1280)
    points = torch.randn(400, 1280)
    fraction = network.features(points).square().sum(1) / points.square().sum(1)
    assert fraction.mean().item() == pytest.approx(128 / 1280, rel=0.03)


def test_an_unknown_network_names_the_nearest():
    modality = ImageModality(size=16, channels=1)
    with pytest.raises(ValueError, match=r"no feature network 'efficientnet'.*\(nearest: efficientnet-lite0\)"):
        named_network("efficientnet", modality)
    with pytest.raises(ValueError, match="it offers none"):
        named_network(NAME, WaveModality())


@pytest.mark.slow
def test_a_run_is_measured_by_a_named_network_whose_statistics_are_kept(run):
    pipeline = scm_media.load(run, "cpu")
    wanted = {"num_samples": 40, "rows": (1,), "features": NAME, "work": run / "evaluation"}
    result = evaluate(pipeline, **wanted)
    assert result["features"] == {"name": NAME, "dimension": 128, "projected_from": 1280, "num_samples": 40}
    assert result["frechet_held_out"] > 0
    assert 0 <= result["rows"][0]["accuracy"] <= 1, "told by the model's own network"
    assert (run / "evaluation" / f"reference-{NAME}.safetensors").stat().st_size < 2e6
    (run / "recipe.yaml").unlink()
    again = evaluate(scm_media.load(run, "cpu"), **wanted)
    assert again["rows"][0]["frechet"] == result["rows"][0]["frechet"]
    exported = scm_media.load(run, "cpu").save_pretrained(run.parent / "exported")
    third = evaluate(scm_media.load(exported, "cpu"), **{**wanted, "work": None})
    assert third["rows"][0]["frechet"] == pytest.approx(result["rows"][0]["frechet"], rel=1e-4)


def test_models_measured_into_one_folder_are_held_against_their_own_data(run, tmp_path):
    wanted = {"num_samples": 40, "rows": (1,), "features": NAME, "work": tmp_path / "work"}
    held_out_distances = []
    for name, kinds in (("one", 0), ("two", 1)):
        exported = scm_media.load(run, "cpu").save_pretrained(tmp_path / name)
        for kept in exported.glob("reference-*"):
            kept.unlink()
        recipe = yaml.safe_load((run / "recipe.yaml").read_text())
        recipe["data"]["seed"] = kinds
        (exported / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        held_out_distances.append(evaluate(scm_media.load(exported, "cpu"), **wanted)["frechet_held_out"])
    assert held_out_distances[0] != held_out_distances[1]


@pytest.mark.slow
def test_of_large_data_a_part_is_taken_and_kept_apart(run, tmp_path):
    pipeline, told = scm_media.load(run, "cpu"), []
    part = load_reference(pipeline, NAME, tmp_path / "work", lambda *progress: told.append(progress[1:]), 20)[1]
    assert part.num_train == 20 and told == [(20, 20)]
    assert max(part.held_out_distances) <= 20
    (kept,) = (tmp_path / "work").glob(f"reference-{NAME}-20-*")
    changed = kept.stat().st_mtime_ns
    assert torch.equal(load_reference(pipeline, NAME, tmp_path / "work", num=20)[1].mean, part.mean)
    assert kept.stat().st_mtime_ns == changed
    whole = load_reference(pipeline, NAME, tmp_path / "work")[1]
    assert whole.num_train > 20 and not torch.equal(whole.mean, part.mean)


def test_two_folders_are_compared_without_a_model(tmp_path, capsys):
    modality = ImageModality(size=24, channels=3)
    for name, shift in (("samples", 0.5), ("reference", 0.0)):
        (tmp_path / name).mkdir()
        for k in range(6):
            sample = (torch.randn(3, 24, 24) * 0.3 + shift).clamp(-1, 1)
            modality.write(tmp_path / name / f"{k}.png", sample, {})
    words = ["--samples", str(tmp_path / "samples"), "--reference", str(tmp_path / "reference")]
    assert main(["evaluate", *words, "--features", NAME, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["features"] == {"name": NAME, "dimension": 128, "projected_from": 1280, "num_samples": 6}
    assert found["shape"] == [3, 32, 32]
    assert found["frechet"] > 0
    assert main(["evaluate", *words, "--features", "inception"]) == 1
    assert "nearest: efficientnet-lite0" in capsys.readouterr().err

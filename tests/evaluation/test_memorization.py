"""Copies are found: a planted one on the sheet and in the figures, and none where there are none."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from PIL import Image

import scm_media
from scm_media.cli import main
from scm_media.evaluation import FeatureNetwork, find_memorized, memorization
from scm_media.evaluation import recipe_data as recipe_data_module
from scm_media.evaluation.memorization import compare_distances, find_nearest
from scm_media.evaluation.recipe_data import recipe_data
from scm_media.pipeline import Samples
from scm_media.pipeline.card import memorization_report
from tests.evaluation.test_features import DATA, Flat
from tests.pipeline.tiny import DESCRIPTION, write_tiny_model

PLANTED, PLACE = 37, 5
"""The training sample that the 'model' draws, and as which clip."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp("models") / "run", run_folder=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"modality": DESCRIPTION.modality, "data": DATA}))
    return folder


@pytest.fixture
def copying(run, monkeypatch):
    """A pipeline that draws noise, but for one clip, which is a training sample."""
    pipeline = scm_media.load(run, "cpu")
    train, _ = recipe_data(pipeline.folder)
    samples = torch.rand(20, 1, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
    samples[PLACE] = train.batch([PLANTED]).sample[0]

    def batches(request):
        num, first = request.num, request.first
        labels = [{"class": "circle"}] * num
        yield Samples(samples[first : first + num], labels, [0] * num, list(range(first, first + num)), 1, 0.0, 0.0)

    monkeypatch.setattr(pipeline, "batches", batches)
    monkeypatch.setattr(memorization, "own_network", lambda _: FeatureNetwork("flat", Flat()))
    return pipeline


def test_a_planted_copy_comes_first_with_its_original(copying):
    shown = []
    preview = copying.modality.preview
    copying.modality.preview = lambda samples, captions, columns: (
        shown.append((samples, captions, columns)) or preview(samples, captions, columns=columns)
    )
    figures, sheet = find_memorized(copying, num_shown=2, num_samples=20)
    first = figures["shown"][0]
    assert (first["index"], first["train"][0]) == (PLACE, PLANTED)
    assert first["distance"][0] == pytest.approx(0, abs=1e-4)
    assert figures["shown"][1]["distance"][0] > 1
    assert (figures["num_train"], figures["num_held_out"], figures["num_samples"]) == (150, 20, 20)
    samples, captions, columns = shown[0]
    assert columns == 4
    assert len(samples) == len(captions) == 8
    assert torch.equal(samples[0], samples[1])
    assert captions[0] == "sample 5 circle"
    assert isinstance(sheet, Image.Image)


def test_distances_stream_and_equal_those_of_all_at_once(run, monkeypatch):
    monkeypatch.setattr(recipe_data_module, "BATCH_SIZE", 40)
    train, _ = recipe_data(scm_media.load(run, "cpu").folder)
    queries = torch.randn(7, 256)
    distances, indices = find_nearest(FeatureNetwork("flat", Flat()), queries, train, 3)
    everything = torch.cdist(queries, train.batch(range(len(train))).sample.flatten(1))
    expected = everything.topk(3, largest=False)
    torch.testing.assert_close(distances, expected.values)
    assert torch.equal(indices, expected.indices)


def test_figures_of_a_copier_and_of_an_honest_model():
    held_out = torch.arange(1, 101, dtype=torch.float32)
    honest = compare_distances(held_out + 0.25, held_out)
    assert honest["nearer_than_held_out"] == pytest.approx(0.495)
    assert honest["fraction_below"] == pytest.approx(0.01)  # the 1 % quantile is 1.99, and 1.25 lies below it
    copier = compare_distances(torch.cat([torch.zeros(30), torch.full((70,), 200.0)]), held_out)
    assert copier["fraction_below"] == pytest.approx(0.3)
    assert copier["nearer_than_held_out"] == pytest.approx(0.3)
    assert compare_distances(held_out, held_out)["nearer_than_held_out"] == pytest.approx(0.5)
    assert compare_distances(held_out, torch.empty(0))["fraction_below"] is None


@pytest.mark.parametrize(
    ("nearer", "below", "said"),
    [
        (0.5, 0.01, "samples are no nearer to the training data than held-out data are: no copying"),
        (0.53, 0.02, "samples are no nearer"),  # 1,000 and 1,000 samples: three deviations are 0.0387 and 0.0133
        (0.54, 0.01, "**samples are nearer to the training data than held-out data are: the model copies**"),
        (0.3, 0.024, "**some samples are nearer to the training data"),
    ],
)
def test_the_report_says_whether_the_model_copies(nearer, below, said):
    figures = {"num_samples": 1000, "num_held_out": 1000, "nearer_than_held_out": nearer, "fraction_below": below}
    others = {"sampler": "consistency", "steps": 2, "num_train": 9, "median": 1.0, "median_held_out": 1.0}
    report = memorization_report({**figures, **others, "features": {"name": "flat", "dimension": 8}})
    assert said in report.splitlines()[-1]


def test_the_command_writes_sheet_and_figures(run, tmp_path, capsys):
    words = ["--memorization", "2", "-n", "10", "--out", str(tmp_path / "out"), "--json"]
    assert main(["evaluate", str(run), *words]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "out" / "memorization.json").read_text()) == printed
    assert len(printed["shown"]) == 2
    with Image.open(tmp_path / "out" / "memorization.png") as sheet:
        assert sheet.width > sheet.height


def test_without_the_training_data_it_says_so(evaluated_model):
    with pytest.raises(ValueError, match=r"holds no recipe.yaml, so its training data are not known"):
        find_memorized(scm_media.load(evaluated_model, "cpu"))

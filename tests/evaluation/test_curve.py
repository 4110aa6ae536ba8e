"""Quality against compute of a tiny model: the keys of the JSON, a second network, real data, and chunks."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import yaml
from scipy import stats

import scm_media
from modalities.image.modality import ImageModality
from scm_media import weights
from scm_media.cli import main
from scm_media.data import Batch
from scm_media.evaluation import curve, features, report, rows
from scm_media.evaluation.figures import Comparison, compare_statistics, kendall_tau, wasserstein_distance
from scm_media.evaluation.measured import Measured
from scm_media.evaluation.reference import Reference, make_reference
from scm_media.parts import part
from scm_media.prompts import PromptBank
from tests.evaluation.quick import evaluate
from tests.pipeline.tiny import DESCRIPTION, write_tiny_model

DATA = {"_target_": "scm_media.data.shapes.ShapesDataset", "num": 250, "held_out": 0.2, "seed": 0, "root": None}
FIGURES = {"frechet", "kernel", "precision", "recall", "density", "coverage", "accuracy"}
WANTED = {"num_samples": 60, "rows": (1, 2, "teacher:heun:2", "teacher:dpm_solver:3"), "curve": True}


@part("feature_extractor")
class Quarters(torch.nn.Module):
    """Features that are the means of a picture's quarters, and of their squares."""

    def features(self, sample):
        quarters = torch.nn.functional.avg_pool2d(sample, 8).flatten(1)
        return torch.cat([quarters, quarters.square()], 1)

    def logits(self, sample):
        return {}


QUARTERS = {"_target_": f"{__name__}.Quarters"}


@pytest.fixture
def quarters(monkeypatch):
    """Offers the network above in the place of the installed one, and a statistic that dark pictures lack."""

    def statistics(self, samples):
        mean = samples.mean((1, 2, 3))
        return {"brightness": mean, "light": torch.where(mean > -0.83, mean, torch.nan)}

    monkeypatch.setattr(ImageModality, "feature_networks", {"quarters": QUARTERS})
    monkeypatch.setattr(features, "build", lambda config, role: Quarters())
    monkeypatch.setattr(ImageModality, "statistics", statistics)
    monkeypatch.setattr(ImageModality, "statistic_units", {"brightness": "of white", "light": ""})


@pytest.fixture
def run(tmp_path):
    folder = write_tiny_model(tmp_path / "run", run_folder=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"modality": DESCRIPTION.modality, "data": DATA}))
    return folder


@pytest.fixture
def measured(monkeypatch):
    """Lists the chunks that are measured, not read."""
    made = []
    original = rows._measure_chunk

    def measure(*arguments):
        made.append((arguments[1].key, arguments[2].start))
        return original(*arguments)

    monkeypatch.setattr(rows, "_measure_chunk", measure)
    return made


def test_the_keys_are_those_of_the_page(run, quarters):
    result = evaluate(scm_media.load(run, "cpu"), **WANTED)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["curve"] is True
    assert [(row["sampler"], row["evaluations"]) for row in result["rows"]] == [
        ("consistency", 1),
        ("consistency", 2),
        ("heun", 3),
        ("dpm_solver", 3),
    ]
    for row in (*result["rows"], result["floor"]):
        assert row.keys() >= {*FIGURES, "intervals", "second", "statistics"}
        assert row["intervals"].keys() == FIGURES
        for name, bounds in row["intervals"].items():
            assert bounds is None or (bounds[0] < bounds[1] and bounds[0] <= row[name] <= bounds[1]), name
        assert row["intervals"]["frechet"] is not None
        low, high = row["second"]["interval"]
        assert 0 <= low < row["second"]["frechet"] < high
        assert row["statistics"].keys() == {"brightness", "light"}
    student, _, heun, dpm_solver = result["rows"]
    operations = result["operations"]
    assert operations.keys() == {"student", "teacher", "guide", "decode"}
    assert operations["guide"] is None
    assert student["operations_per_sample"] == operations["student"] + operations["decode"]
    assert heun["operations_per_sample"] == dpm_solver["operations_per_sample"] == 3 * operations["teacher"]
    assert result["second_features"] == {"name": "quarters", "dimension": 8, "too_few": False}
    assert result["statistics"]["brightness"]["unit"] == "of white"
    assert result["statistics"]["light"]["mean"] > result["statistics"]["brightness"]["mean"] + 0.03
    own, second = (
        [row[key] if key == "frechet" else row[key]["frechet"] for row in result["rows"]]
        for key in ("frechet", "second")
    )
    assert result["ranking_agreement"] == kendall_tau(own, second)


def test_progress_is_told_of_all_that_takes_time(run, quarters):
    told = []
    evaluate(scm_media.load(run, "cpu"), progress=lambda *what: told.append(what), **{**WANTED, "rows": (1,)})
    assert told == [
        ("training data in the features of quarters", 250, 250),
        ("student-consistency-1", 60, 60),
        ("held-out data", 32, 50),
        ("held-out data", 50, 50),
        ("rows compared", 1, 1),
    ]


def test_held_out_data_are_the_floor_and_pixels_have_no_ceiling(run, quarters):
    result = evaluate(scm_media.load(run, "cpu"), **WANTED)
    floor = result["floor"]
    assert floor["num"] == 50
    assert floor["frechet"] < 0.2 * min(row["frechet"] for row in result["rows"])
    assert floor["second"]["frechet"] < 0.2 * min(row["second"]["frechet"] for row in result["rows"])
    for name in ("brightness", "light"):
        assert floor["statistics"][name]["mean"] == result["statistics"][name]["mean"]
    brightness = [row["statistics"]["brightness"]["distance"] for row in result["rows"]]
    assert floor["statistics"]["brightness"]["distance"] < min(brightness)
    assert result["ceiling"] is None
    assert any("loses nothing" in remark for remark in result["remarks"])
    assert "loses nothing" in report(result)


def test_reconstructions_of_an_autoencoder_that_loses_something_are_the_ceiling(run, quarters):
    pipeline = scm_media.load(run, "cpu")
    autoencoder = pipeline.network("autoencoder")
    decode = autoencoder.decode
    autoencoder.decode = lambda latent: (0.7 * decode(latent)).clamp(-1, 1)
    result = evaluate(pipeline, **WANTED)
    floor, ceiling = result["floor"], result["ceiling"]
    assert ceiling["num"] == 50
    assert ceiling["frechet"] > 2 * floor["frechet"]
    mean, expected = ceiling["statistics"]["brightness"]["mean"], 0.7 * floor["statistics"]["brightness"]["mean"]
    assert mean == pytest.approx(expected, rel=1e-4)


def test_without_data_the_floor_is_the_known_distance_and_this_is_said(evaluated_model, quarters):
    pipeline = scm_media.load(evaluated_model, "cpu")
    result = evaluate(pipeline, **WANTED)
    assert result["floor"]["frechet"] == result["frechet_held_out"]
    assert result["floor"]["num"] == 200
    assert result["floor"]["coverage"] is result["floor"]["intervals"]["frechet"] is result["ceiling"] is None
    assert result["second_features"] is result["ranking_agreement"] is result["rows"][0]["second"] is None
    assert (
        result["statistics"]["brightness"]["mean"] is result["rows"][0]["statistics"]["brightness"]["distance"] is None
    )
    assert result["rows"][0]["statistics"]["brightness"]["mean"] is not None
    said = " ".join(result["remarks"])
    assert "no second feature network was used (quarters: " in said
    assert "held-out data were not measured" in said
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_modality_that_offers_no_network_and_no_statistics_is_said_to(run, monkeypatch):
    monkeypatch.setattr(ImageModality, "feature_networks", {})
    monkeypatch.setattr(ImageModality, "statistics", lambda self, samples: {})
    monkeypatch.setattr(ImageModality, "statistic_units", {})
    result = evaluate(scm_media.load(run, "cpu"), **WANTED)
    assert "no second feature network was used (the modality image offers none)" in result["remarks"]
    assert result["statistics"] == result["rows"][0]["statistics"] == {}


def test_the_models_own_network_is_the_second_of_a_named_one(run, quarters):
    own = evaluate(scm_media.load(run, "cpu"), **WANTED)
    named = evaluate(scm_media.load(run, "cpu"), **WANTED, features="quarters")
    assert named["second_features"]["name"] == features.OWN_NETWORK
    for one, other in zip(own["rows"], named["rows"], strict=True):
        assert other["frechet"] == pytest.approx(one["second"]["frechet"], rel=1e-6)
        assert other["second"]["frechet"] == pytest.approx(one["frechet"], rel=1e-6)


def test_too_few_samples_of_the_second_network_are_warned_about(run, quarters):
    result = evaluate(scm_media.load(run, "cpu"), **{**WANTED, "num_samples": 8, "rows": (1,)})
    assert result["too_few"] is result["second_features"]["too_few"] is True
    text = report(result)
    assert "- only 8 samples for 8 feature dimensions: the Fréchet distance" in text
    assert "- only 8 samples for 8 feature dimensions of quarters: the Fréchet distance" in text


def test_the_second_network_sees_a_part_of_large_data(run, quarters, monkeypatch, tmp_path):
    assert [curve._second_examples(num) for num in (2, 400, 1_000_000)] == [2_000, 4_000, 10_000]
    monkeypatch.setattr(curve, "_second_examples", lambda num_samples: num_samples // 2)
    wanted = {**WANTED, "rows": (1,), "work": tmp_path / "work"}
    result = evaluate(scm_media.load(run, "cpu"), **wanted)
    (kept,) = (tmp_path / "work").glob("reference-quarters-*")
    assert Reference.load(kept).num_train == 30 < result["num_reference"]


def test_an_interrupted_curve_goes_on_and_takes_no_chunks_of_an_ordinary_evaluation(
    run, quarters, measured, monkeypatch, tmp_path
):
    monkeypatch.setattr(rows, "CHUNK", 30)
    pipeline, work = scm_media.load(run, "cpu"), tmp_path / "work"
    ordinary = {"num_samples": 60, "rows": (1,), "work": work}
    key = "student-consistency-1"
    before = evaluate(pipeline, **ordinary)
    assert measured == [(key, 0), (key, 30)]
    measured.clear()
    wanted = {**ordinary, "curve": True}
    counting = rows._measure_chunk

    def interrupted(*arguments):
        if measured:
            raise KeyboardInterrupt
        return counting(*arguments)

    monkeypatch.setattr(rows, "_measure_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(pipeline, **wanted)
    assert measured == [(key, 0)]
    monkeypatch.setattr(rows, "_measure_chunk", counting)
    result = evaluate(pipeline, **wanted)
    assert measured == [(key, 0), (key, 30)]
    measured.clear()
    again = evaluate(pipeline, **wanted)
    assert measured == []
    assert again["rows"][0]["second"] == result["rows"][0]["second"]
    assert again["rows"][0]["statistics"] == result["rows"][0]["statistics"]
    assert evaluate(pipeline, **ordinary)["rows"][0]["frechet"] == before["rows"][0]["frechet"]
    assert measured == [], "an ordinary evaluation takes the chunks of a curve"
    monkeypatch.setattr(ImageModality, "feature_networks", {"other": QUARTERS})
    evaluate(pipeline, **wanted)
    assert measured == [(key, 0), (key, 30)], "another second network"


def test_an_ordinary_evaluation_stays_as_it_is(run, quarters, tmp_path, monkeypatch):
    monkeypatch.setattr(curve.Curve, "prepare", lambda *_: pytest.fail("an ordinary evaluation needs no curve"))
    monkeypatch.setattr(ImageModality, "statistics", lambda *_: pytest.fail("nor statistics"))
    result = evaluate(scm_media.load(run, "cpu"), num_samples=40, rows=(1,), work=tmp_path / "work")
    assert "curve" not in result
    assert "intervals" not in result["rows"][0]
    (chunk,) = (tmp_path / "work").glob("*/*.safetensors")
    assert weights.read(chunk).state.keys() == {"features", "right"}


def test_other_texts_are_other_samples(evaluated_model):
    pipeline = scm_media.load(evaluated_model, "cpu")
    network, row = features.own_network(pipeline), rows.Row.parse(1, pipeline)
    found = [rows._fingerprint(pipeline, network, row, 0)]
    for texts in (["a dog"], ["a cat"], ["a dog", "a cat"], ["a dog"]):
        bank = PromptBank(texts, {"tokens": torch.zeros(len(texts) + 1, 2, 3)})
        pipeline.__dict__["prompts"] = bank
        found.append(rows._fingerprint(pipeline, network, row, 0))
    assert len(set(found)) == 4
    assert found[1] == found[4]


def test_the_command_measures_students_and_both_solvers(run, quarters, monkeypatch, capsys):
    asked = []
    original = scm_media.evaluation.evaluate

    def quick(pipeline, request, **arguments):
        asked.append(request)
        return original(pipeline, replace(request, timing_batch_size=1, timing_repeats=1), **arguments)

    monkeypatch.setattr(scm_media.evaluation, "evaluate", quick)
    words = ["evaluate", str(run), "--curve", "--json", "-n", "12", "--out", str(run / "out")]
    assert main(words) == 0
    (request,) = asked
    assert request.curve
    found = json.loads(capsys.readouterr().out)
    kinds = {(row["sampler"], row["steps"]) for row in found["rows"]}
    assert {("consistency", steps) for steps in (1, 2, 4, 8)} <= kinds
    assert {("heun", steps) for steps in (2, 3, 4, 8, 16)} <= kinds
    assert {("dpm_solver", steps) for steps in (4, 8, 16, 32)} <= kinds
    assert len(kinds) == len(found["rows"])
    assert json.loads((run / "out" / "metrics.json").read_text()) == {
        name: value for name, value in found.items() if name != "memorization"
    }


def test_wasserstein_distances_are_those_by_hand():
    assert float(wasserstein_distance(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 5.0]))) == pytest.approx(3.5)
    assert float(wasserstein_distance(torch.tensor([0.0]), torch.tensor([0.0, 1.0, 2.0, 3.0]))) == pytest.approx(1.5)
    a, b = torch.randn(37), torch.randn(90) * 2 + 1
    assert float(wasserstein_distance(a, b)) == pytest.approx(
        stats.wasserstein_distance(a.numpy(), b.numpy()), rel=1e-6
    )


def test_statistics_are_compared_in_deviations_of_real_data_without_those_that_a_sample_lacks():
    real = {"x": torch.tensor([0.0, 2.0, torch.nan, 4.0]), "same": torch.ones(4), "none": torch.full((4,), torch.nan)}
    made = {name: values + 6 for name, values in real.items()}
    found = compare_statistics(made, real)
    assert found["x"] == {"mean": 8.0, "distance": pytest.approx(3.0)}
    assert found["same"] == {"mean": 7.0, "distance": None}
    assert found["none"] == {"mean": None, "distance": None}
    assert compare_statistics(made, None)["x"] == {"mean": 8.0, "distance": None}


def test_figures_whose_resamples_do_not_vary_have_no_interval():
    """Eight samples far from all real ones: none is precise, and no real sample is covered."""
    reference = make_reference(Quarters(), [Batch(torch.randn(40, 1, 16, 16), {})], [])
    features = Quarters().features(torch.randn(8, 1, 16, 16) + 50)
    found = Comparison(reference).figures(Measured(features, torch.ones(8), 1))
    assert (found["precision"], found["coverage"], found["accuracy"]) == (0.0, 0.0, 1.0)
    assert [found["intervals"][name] for name in ("precision", "density", "coverage", "accuracy")] == [None] * 4
    low, high = found["intervals"]["frechet"]
    assert low < found["frechet"] < high


def test_kendalls_tau_is_that_of_scipy():
    a, b = [1.0, 2.0, 2.0, 4.0, 5.0], [2.0, 1.0, 3.0, 3.0, 9.0]
    assert kendall_tau(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)
    assert kendall_tau([1.0, 2.0], [5.0, 4.0]) == -1
    assert kendall_tau([1.0], [5.0]) is kendall_tau([1.0, 1.0], [5.0, 4.0]) is None

"""Several models beside each other: where figures come from, whether they compare, and how gaps change with size."""

from __future__ import annotations

import json
import math

import pytest
from scipy import stats

from scm_media.evaluation.compare import chosen_rows, compare, comparison_table, comparison_text, write_comparison
from scm_media.evaluation.kept_figures import Measurement, find_differences, read_measurements
from scm_media.evaluation.scaling import (
    Size,
    describe_trend,
    find_trends,
    fit_trend,
    read_sizes,
    size_plots,
)
from scm_media.pipeline import ModelFolder
from tests.evaluation.curve_metrics import make_metrics, make_old_metrics, make_row
from tests.evaluation.test_curve_page import Page
from tests.pipeline.tiny import write_tiny_model


def save(folder, metrics, name="metrics.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(metrics))
    return str(folder)


def measured(name, **others):
    return Measurement(name, name, make_metrics(name, **others))


def test_figures_come_from_folders_of_models_of_figures_and_from_files(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    run = write_tiny_model(tmp_path / "run", run_folder=True)
    save(model, make_metrics("one")), save(run, make_metrics("two"))
    out = save(tmp_path / "out", make_metrics("three"))
    file = tmp_path / "figures.json"
    file.write_text(json.dumps(make_old_metrics("four")))
    found = read_measurements([str(model), str(run), out, str(file), "image/fashion"])
    assert [each.name for each in found] == ["one", "two", "three", "four", "image/fashion"]
    assert [each.folder is None for each in found] == [False, False, True, True, False]
    again = read_measurements([str(model), str(model), out])
    assert [each.name for each in again] == ["one (model) 1", "one (model) 2", "three"]


def test_figures_in_the_features_of_another_network_are_asked_for_by_name(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    save(model, make_metrics("own")), save(model, make_metrics("other"), "metrics-lite.json")
    assert read_measurements([str(model)], "lite")[0].name == "other"
    with pytest.raises(ValueError, match=r"expected the name of a feature network"):
        read_measurements([str(model)], "../lite")
    with pytest.raises(ValueError, match=r"no figures in the features of x: .* evaluate \S+ --curve --features x"):
        read_measurements([str(model)], "x")


def test_a_model_without_figures_is_refused_with_the_command_that_measures_it(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    with pytest.raises(ValueError, match=rf"has no figures: measure it by scm-media evaluate {model} --curve"):
        read_measurements([str(model)])
    with pytest.raises(ValueError, match="neither a folder nor a bundled model"):
        read_measurements(["no/such"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": []}, "no rows of samplers"),
        ({"rows": [{"sampler": "heun"}]}, "steps of a row is None"),
        ({"rows": [{**make_row("heun", 1, 1, 1.0, 1.0), "frechet": float("nan")}]}, "frechet of a row is nan"),
        ({"rows": [{**make_row("heun", 1, 1, 1.0, 1.0), "recall": "x"}]}, "recall of a row is 'x'"),
        ({"rows": [{**make_row("heun", 1, 1, 1.0, 1.0), "intervals": {"frechet": [1]}}]}, "no pair of numbers"),
        ({"rows": [{**make_row("heun", 1, 1, 1.0, 1.0), "second": {}}]}, "second of a row has no distance"),
        (
            {"rows": [make_row("heun", 1, 10**400, 1.0, 1.0) | {"operations_per_sample": 1}]},
            "evaluations of a row is 1000",
        ),
        ({"rows": [make_row("heun", 1, 1, 1.0, -1.0)]}, "seconds_per_sample of a row is -1.0"),
        ({"features": None}, "features are missing"),
        ({"model": 3}, "model or num_samples is missing"),
        ({"second_features": "lite"}, "second_features is no mapping"),
    ],
)
def test_figures_that_no_evaluation_wrote_are_refused(tmp_path, change, said):
    folder = save(tmp_path / "out", make_metrics(**change))
    with pytest.raises(ValueError, match=said):
        read_measurements([folder])


def test_one_row_alone_is_a_page_too(tmp_path):
    alone = {"rows": [make_row("consistency", 2, 2, 0.0, 0.0)]}
    write_comparison([measured("a", **alone), measured("b", **alone)], tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "student, 2 steps" in page.text
    assert len(page.all("svg")) == 2, "no seconds, no plot of them"


def test_figures_of_two_folders_of_files_are_refused(tmp_path):
    figures = {"num_samples": 10, "num_reference": 10, "features": {"name": "x", "dimension": 8}, "frechet": 1.0}
    with pytest.raises(ValueError, match="it has no rows of samplers"):
        read_measurements([save(tmp_path / "out", figures)])


def test_other_features_numbers_and_data_do_not_compare():
    same = [
        measured("a", features={"name": "lite", "dimension": 8}),
        measured("b", features={"name": "lite", "dimension": 8}),
    ]
    assert find_differences(same) == []
    other = measured("c", features={"name": "lite", "dimension": 9})
    (said,) = find_differences([*same, other])
    assert said.startswith("other features (lite, 8 dimensions: a, b; lite, 9 dimensions: c): distances")
    lite = {"name": "lite", "dimension": 8}
    notes = find_differences([same[0], measured("d", features=lite, num_samples=500, num_reference=700, dtype="bf16")])
    assert [note.split(" (")[0] for note in notes] == [
        "other numbers of samples",
        "other numbers of reference samples",
        "other precisions",
    ]
    assert "10000: a; 500: d" in notes[0]
    flat = {"name": "flat", "dimension": 8, "too_few": False}
    (second,) = find_differences([same[0], measured("e", features=lite, second_features=flat)])
    assert second == "other second networks (efficientnet-lite0: a; flat: e): distances in them do not compare"


def test_own_feature_extractors_are_compared_by_their_weights(tmp_path):
    folders = [write_tiny_model(tmp_path / name) for name in ("a", "b", "c")]
    (folders[2] / "feature_extractor.safetensors").unlink()
    (folders[2] / "student.safetensors").rename(folders[2] / "feature_extractor.safetensors")
    one, two, three = (Measurement(f.name, str(f), make_metrics(f.name), ModelFolder.open(f)) for f in folders)
    assert find_differences([one, two]) == []
    (said,) = find_differences([one, two, three])
    assert said.startswith("other feature extractors (each model's own) (")
    assert ": a, b; " in said
    (said,) = find_differences([one, measured("d")])
    assert "is not known without the folders of d" in said


def test_other_data_are_told_by_their_description(tmp_path):
    folders = [write_tiny_model(tmp_path / "a"), write_tiny_model(tmp_path / "b", data="pictures of cats")]
    found = [Measurement(f.name, str(f), make_metrics(f.name), ModelFolder.open(f)) for f in folders]
    assert find_differences(found)[0].startswith("other data (none: a; pictures of cats: b): distances")


def test_the_rows_are_one_two_the_best_and_the_teachers():
    rows = chosen_rows(measured("a"))
    assert [(row["sampler"], row["steps"]) for row in rows] == [
        ("consistency", 1),
        ("consistency", 2),
        ("consistency", 4),
        ("heun", 32),
    ]
    best = chosen_rows(measured("a", student=0.3))
    assert [row["steps"] for row in best] == [1, 2, 32], "no row stands twice"
    heads, cells = comparison_table([measured("a")])
    ratios = [row[heads.index("over teacher")] for row in cells]
    assert ratios == ["2.040", "1.300", "1.240", "1.000"]


def test_the_table_and_the_json_have_the_figures_and_what_is_missing():
    old = Measurement("old|", "old", make_old_metrics("old|"))
    found = compare([measured("new"), old])
    assert [model["name"] for model in found["models"]] == ["new", "old|"]
    assert found["models"][0]["rows"][1]["over_teacher"] == pytest.approx(1.3)
    assert found["notes"][-1].startswith("old|: figures without operations")
    few = measured("few", num_samples=5, teacher_threshold={"passed": False, "frechet_over_held_out": 21.0})
    said = compare([measured("new"), few])["notes"]
    assert any(note.startswith("few: only 5 samples for 8 feature dimensions") for note in said)
    assert any(note.startswith("few: the teacher missed its threshold: its distance is 21 ×") for note in said)
    assert not any(note.startswith("new: ") for note in said)
    text = comparison_text([measured("new"), old])
    assert "| new | student, 2 steps | 2 | 2 G | 0.65 [0.6175, 0.6825] |" in text
    assert "| old\\| | student, 2 steps | 2 | – | 0.65 |" in text


def test_the_page_has_all_models_and_hostile_names_are_text(tmp_path):
    name = '<img src=x onerror="alert(1)">'
    write_comparison([measured("one"), measured(name)], tmp_path / "page.html", command="scm-media compare <b>")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert not page.all("img") and not page.all("b")
    assert name in page.text
    assert page.text.count("0.65 [0.6175, 0.6825]") == 2
    assert "What does not compare" in page.text
    assert len(page.all("svg")) == 3
    assert (tmp_path / "page.png").is_file()


def sizes_of(ratios, parameters):
    """Sizes whose teacher has a distance of 0.5, and whose student in two steps these ratios of it."""
    teacher = make_row("heun", 32, 126, 0.5, 0.2)
    return [
        Size(f"m{number}", number, number, teacher, {2: make_row("consistency", 2, 2, 0.5 * ratio, 0.1)})
        for number, ratio in zip(parameters, ratios, strict=True)
    ]


def test_the_slope_of_a_power_law_is_found():
    parameters = [10**6, 4 * 10**6, 3 * 10**7]
    trend = fit_trend(parameters, [3 * number**-0.125 for number in parameters], 2)
    assert trend.slope == pytest.approx(-0.125)
    assert trend.margin == pytest.approx(0, abs=1e-9)
    assert trend.narrows is True
    said = describe_trend(trend)
    assert "slope of log ratio over log parameters -0.125" in said
    assert f"The gap narrows: ten times the parameters multiply the ratio by {10**-0.125:.3g}" in said
    assert fit_trend(parameters, [number**0.1 for number in parameters], 2).narrows is False


def test_the_margin_of_a_slope_is_that_of_least_squares():
    """Compares with the closed form for three equidistant points, whose middle one is off the line by e."""
    error = 0.03
    ratios = [1.5, 1.5 * math.exp(-0.1 + error), 1.5 * math.exp(-0.2)]
    trend = fit_trend([10, 100, 1000], ratios, 2)
    step = math.log(10)
    assert trend.slope == pytest.approx(-0.1 / step)
    rest = 6 / 9 * error**2  # the residuals are −e/3, 2e/3 and −e/3
    assert trend.margin == pytest.approx(12.706 * math.sqrt(rest / (2 * step**2)))
    assert trend.narrows is None
    assert "cannot be told" in describe_trend(trend)


def test_the_margin_of_many_sizes_is_no_narrower_than_that_of_students_t():
    parameters = [10**number for number in range(1, 14)]
    ratios = [1.5 * math.exp(0.1 * (number % 3)) for number in range(13)]
    fit = stats.linregress([math.log(each) for each in parameters], [math.log(each) for each in ratios])
    margin = fit_trend(parameters, ratios, 2).margin
    assert stats.t.ppf(0.975, 11) * fit.stderr < margin < 1.02 * stats.t.ppf(0.975, 11) * fit.stderr


def test_two_sizes_show_no_trend():
    (trend,) = find_trends(sizes_of([1.5, 1.2], [10**6, 10**7]))
    assert trend.slope == pytest.approx(math.log10(1.2 / 1.5))
    assert trend.narrows is None
    assert "Two sizes show no trend" in describe_trend(trend)
    assert "1.5 times the teacher's distance at 1 M parameters, 1.2 times at 10 M" in describe_trend(trend)


def test_plots_of_sizes_have_distances_and_relative_gaps():
    distances, gaps = size_plots(sizes_of([1.5, 1.2], [10**6, 10**7]))
    assert [each.name for each in distances.series] == ["teacher", "student, 2 steps"]
    assert [point.y for point in gaps.series[0].points] == pytest.approx([50, 20])
    low, high = gaps.series[0].points[0].bounds
    assert (low, high) == pytest.approx((100 * (1.5 * 0.95 / 1.05 - 1), 100 * (1.5 * 1.05 / 0.95 - 1)))


def test_sizes_are_the_parameters_of_the_weights(tmp_path):
    small = write_tiny_model(tmp_path / "small", run_folder=True)
    large = write_tiny_model(tmp_path / "large", run_folder=True)
    (large / "student" / "weights.safetensors").write_bytes(
        (large / "feature_extractor" / "weights.safetensors").read_bytes()
    )
    save(small, make_metrics("small")), save(large, make_metrics("large"))
    found = {size.name: size.parameters for size in read_sizes(read_measurements([str(small), str(large)]))}
    for name, folder, network in (("small", small, "student"), ("large", large, "feature_extractor")):
        state = ModelFolder.open(folder).read(network).state
        assert found[name] == sum(tensor.numel() for tensor in state.values() if tensor.is_floating_point())


def test_sizes_need_networks_a_teacher_and_two_of_them(tmp_path):
    with pytest.raises(ValueError, match="holds figures and no networks"):
        read_sizes([measured("a"), measured("b")])
    model = str(write_tiny_model(tmp_path / "model"))
    save(tmp_path / "model", make_metrics("a"))
    with pytest.raises(ValueError, match="compares models of several sizes, and all of these have"):
        read_sizes(read_measurements([model, model]))
    save(tmp_path / "model", make_metrics("a", rows=make_metrics()["rows"][2:]))
    with pytest.raises(ValueError, match="figures without a teacher's row"):
        read_sizes(read_measurements([model]))
    save(tmp_path / "model", make_metrics("a"))
    (tmp_path / "model" / "student.safetensors").unlink()
    with pytest.raises(ValueError, match="has no student yet"):
        read_sizes(read_measurements([model]))

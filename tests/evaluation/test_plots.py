"""Plots with error bars: where points lie, text that a page can colour, and pictures."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from scm_media.evaluation.curve_plots import cost_key, distance_plot, second_plot
from scm_media.evaluation.plots import (
    COLOURS,
    HEIGHT,
    INK,
    LEGEND_LINE,
    WIDTH,
    Plot,
    Point,
    Series,
    draw_picture,
    draw_svg,
)
from tests.evaluation.curve_metrics import make_metrics, make_old_metrics

ONE = Series("student", [Point(1, 10, (5, 20), "1"), Point(100, 1)], 0)
PLOT = Plot(
    "title & more", "cost", "distance", [ONE, Series("_<b>$x$", [Point(10, 3)], 1, dashed=True)], {"floor": 0.5}
)


def texts(drawing):
    return [each.text for each in ElementTree.fromstring(drawing).iter() if each.tag.endswith("text")]


def test_a_drawing_names_its_axes_series_and_levels_in_the_colour_of_the_page():
    drawing = draw_svg(PLOT, "first")
    found = texts(drawing)
    assert {"title & more", "cost", "distance", "student", " _<b>$x$", "floor 0.5", "10", "1"} <= set(found)
    assert INK not in drawing
    assert "currentColor" in drawing
    assert "#ffffff" not in drawing, "no white paper behind it"
    said = ElementTree.fromstring(drawing).attrib
    assert said["role"] == "img"
    assert said["aria-label"] == "title & more. student: 10 at 1 (1), 1 at 100; _<b>$x$: 3 at 10; floor: 0.5"


def test_two_drawings_on_a_page_share_no_ids_and_refer_to_their_own():
    drawings = [draw_svg(PLOT, name) for name in ("first", "second")]
    ids = [set(re.findall(r'\bid="([^"]+)"', drawing)) for drawing in drawings]
    assert ids[0]
    assert not ids[0] & ids[1]
    for own, drawing in zip(ids, drawings, strict=True):
        used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', drawing))
        assert used
        assert {one or other for one, other in used} <= own
    assert draw_svg(PLOT, "first") == drawings[0], "the same bytes again"


def columns_of(picture, colour):
    """Returns in how many rows each column of pixels has a colour."""
    wanted = [int(colour[first : first + 2], 16) for first in (1, 3, 5)]
    return (np.abs(np.asarray(picture, dtype=int) - wanted).sum(2) < 40).sum(0)


def test_an_interval_is_drawn_as_long_as_it_is():
    def height(bounds):
        series = Series("student", [Point(1, 10, bounds), Point(100, 10)])
        levels = {"low": 1.0, "high": 100.0}
        drawn = columns_of(draw_picture([Plot("", "x", "y", [series], levels)]), COLOURS[0])
        return int(drawn[: len(drawn) // 2].max())

    short, long = height((8, 12)), height((2, 50))
    assert long / short == pytest.approx(np.log(25) / np.log(1.5), rel=0.25), "on a logarithmic axis"


@pytest.mark.filterwarnings("error")
def test_a_single_point_is_drawn_without_a_division_by_zero():
    """The cost of an evaluation of one row, at which rounding made both ends of the axis the same."""
    point = Point(0.005030593499895986, 12.03, (10.78, 13.28), "1")
    drawn = texts(draw_svg(Plot("", "x", "y", [Series("student", [point])], {"floor": 10.7}), "a"))
    assert {"0.004", "0.005", "0.006"} <= set(drawn)
    flat = Plot("", "x", "y", [Series("student", [Point(0.1, 3.3)])])
    assert {"0.08", "0.1", "0.12", "3", "4"} <= set(texts(draw_svg(flat, "a")))


def test_a_picture_has_the_plots_beside_each_other():
    tall = HEIGHT + 2 * LEGEND_LINE
    assert draw_picture([PLOT]).size == (2 * WIDTH, 2 * tall)
    assert draw_picture([PLOT] * 3).size == (4 * WIDTH, 4 * tall)
    halves = np.asarray(draw_picture([PLOT] * 2))
    assert (halves[:, : 2 * WIDTH] == halves[:, 2 * WIDTH :]).all()


def test_numbers_that_no_logarithmic_axis_has_are_drawn_at_its_lower_end():
    plot = Plot("", "x", "y", [Series("a", [Point(1, -1.0, (-2, 0)), Point(2, 1.0)])], {"zero": 0.0})
    assert "zero 0" in texts(draw_svg(plot, "a"))


def test_curves_have_a_series_for_each_sampler_and_both_levels():
    metrics = make_metrics()
    plot = distance_plot({"": metrics}, "operations_per_sample")
    assert [each.name for each in plot.series] == ["teacher, heun", "student"]
    assert [each.dashed for each in plot.series] == [True, False]
    assert [(p.x, p.y, p.label) for p in plot.series[1].points] == [
        (1e9, 1.02, "1"),
        (2e9, 0.65, "2"),
        (4e9, 0.62, "4"),
    ]
    assert plot.series[1].points[1].bounds == pytest.approx((0.6175, 0.6825))
    assert plot.levels == {"held-out data (n = 9000)": 0.0522, "reconstructions (n = 9000)": 0.123}
    assert distance_plot({"": make_metrics(num_samples=9_000)}, "evaluations").levels == {
        "held-out data": 0.0522,
        "reconstructions": 0.123,
    }
    second = second_plot({"": metrics}, "operations_per_sample")
    assert [point.y for point in second.series[0].points] == [12.0, 10.0]
    assert "efficientnet-lite0" in second.y_label
    assert second.levels == {"held-out data (n = 9000)": 0.77}


def test_older_figures_are_plotted_over_evaluations_without_intervals():
    old = make_old_metrics()
    assert cost_key({"": make_metrics()}) == "operations_per_sample"
    assert cost_key({"new": make_metrics(), "old": old}) == "evaluations"
    plot = distance_plot({"": old}, "evaluations")
    assert [point.x for point in plot.series[0].points] == [30, 126]
    assert all(point.bounds is None for each in plot.series for point in each.points)
    assert plot.levels == {"held-out data": 0.0511}
    assert second_plot({"": old}, "evaluations") is None


def test_models_in_one_plot_have_a_colour_each_and_no_levels_of_one():
    plot = distance_plot({"a": make_metrics("a"), "b": make_metrics("b")}, "operations_per_sample")
    assert [(each.name, each.group) for each in plot.series] == [
        ("a: teacher, heun", 0),
        ("a: student", 0),
        ("b: teacher, heun", 1),
        ("b: student", 1),
    ]
    assert plot.levels == {}
    other = {"name": "other", "dimension": 8, "too_few": False}
    apart = {"a": make_metrics("a"), "b": make_metrics("b", second_features=other)}
    assert second_plot(apart, "operations_per_sample") is None, "distances in two networks are in no one plot"

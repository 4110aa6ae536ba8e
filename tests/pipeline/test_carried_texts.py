"""Figures of a model that carries a part of its texts say so."""

from __future__ import annotations

import json

import pytest

import scm_media
from scm_media.evaluation import EvaluationRequest, evaluate
from scm_media.evaluation.compare import Measurement, notes
from scm_media.evaluation.report import report
from scm_media.pipeline import ModelFolder
from scm_media.pipeline.card import format_card
from scm_media.pipeline.carried_texts import few_texts, measured_with_all_texts
from scm_media.pipeline.labels import LabelSet


def labels(*counts: int, name: str = "prompt") -> LabelSet:
    """The labels of a model whose data have each of its texts so often."""
    return LabelSet({name: [f"text {number}" for number in range(len(counts))]}, {name: counts})


@pytest.mark.parametrize(
    ("given", "num_train", "remarked"),
    [
        (labels(3, 4), 100, True),
        (labels(30, 21), 100, False),  # more than half of the data
        (labels(*[1] * 40_000), 40_000, False),  # a whole large set
        (labels(3, 4, name="instrument"), 100, False),  # no texts
        (LabelSet({"prompt": ["a"]}, {}), 100, False),  # how many have it is not known
    ],
)
def test_a_small_part_of_the_texts_is_remarked(given, num_train, remarked):
    found = few_texts(given, num_train)
    assert len(found) == remarked
    if remarked:
        assert "for the 2 texts that the model carries, which at most 7 of the 100 training samples have" in found[0]


def test_the_bundled_model_of_128_texts_says_so_and_one_of_labels_does_not():
    for name, remarked in (("audio/notes-text", True), ("audio/notes", False)):
        request = EvaluationRequest(num_samples=2, rows=[1], timing_repeats=1, timing_batch_size=1)
        figures = evaluate(scm_media.load(name), request)
        assert ("for the 128 texts that the model carries, which at most 1441 of" in report(figures)) is remarked
        assert bool(figures.get("remarks")) is remarked


def test_the_remark_stands_on_the_card_and_beside_other_models(tmp_path):
    folder = scm_media.load("image/fashion").save_pretrained(tmp_path / "model")
    file = folder / "metrics.json"
    figures = json.loads(file.read_text("utf-8")) | {"remarks": ["samples are for <few> texts"]}
    file.write_text(json.dumps(figures), "utf-8")
    assert "- samples are for &lt;few> texts" in format_card(ModelFolder.open(folder))
    assert "one: samples are for <few> texts" in notes([Measurement("one", file, figures)])


@pytest.mark.parametrize(
    ("counts", "metrics", "remarked"),
    [
        ((3, 4), {"num_reference": 100}, True),
        ((3, 4), {"num_reference": 100, "remarks": ["no second network"]}, True),
        ((3, 4), {"num_reference": 100, "remarks": few_texts(labels(3, 4), 100)}, False),  # of these texts alone
        ((30, 40), {"num_reference": 100}, False),
        ((3, 4), {}, False),  # an evaluation before num_reference
    ],
)
def test_figures_of_more_texts_than_the_model_carries_are_remarked(counts, metrics, remarked):
    found = measured_with_all_texts(labels(*counts), metrics)
    assert len(found) == remarked
    if remarked:
        assert "the model carries 2 of them" in found[0]


@pytest.mark.parametrize(("name", "num"), [("audio/notes-text", 128), ("image/emoji-text", 720), ("audio/notes", None)])
def test_cards_of_bundled_models_say_whether_their_figures_are_of_more_texts(name, num):
    card = format_card(ModelFolder.open(name))
    assert ("these figures are of the run" in card) is (num is not None)
    assert num is None or f"the model carries {num} of them" in card

"""Figures of a model that carries a part of its texts say so."""

from __future__ import annotations

import pytest

import scm_media
from scm_media.evaluation import EvaluationRequest, evaluate
from scm_media.evaluation.carried_texts import few_texts
from scm_media.evaluation.report import report
from scm_media.pipeline.labels import LabelSet


def labels(*counts: int, name: str = "prompt") -> LabelSet:
    names = {"family": ["bass", "organ"], name: [f"text {number}" for number in range(len(counts))]}
    return LabelSet(names, {}, {(number % 2, number): count for number, count in enumerate(counts)})


@pytest.mark.parametrize(
    ("given", "num_train", "remarked"),
    [
        (labels(3, 4), 100, True),
        (labels(30, 21), 100, False),  # more than half of the data
        (labels(3, 4, name="instrument"), 100, False),  # no texts
        (LabelSet({"prompt": ["a"]}, {}), 100, False),  # how many have it is not known
    ],
)
def test_a_small_part_of_the_texts_is_remarked(given, num_train, remarked):
    found = few_texts(given, num_train)
    assert len(found) == remarked
    if remarked:
        assert "for the 2 texts that the model carries, which 7 of the 100 training samples have" in found[0]


def test_the_bundled_model_of_128_texts_says_so_and_one_of_labels_does_not():
    for name, remarked in (("audio/notes-text", True), ("audio/notes", False)):
        request = EvaluationRequest(num_samples=2, rows=[1], timing_repeats=1, timing_batch_size=1)
        figures = evaluate(scm_media.load(name), request)
        assert ("for the 128 texts that the model carries" in report(figures)) is remarked
        assert bool(figures.get("remarks")) is remarked

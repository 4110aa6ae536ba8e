"""How good a model is: distances between features, precision and recall, agreement with labels, seconds."""

from __future__ import annotations

from scm_media.evaluation.curve import curve_svg
from scm_media.evaluation.evaluate import evaluate
from scm_media.evaluation.folders import evaluate_folders
from scm_media.evaluation.frechet import Moments, frechet_distance
from scm_media.evaluation.kernel import kernel_distance
from scm_media.evaluation.neighbours import precision_recall
from scm_media.evaluation.reference import Reference, make_reference
from scm_media.evaluation.report import report
from scm_media.evaluation.times import keep_times, search_times, times_report

__all__ = [
    "Moments",
    "Reference",
    "curve_svg",
    "evaluate",
    "evaluate_folders",
    "frechet_distance",
    "keep_times",
    "kernel_distance",
    "make_reference",
    "precision_recall",
    "report",
    "search_times",
    "times_report",
]

"""How good a model is: distances between features, precision and recall, agreement with labels, seconds."""

from __future__ import annotations

from scm_media.evaluation.ema_search import averages_report, choice_of, search_ema
from scm_media.evaluation.evaluate import evaluate
from scm_media.evaluation.features import FeatureNetwork, named_network, own_network, projected
from scm_media.evaluation.folders import evaluate_folders
from scm_media.evaluation.frechet import Moments, frechet_distance
from scm_media.evaluation.kernel import kernel_distance
from scm_media.evaluation.memorization import find_memorized
from scm_media.evaluation.neighbours import precision_recall
from scm_media.evaluation.recipe_data import load_reference
from scm_media.evaluation.reference import Reference, make_reference
from scm_media.evaluation.report import report
from scm_media.evaluation.times import keep_times, search_times, times_report

__all__ = [
    "FeatureNetwork",
    "Moments",
    "Reference",
    "averages_report",
    "choice_of",
    "evaluate",
    "evaluate_folders",
    "find_memorized",
    "frechet_distance",
    "keep_times",
    "kernel_distance",
    "load_reference",
    "make_reference",
    "named_network",
    "own_network",
    "precision_recall",
    "projected",
    "report",
    "search_ema",
    "search_times",
    "times_report",
]

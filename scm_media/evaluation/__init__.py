"""Measures of a model: distances between features, precision and recall, accuracy of labels, seconds."""

from __future__ import annotations

from scm_media.evaluation.ema_search import ema_report, search_ema, summarize_choice
from scm_media.evaluation.evaluate import EvaluationRequest, evaluate
from scm_media.evaluation.features import FeatureNetwork, named_network, own_network, project_features
from scm_media.evaluation.folders import evaluate_folder, evaluate_folders
from scm_media.evaluation.frechet import Moments, frechet_distance
from scm_media.evaluation.kernel import kernel_distance
from scm_media.evaluation.memorization import find_memorized
from scm_media.evaluation.neighbours import precision_recall
from scm_media.evaluation.recipe_data import load_reference
from scm_media.evaluation.reference import Reference, make_reference
from scm_media.evaluation.report import report
from scm_media.evaluation.times import keep_times, search_times, times_report

__all__ = [
    "EvaluationRequest",
    "FeatureNetwork",
    "Moments",
    "Reference",
    "ema_report",
    "evaluate",
    "evaluate_folder",
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
    "project_features",
    "report",
    "search_ema",
    "search_times",
    "summarize_choice",
    "times_report",
]

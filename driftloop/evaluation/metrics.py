"""Metrics of predictions against outcomes.

Tests compare them with scikit-learn's. That is not imported here: it costs the drift worker a second at its start and
70 MB of memory for a few lines of numpy.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from driftloop.evaluation.metric_names import MetricName

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def are_probabilities(predictions: FloatArray) -> bool:
    """Return whether predictions can be probabilities: all between 0 and 1, and not only the classes 0 and 1."""
    in_range = bool(((predictions >= 0) & (predictions <= 1)).all())
    return in_range and bool(((predictions > 0) & (predictions < 1)).any())


def concordant_pairs(scores: FloatArray, positives: FloatArray, negatives: FloatArray) -> tuple[float, float]:
    """Return the number of concordant pairs and of all pairs of a positive and a negative row.

    A pair is concordant if the positive row has the higher score; a tie counts half. ``positives`` and ``negatives``
    are weights of the rows: a row with a probability p as its outcome is positive by p and negative by 1 - p.
    """
    rank = np.unique(scores, return_inverse=True)[1]
    positive, negative = np.bincount(rank, positives), np.bincount(rank, negatives)
    return float(positive @ (np.cumsum(negative) - negative / 2)), float(positive.sum() * negative.sum())


def roc_auc(outcomes: FloatArray, predictions: FloatArray) -> float:
    """Return the area under the ROC curve; NaN if all outcomes are equal."""
    concordant, pairs = concordant_pairs(predictions, outcomes, 1 - outcomes)
    return concordant / pairs if pairs else float("nan")


def brier(outcomes: FloatArray, predictions: FloatArray) -> float:
    """Return the Brier score: the mean squared difference of probabilities and outcomes."""
    return float(np.mean((predictions - outcomes) ** 2))


def rmse(outcomes: FloatArray, predictions: FloatArray) -> float:
    """Return the root of the mean squared error."""
    return float(np.sqrt(np.mean((predictions - outcomes) ** 2)))


def accuracy(outcomes: FloatArray, predictions: FloatArray) -> float:
    """Return the fraction of rows whose class is predicted, with a threshold of 0.5."""
    return float(np.mean((predictions >= 0.5) == (outcomes == 1)))


METRICS: Mapping[MetricName, Callable[[FloatArray, FloatArray], float]] = {
    "roc_auc": roc_auc,
    "brier": brier,
    "accuracy": accuracy,
    "rmse": rmse,
}


def compute_metric(metric: MetricName, outcomes: FloatArray, predictions: FloatArray) -> float:
    """Return a metric of all rows; NaN where it is undefined, such as a ROC AUC with equal outcomes only."""
    return METRICS[metric](outcomes, predictions)

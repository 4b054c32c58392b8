"""Metrics of predictions against outcomes, both as :mod:`driftloop.evaluation.targets` describes them.

Tests compare them with scikit-learn's. That is not imported here: it costs the drift worker a second at its start and
70 MB of memory for a few lines of numpy.
"""

import numpy as np
import numpy.typing as npt

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


def predicted_classes(predictions: FloatArray) -> FloatArray:
    """Return the position of each row's most probable class; the second of two from a probability of 0.5."""
    if predictions.ndim == 2:
        return np.asarray(predictions.argmax(axis=1), dtype=np.float64)
    return (predictions >= 0.5).astype(np.float64)


def class_probabilities(predictions: FloatArray) -> FloatArray:
    """Return the probability of each class, a line for each row."""
    return predictions if predictions.ndim == 2 else np.column_stack([1 - predictions, predictions])


def brier_losses(outcomes: FloatArray, predictions: FloatArray) -> FloatArray:
    """Return each row's squared difference of probability and outcome, summed over the classes if there are several.

    The sum over all classes is Brier's own definition (1950), which for two classes is twice the usual one.
    """
    if predictions.ndim == 1:
        return np.asarray((predictions - outcomes) ** 2)
    squared = predictions**2
    at_outcome = _at_outcome(outcomes, predictions)
    return np.asarray(squared.sum(axis=1) - 2 * at_outcome + 1)


def log_losses(outcomes: FloatArray, predictions: FloatArray) -> FloatArray:
    """Return the negative logarithm of the probability that each row's outcome had."""
    smallest = np.finfo(np.float64).eps  # as scikit-learn clips
    at_outcome = _at_outcome(outcomes, class_probabilities(predictions))
    return np.asarray(-np.log(np.clip(at_outcome, smallest, 1 - smallest)))


def hits(outcomes: FloatArray, predictions: FloatArray) -> FloatArray:
    """Return 1 for each row whose class is predicted, otherwise 0."""
    return np.asarray(predicted_classes(predictions) == outcomes, dtype=np.float64)


def squared_errors(outcomes: FloatArray, predictions: FloatArray) -> FloatArray:
    """Return each row's squared error."""
    return np.asarray((predictions - outcomes) ** 2)


def absolute_errors(outcomes: FloatArray, predictions: FloatArray) -> FloatArray:
    """Return each row's absolute error."""
    return np.abs(predictions - outcomes)


def errors(outcomes: FloatArray, predictions: FloatArray) -> FloatArray:
    """Return by how much each prediction is too high."""
    return np.asarray(predictions - outcomes)


def _at_outcome(outcomes: FloatArray, probabilities: FloatArray) -> FloatArray:
    return np.asarray(probabilities[np.arange(len(outcomes)), outcomes.astype(np.int64)])

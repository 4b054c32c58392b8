"""Performance estimation: the metrics to expect from predicted probabilities alone, before any outcome is known."""

import numpy as np

from driftloop.evaluation.metrics import FloatArray, concordant_pairs


def estimate_performance(probabilities: FloatArray) -> dict[str, float]:
    """Return Brier score, accuracy and, for two classes, ROC AUC as they would be if each probability were right.

    This is confidence-based performance estimation (CBPE), as NannyML published it (Białek, Kivimäki, Kuberski and
    Perrakis 2024, arXiv:2401.08348), without a calibration of its own. It cannot see a change in the relation between
    features and outcome: the estimate then stays what it was. The ROC AUC is the expected number of concordant pairs
    divided by the expected number of all pairs of two different rows; it is left out where no pair is expected.

    Args:
        probabilities: The probability of the second of two classes, or one of each class, by row.
    """
    if probabilities.ndim == 2:
        certainty = (probabilities**2).sum(axis=1)
        return {"brier": float(1 - certainty.mean()), "accuracy": float(probabilities.max(axis=1).mean())}
    complement = 1 - probabilities
    variance = probabilities * complement
    estimates = {"brier": float(variance.mean()), "accuracy": float(np.maximum(probabilities, complement).mean())}
    concordant, pairs = concordant_pairs(probabilities, probabilities, complement)
    self_pairs = float(variance.sum())  # a row paired with itself, which was counted as a tie
    if pairs - self_pairs <= 0:
        return estimates
    return {"roc_auc": (concordant - self_pairs / 2) / (pairs - self_pairs), **estimates}

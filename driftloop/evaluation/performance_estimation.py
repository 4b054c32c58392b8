"""Performance estimation: the metrics to expect from predicted probabilities alone, before any outcome is known."""

import numpy as np

from driftloop.evaluation.metrics import FloatArray, concordant_pairs


def estimate_performance(probabilities: FloatArray) -> dict[str, float]:
    """Return ROC AUC, Brier score and accuracy as they would be if each probability were right.

    This is confidence-based performance estimation (CBPE), as NannyML published it (Białek, Kivimäki, Kuberski and
    Perrakis 2024, arXiv:2401.08348), without a calibration of its own. It cannot see a change in the relation between
    features and outcome: the estimate then stays what it was. The ROC AUC is the expected number of concordant pairs
    divided by the expected number of all pairs of two different rows; it is left out where no pair is expected.
    """
    complement = 1 - probabilities
    variance = probabilities * complement
    estimates = {"brier": float(variance.mean()), "accuracy": float(np.maximum(probabilities, complement).mean())}
    concordant, pairs = concordant_pairs(probabilities, probabilities, complement)
    self_pairs = float(variance.sum())  # a row paired with itself, which was counted as a tie
    if pairs - self_pairs <= 0:
        return estimates
    return {"roc_auc": (concordant - self_pairs / 2) / (pairs - self_pairs), **estimates}

"""How good a model's predictions were, and how sure that is. Pure."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A difference, with the interval that its blocks leave it."""

    value: float
    low: float
    high: float


def roc_auc(outcomes: Floats, predictions: Floats) -> float:
    """Area under the ROC curve; NaN where all outcomes are the same."""
    if len(np.unique(outcomes)) < 2:
        return float("nan")
    return float(roc_auc_score(outcomes, predictions))


def roc_auc_difference(
    outcomes: Floats,
    champion: Floats,
    challenger: Floats,
    blocks: npt.NDArray[np.int64],
    *,
    level: float = 0.95,
    resamples: int = 500,
) -> Interval:
    """By how much the challenger's ROC AUC exceeds the champion's on the same rows.

    The interval is a percentile bootstrap that draws whole blocks (days): rows of a block share what the features do
    not say, and drawn one by one they would make the interval two to four times too narrow.
    """
    rows_of = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    random = np.random.default_rng(0)
    drawn = np.empty(resamples)
    for i in range(resamples):
        rows = np.concatenate([rows_of[k] for k in random.integers(len(rows_of), size=len(rows_of))])
        drawn[i] = roc_auc(outcomes[rows], challenger[rows]) - roc_auc(outcomes[rows], champion[rows])
    tail = (1 - level) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    value = roc_auc(outcomes, challenger) - roc_auc(outcomes, champion)
    return Interval(value, float(low), float(high))

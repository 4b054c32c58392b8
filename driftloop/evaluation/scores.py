"""Scores: one number per row from a fitted estimator."""

from typing import Any

import numpy as np
import pandas as pd

from driftloop.evaluation.metrics import FloatArray


def predict_scores(estimator: Any, method: str, features: pd.DataFrame) -> FloatArray:
    """Return the probability of the second class for each row, or the predicted number if ``method`` returns one."""
    predicted = np.asarray(getattr(estimator, method)(features), dtype=np.float64)
    return predicted if predicted.ndim == 1 else predicted[:, 1]

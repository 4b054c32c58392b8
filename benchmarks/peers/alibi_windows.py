"""Run Alibi Detect on the cases of benchmarks.peers.detectors, in Alibi Detect's environment."""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from alibi_detect.cd import ClassifierDrift, TabularDrift  # type: ignore[import-not-found]  # not in driftloop's environment
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks.peers.detectors import run_detectors

CLASSIFIER_ROWS = 3_000  # of the reference; the classifier is trained on them for each window
RATES = (0.05, 0.01)


def detect(reference: pd.DataFrame, windows: pd.DataFrame, numbers: list[str], rows: int) -> dict[str, Any]:
    """Run Kolmogorov–Smirnov and chi-squared tests with Bonferroni's correction, and a classifier of all columns.

    Neither accepts missing values: in numbers they become the reference's median, in categories a level of their own.
    The score is the largest distance of a numeric column, or the classifier's distance.
    """
    filled = [_encode(frame, reference, numbers) for frame in (reference, windows)]
    categories = {index: None for index, column in enumerate(reference.columns) if column not in numbers}
    univariate = TabularDrift(filled[0], p_val=RATES[0], categories_per_feature=categories)
    sampled_rows = np.linspace(0, len(reference) - 1, min(CLASSIFIER_ROWS, len(reference))).astype(int)
    trees = HistGradientBoostingClassifier(max_iter=30, max_leaf_nodes=15, early_stopping=False)
    multivariate = ClassifierDrift(
        filled[0][sampled_rows], trees, p_val=RATES[0], backend="sklearn", preds_type="probs", train_size=0.75, seed=0
    )
    column_results: list[tuple[float, float]] = []
    classifier_results: list[tuple[float, float]] = []
    for first in range(0, len(windows), rows):
        window = filled[1][first : first + rows]
        by_column = univariate.predict(window, drift_type="feature")["data"]
        distance = max(
            by_column["distance"][index] for index in range(len(reference.columns)) if index not in categories
        )
        column_results.append((float(distance), float(np.nanmin(by_column["p_val"])) * len(reference.columns)))
        joint_result = multivariate.predict(window)["data"]
        classifier_results.append((float(joint_result["distance"]), float(joint_result["p_val"])))
    return {"KS, χ²": _to_result(column_results), "classifier": _to_result(classifier_results)}


def _to_result(results: list[tuple[float, float]]) -> dict[str, Any]:
    """Return scores and alarms; scores are distances, as p-values are too small for floats to distinguish."""
    alarms = {str(rate): [p < rate for _, p in results] for rate in RATES}
    return {"score": [distance for distance, _ in results], "alarm": alarms}


def _encode(frame: pd.DataFrame, reference: pd.DataFrame, numbers: list[str]) -> Any:
    columns: list[Any] = []
    for column in reference.columns:
        if column in numbers:
            columns.append(frame[column].fillna(reference[column].median()).to_numpy(dtype=float))
        else:
            levels = pd.Index(reference[column].fillna("missing").unique())
            columns.append(levels.get_indexer(pd.Index(frame[column].fillna("missing"))).astype(float))
    return np.column_stack(columns)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    run_detectors(Path(sys.argv[1]), "alibi_detect", detect)

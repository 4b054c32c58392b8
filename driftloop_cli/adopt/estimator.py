"""What an estimator of unknown origin takes and answers, for this command and for the process that loads pickles."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftloop.registry.fitted_transformers import find_missing_values
from driftloop_cli.adopt.data import InvalidRows

METHODS = ("predict_proba", "predict")
"""Methods that a version's predictions can come from, the preferred one first."""
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-9, 1e-12  # of two sums of the same numbers


class Answers(NamedTuple):
    """An estimator's predictions of rows."""

    features: pd.DataFrame
    """The columns that it takes."""
    method: str
    values: npt.NDArray[Any]


class Comparison(NamedTuple):
    """Two estimators' predictions of the same rows."""

    rows: int
    different_rows: int
    max_difference: float
    """The largest difference of two numbers; 0 for labels."""


def answer(estimator: Any, names: Sequence[str] | None, rows: pd.DataFrame, method: str | None) -> Answers:
    """Let an estimator predict rows, as the predictor would.

    Args:
        estimator: A fitted estimator.
        names: The columns of its signature, if it has one.
        rows: Rows with at least these columns.
        method: The method to predict with; by default probabilities if it has them.

    Raises:
        InvalidRows: The rows do not have the columns, or it has no such method.
    """
    features = rows[choose_features(names, estimator, list(rows.columns))]
    features = _fill_missing(features, find_missing_values(estimator, list(features.columns)))
    chosen = choose_method(estimator, method)
    return Answers(features, chosen, np.asarray(getattr(estimator, chosen)(features)))


def choose_method(estimator: Any, method: str | None) -> str:
    """Return the method that predictions come from: the one asked for, or probabilities if there are any.

    Raises:
        InvalidRows: The estimator has no such method.
    """
    found = [name for name in METHODS if hasattr(estimator, name)]
    if not found or (method is not None and method not in found):
        alternative = f"; it has {found[0]}" if found else ", so it predicts nothing that can be served"
        raise InvalidRows(f"{type(estimator).__name__} has no method {method or ' or '.join(METHODS)}{alternative}")
    return method or found[0]


def choose_features(signature_names: Sequence[str] | None, estimator: Any, columns: Sequence[str]) -> list[str]:
    """Return the columns that an estimator takes: those of its signature, those it was fitted on, or all.

    Raises:
        InvalidRows: The rows lack some, or have another number of columns than an estimator that was fitted on a
            matrix.
    """
    names = signature_names or _fitted_names(estimator)
    if names is not None:
        if missing := [name for name in names if name not in columns]:
            raise InvalidRows(f"the data lack columns that the model takes: {', '.join(missing)}")
        return list(names)
    width = getattr(estimator, "n_features_in_", None) or len(columns)  # CatBoost's, read from a file, have 0
    if width != len(columns):
        raise InvalidRows(
            f"the model was fitted on a matrix of {width} columns, and the data have {len(columns)} besides target and "
            f"time ({', '.join(columns)}): leave the others out of the file"
        )
    return list(columns)


def _fitted_names(estimator: Any) -> list[str] | None:
    """Return the names of the columns that an estimator was fitted on; None if they had none."""
    for attribute in ("feature_names_in_", "feature_names_"):  # scikit-learn's, CatBoost's
        if (names := getattr(estimator, attribute, None)) is not None:
            texts = list(map(str, names))
            return None if texts == list(map(str, range(len(texts)))) else texts
    return None


def compare(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> Comparison:
    """Compare the predictions of two estimators for the same rows."""
    rows = len(second)
    if first.shape != second.shape:
        return Comparison(rows, rows, float("inf"))
    if first.dtype.kind not in "fiub" or second.dtype.kind not in "fiub":
        differs = first.astype(str) != second.astype(str)
        return Comparison(rows, _count_rows(differs), 0.0)
    numbers, others = first.astype("float64"), second.astype("float64")
    same = np.isclose(numbers, others, rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE, equal_nan=True)
    difference = np.abs(numbers - others)
    return Comparison(rows, _count_rows(~same), float(np.nanmax(difference)) if np.isfinite(difference).any() else 0.0)


def _count_rows(differs: npt.NDArray[np.bool_]) -> int:
    return int(differs.reshape(len(differs), -1).any(axis=1).sum())


def _fill_missing(features: pd.DataFrame, missing_values: dict[str, Any]) -> pd.DataFrame:
    """Let missing texts be what the estimator has seen in their place: NaN and None are different categories."""
    filled = {}
    for name in map(str, features.select_dtypes("object")):
        value: Any = None if missing_values.get(name) == "none" else np.nan
        if (missing := features[name].isna()).any():
            filled[name] = features[name].astype(object).where(~missing, value)
    return features.assign(**filled)

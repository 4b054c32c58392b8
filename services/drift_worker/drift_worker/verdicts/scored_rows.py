"""Archived rows of one version as arrays that metrics are computed from."""

import json
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from driftloop.drift.comparable_columns import ComparableRows, to_comparable
from driftloop.evaluation.metrics import FloatArray, IntArray
from driftloop.evaluation.targets import Target, infer_target
from driftloop.events import CLASSES_COLUMN, PREDICTION_COLUMN, TIME_COLUMN, Label
from driftloop.storage.reference_store import Reference


class ScoredRows(NamedTuple):
    """Outcomes and predictions of rows."""

    target: Target
    outcomes: FloatArray
    """NaN where the outcome is not known or not one of the classes."""
    predictions: FloatArray
    """NaN where the prediction is not of the target."""
    days: IntArray
    """The UTC day of each prediction: the worker does not know the use case's time zone."""

    @property
    def invalid_predictions(self) -> int:
        """The number of rows whose prediction is not of the target."""
        is_invalid = np.isnan(self.predictions)
        return int((is_invalid if is_invalid.ndim == 1 else is_invalid.any(axis=1)).sum())

    def known(self) -> Self:
        """Return the rows with a known outcome."""
        is_known = ~np.isnan(self.outcomes)
        return self._replace(
            outcomes=self.outcomes[is_known], predictions=self.predictions[is_known], days=self.days[is_known]
        )


def score_rows(rows: pd.DataFrame, evaluated_classes: Sequence[Label] | None = None) -> ScoredRows:
    """Return a version's archived rows as arrays.

    The classes are those that the version itself has reported, so that the worker needs no use case. All its rows
    should have the same ones: the most common ones count, so that a single event does not decide for all.

    Args:
        rows: The archived rows, with their outcomes if these are known.
        evaluated_classes: The classes by which the gate has evaluated the version: a version without probabilities
            reports none.
    """
    reported = rows[CLASSES_COLUMN].dropna()
    classes = json.loads(reported.mode().iloc[0]) if len(reported) else evaluated_classes
    outcomes = rows["outcome"] if "outcome" in rows else pd.Series(np.nan, index=rows.index)
    outcomes = outcomes.infer_objects()  # beside another model's labels, numbers are objects
    target = infer_target(outcomes, rows[PREDICTION_COLUMN], classes)
    return ScoredRows(
        target,
        target.encode(outcomes),
        target.from_archive(rows[PREDICTION_COLUMN], rows[CLASSES_COLUMN]),
        utc_days(rows),
    )


def comparable_rows(rows: pd.DataFrame, reference: Reference) -> ComparableRows:
    """Return a version's archived rows as its reference has them.

    A slice has the values of a column as text if another model has texts in a column of that name: where the reference
    has numbers as levels, they become numbers again.

    A prediction that is compared as a category is a label, or has the probabilities of all classes: then it is the most
    probable one. One that has something else is missing, and unreadable.
    """
    kinds = reference.profile.kinds
    unreadable: dict[str, float] = {}
    if kinds.get(PREDICTION_COLUMN) == "category" and PREDICTION_COLUMN in rows:
        labels = rows[PREDICTION_COLUMN].astype(str)
        if rows[CLASSES_COLUMN].notna().any():
            scored = score_rows(rows)
            labels = scored.target.to_column(scored.predictions)
        if fraction := float(labels.isna().mean()):
            unreadable[PREDICTION_COLUMN] = fraction
        rows = rows.assign(**{PREDICTION_COLUMN: labels.to_numpy()})
    numeric_levels = {
        column: _as_numbers(rows[column])
        for column, kind in kinds.items()
        if kind == "category" and column in rows and is_numeric_dtype(reference.rows[column])
    }
    comparable = to_comparable(rows.assign(**numeric_levels), kinds, rows[TIME_COLUMN])
    return comparable._replace(unreadable={**comparable.unreadable, **unreadable})


def _as_numbers(cells: pd.Series) -> pd.Series:
    """Return the cells with a number in place of each text of one."""
    numbers = pd.to_numeric(cells, errors="coerce")
    unreadable = numbers.isna() & cells.notna()
    return numbers.astype(object).where(~unreadable, cells) if unreadable.any() else numbers


def utc_days(rows: pd.DataFrame) -> IntArray:
    """Return the UTC day of each prediction as a number."""
    times = rows["predicted_at"] if "predicted_at" in rows else rows[TIME_COLUMN]
    return np.asarray(
        times.astype("datetime64[ns, UTC]").astype(np.int64) // pd.Timedelta(days=1).value, dtype=np.int64
    )

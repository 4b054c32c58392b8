"""Comparable columns: turn columns of any kind into the numbers and categories that statistics are computed from.

Reference and window go through the same conversion, so that a statistic compares like with like.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import pandas as pd

from driftloop.drift.distances import ColumnType

FeatureKind = Literal["number", "category", "boolean", "datetime", "text"]
"""What a feature holds. Statistics are computed from the values of a number, a category or a boolean; from the days
between a datetime and the time of its row; and from the length of a text, whose single values hardly ever repeat."""

COLUMN_TYPES: dict[FeatureKind, ColumnType] = {
    "number": "number",
    "category": "category",
    "boolean": "category",
    "datetime": "number",
    "text": "number",
}
"""What a feature of each kind is compared as."""


SECONDS_PER_DAY = 86_400
BOOLEANS: dict[object, str] = {
    **{True: "true", False: "false", "true": "true", "false": "false"},
    **{"True": "true", "False": "false"},  # of an archived column that has texts of another model, too
}


class ComparableRows(NamedTuple):
    """Rows whose columns can be compared with a reference's."""

    rows: pd.DataFrame
    unreadable: dict[str, float]
    """By column the fraction of rows whose value is not of the column's kind and counts as missing, if any is."""


def to_comparable(rows: pd.DataFrame, kinds: Mapping[str, FeatureKind], times: pd.Series) -> ComparableRows:
    """Convert the columns that have a kind; other columns stay as they are.

    A value that is not of its column's kind becomes missing. Kinds of columns that the rows do not have are ignored.

    Args:
        rows: The rows.
        kinds: Kinds by column.
        times: The time of each row, with a time zone.
    """
    converted: dict[str, pd.Series] = {}
    unreadable: dict[str, float] = {}
    for column, kind in kinds.items():
        if column not in rows or kind == "category":
            continue
        values = rows[column]
        converted[column] = _convert(values, kind, times)
        if fraction := float((converted[column].isna() & values.notna()).mean()):
            unreadable[column] = fraction
    return ComparableRows(rows.assign(**converted), unreadable)


def _convert(values: pd.Series, kind: FeatureKind, times: pd.Series) -> pd.Series:
    if kind == "number":
        return pd.to_numeric(values, errors="coerce").astype("float64")
    if kind == "boolean":
        return pd.Series([BOOLEANS.get(cell) for cell in values.tolist()], values.index, dtype=object)
    if kind == "datetime":
        values = values if values.dtype.kind == "M" else values.astype(object)  # of another type, all are missing
        moments = pd.to_datetime(values, utc=True, errors="coerce", format="ISO8601")
        # Nanoseconds, the unit of both, cannot hold a difference of 300 years; events have microseconds.
        days: pd.Series = (moments.dt.as_unit("us") - times.dt.as_unit("us")).dt.total_seconds() / SECONDS_PER_DAY
        return days
    return values.astype(object).where(values.map(lambda cell: isinstance(cell, str))).str.len().astype("float64")

"""Select one version's rows of a window and align their types with the version's reference."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from driftloop.drift.distances import ColumnType
from driftloop.events import MODEL_COLUMN, VERSION_COLUMN


class AlignedRows(NamedTuple):
    """Rows whose numeric columns are floats."""

    rows: pd.DataFrame
    coerced: dict[str, float]
    """By column the fraction of rows whose value is no number and counts as missing, if there are such rows."""


def rows_of_version(rows: pd.DataFrame, model: str, version: str) -> pd.DataFrame:
    """Return the rows that a version of a model has predicted."""
    return rows[(rows[MODEL_COLUMN] == model) & (rows[VERSION_COLUMN] == version)]


def align_types(rows: pd.DataFrame, column_types: Mapping[str, ColumnType]) -> AlignedRows:
    """Convert the columns that the reference compares as numbers to floats.

    A value that is no number becomes missing. Columns that the rows do not have are left out.
    """
    floats: dict[str, pd.Series] = {}
    coerced: dict[str, float] = {}
    for column, column_type in column_types.items():
        if column_type != "number" or column not in rows:
            continue
        floats[column] = pd.to_numeric(rows[column], errors="coerce").astype("float64")
        if fraction := float((floats[column].isna() & rows[column].notna()).mean()):
            coerced[column] = fraction
    return AlignedRows(rows.assign(**floats), coerced)

"""The rows that a model is adopted with: read, put into the order of time, and looked at for their columns."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from driftloop.drift.comparable_columns import FeatureKind
from driftloop.errors import InvalidInput
from driftloop.events import describe_conflict

MAX_LEVELS = 200  # more distinct texts than this, in a column where most are distinct, are no categories
ZONE = r"(?:Z|[+-]\d{2}:?\d{2})$"  # at the end of a time as text
SHOWN_ROWS = 5  # in a message about rows that cannot be read


class InvalidRows(InvalidInput):
    """The file cannot be used; the message names the column or the rows."""


class AdoptionRows(NamedTuple):
    """The rows, in order of time, or in random order if they have none."""

    frame: pd.DataFrame
    """All columns but the target and the time, as the predictor would hand them to a model."""
    times: pd.Series | None
    """Times in UTC; None if the rows are independent."""
    target: pd.Series | None


def read_rows(path: Path, target: str | None, time: str | None, timezone: str) -> AdoptionRows:
    """Read a Parquet or CSV file.

    Args:
        path: The file; the ending says which it is.
        target: The column with what really happened, if there is one.
        time: The column with the time of a row; without one, rows are shuffled.
        timezone: The time zone of times that have none.

    Raises:
        InvalidRows: The file cannot be read, lacks a column, or has times that cannot be read.
    """
    frame = _read(path)
    frame.columns = frame.columns.map(str)
    for option, column in (("--target", target), ("--time", time)):
        if column is not None and column not in frame:
            raise InvalidRows(f"{option}: {path} has no column {column}; it has {', '.join(frame.columns)}")
    if repeated := sorted(set(frame.columns[frame.columns.duplicated()])):
        raise InvalidRows(f"{path} has several columns named {', '.join(repeated)}")
    if not len(frame):
        raise InvalidRows(f"{path} has no rows")
    if time is None:  # their order may be anything, such as by class, and windows of requests are not ordered so
        frame, times = frame.sample(frac=1, random_state=0).reset_index(drop=True), None
    else:
        times = _read_times(path, frame[time], timezone)
        order = np.argsort(times.to_numpy(), kind="stable")
        frame, times = frame.iloc[order].reset_index(drop=True), times.iloc[order].reset_index(drop=True)
    features = frame.drop(columns=[name for name in (target, time) if name is not None])
    return AdoptionRows(as_served(features), times, None if target is None else frame[target])


def as_served(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with the dtypes that the predictor gives to a model: pandas' own types are no part of requests."""
    return pd.DataFrame({name: _plain_dtype(frame[name]) for name in frame}, copy=False)


def infer_kinds(features: pd.DataFrame, categories: Collection[str] = ()) -> dict[str, FeatureKind]:
    """Return what each feature holds.

    Args:
        features: The rows.
        categories: Features of numbers that are codes of categories.

    Raises:
        InvalidRows: The archive cannot have a column's name, a column has values of several types, or is not there.
    """
    if unknown := [name for name in categories if name not in features]:
        raise InvalidRows(f"--category: the model takes no column {', '.join(unknown)}")
    if conflict := describe_conflict(list(map(str, features))):
        raise InvalidRows(f"the model has {conflict}: train it with other names")
    return {
        name: "category" if name in categories else _infer_kind(name, features[name]) for name in map(str, features)
    }


def _read(path: Path) -> pd.DataFrame:
    try:
        match path.suffix:
            case ".parquet":
                return pd.read_parquet(path)
            case ".csv":
                return pd.read_csv(path)
    except (OSError, ValueError, pa.ArrowException) as error:  # those of the CSV reader are ValueErrors
        raise InvalidRows(f"{path} cannot be read: {error}") from error
    raise InvalidRows(f"{path}: the name must end with .parquet or .csv")


def _read_times(path: Path, values: pd.Series, timezone: str) -> pd.Series:
    is_text = values.dtype == object and bool(values.map(lambda value: isinstance(value, str)).any())
    has_zone = is_text and bool(values.astype(str).str.contains(ZONE).any())
    times = pd.to_datetime(values, errors="coerce", format="ISO8601" if is_text else None, utc=has_zone)
    if bad := np.flatnonzero(times.isna())[:SHOWN_ROWS].tolist():
        shown = ", ".join(f"row {row}: {values.iloc[row]!r}" for row in bad)
        raise InvalidRows(f"{path}: {int(times.isna().sum()):,} times in {values.name} cannot be read ({shown})")
    if times.dt.tz is None:  # an hour that a clock shows twice is taken as the later one
        later = np.zeros(len(times), dtype=bool)
        times = times.dt.tz_localize(timezone, ambiguous=later, nonexistent="shift_forward")
    return times.dt.tz_convert("UTC")


def _plain_dtype(values: pd.Series) -> pd.Series:
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype | pd.StringDtype):
        return values.astype(object).where(values.notna(), np.nan)
    if isinstance(dtype, pd.DatetimeTZDtype):
        naive: pd.Series = values.dt.tz_convert("UTC").dt.tz_localize(None)
        return naive
    if pd.api.types.is_extension_array_dtype(dtype):
        if pd.api.types.is_bool_dtype(dtype):
            return values.astype(object).where(values.notna(), np.nan) if values.isna().any() else values.astype(bool)
        is_integer = pd.api.types.is_integer_dtype(dtype) and not values.isna().any()
        return values.astype("int64" if is_integer else "float64")
    return values


def _infer_kind(name: str, values: pd.Series) -> FeatureKind:
    if pd.api.types.is_bool_dtype(values.dtype):
        return "boolean"
    if pd.api.types.is_numeric_dtype(values.dtype):
        return "number"
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return "datetime"
    known: npt.NDArray[Any] = values.dropna().to_numpy()
    types = {type(value) for value in known}
    if types == {bool}:
        return "boolean"
    if types - {str}:
        raise InvalidRows(
            f"the column {name} has values of the types {', '.join(sorted(kind.__name__ for kind in types))}: a column "
            "has numbers, texts, booleans or times"
        )
    levels = len(set(known))
    return "text" if levels > MAX_LEVELS and levels > len(known) / 2 else "category"

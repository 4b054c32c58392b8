"""Closed slices as Parquet files in the bucket: one a slice, its rows in columns."""

import json
from collections.abc import Iterable, Sequence
from itertools import chain, repeat

import pandas as pd

from driftloop.events import RESERVED, Cell, Outcome, Prediction, Score, Window
from driftloop.storage import Bucket


def prediction_rows(events: Sequence[Prediction]) -> pd.DataFrame:
    """One row an instance: its id, row, time, model, version and prediction, then its features."""
    if not events:
        return pd.DataFrame()
    rows = pd.DataFrame(
        {
            "id": [event.id for event in events for _ in event.predictions],
            "row": [row for event in events for row in range(len(event.predictions))],
            "time": pd.to_datetime([event.time for event in events for _ in event.predictions], utc=True),
            "model": [event.model for event in events for _ in event.predictions],
            "version": [event.version for event in events for _ in event.predictions],
            "prediction": _one_type([prediction for event in events for prediction in event.predictions]),
        }
    )
    columns = {name for event in events for name in event.features}
    for name in sorted(columns - RESERVED):
        cells = chain.from_iterable(
            event.features[name] if name in event.features else repeat(None, len(event.predictions)) for event in events
        )
        rows[name] = _one_type(cells)
    return rows


def _one_type(cells: Iterable[Cell | Score]) -> pd.Series:
    """Versions of a slice may differ in a column's type, and a file has one; several outputs are a text of JSON."""
    column = pd.Series(list(cells))
    kind = pd.api.types.infer_dtype(column, skipna=True) if column.dtype == object else ""
    if kind.startswith("mixed") and column.map(lambda cell: isinstance(cell, list)).any():
        return column.map(json.dumps)
    if kind.startswith(("mixed", "integer")):
        # integers that are objects are larger than a file can hold
        return column.map(str, na_action="ignore")
    return column


def outcome_rows(events: Sequence[Outcome]) -> pd.DataFrame:
    """One row an outcome; ``time`` is when it was known."""
    return pd.DataFrame(
        {
            "id": [event.prediction_id for event in events],
            "row": [event.index for event in events],
            "time": pd.to_datetime([event.time for event in events], utc=True),
            "outcome": [event.outcome for event in events],
        }
    )


def write(bucket: Bucket, window: Window, rows: pd.DataFrame) -> str:
    """Writes a slice's rows under its name; again is the same file. Returns its address."""
    bucket.write_parquet(path(window), rows)
    return bucket.url(path(window))


def read(bucket: Bucket, window: Window) -> pd.DataFrame:
    """A slice's rows. Raises :class:`FileNotFoundError`."""
    return bucket.read_parquet(path(window))


def windows(bucket: Bucket, topic: str, partition: int) -> list[Window]:
    """The slices of a partition that are in the archive, in order of their offsets."""
    return [Window.named(name) for name in bucket.names(f"events/{topic}/{topic}-{partition}-")]


def clear(bucket: Bucket, window: Window) -> None:
    """Deletes the partition's slices from this one on: those of a worker that was killed before they were final."""
    for one in windows(bucket, window.topic, window.partition):
        if one.first_offset >= window.first_offset:
            bucket.delete(path(one))


def path(window: Window) -> str:
    """Where a slice lies in the bucket."""
    return f"events/{window.topic}/{window.name}.parquet"

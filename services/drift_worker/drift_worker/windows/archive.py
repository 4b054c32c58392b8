"""Closed slices as Parquet files in the bucket: one a slice, its rows in columns."""

import json
from collections.abc import Mapping, Sequence, Set
from itertools import chain
from operator import itemgetter
from os.path import commonprefix
from types import NoneType

import numpy as np
import pandas as pd
import pyarrow as pa

from drift_worker import metrics
from driftloop.events import RESERVED_COLUMNS, FeatureValue, Outcome, Prediction, PredictionValue, Window
from driftloop.storage.bucket import Bucket

TIME = pa.timestamp("ns", "UTC")  # what pandas has


def predictions_table(events: Sequence[Prediction]) -> pa.Table:
    """One row an instance: its id, row, time, model, version and prediction, then its features."""
    event_per_row = [event for event in events for _ in event.predictions]
    table = {
        "id": pa.array([event.id for event in event_per_row], pa.string()),
        "row": pa.array([row for event in events for row in range(len(event.predictions))], pa.int64()),
        "time": pa.array([event.time for event in event_per_row], TIME),
        "model": pa.array([event.model for event in event_per_row], pa.string()),
        "version": pa.array([event.version for event in event_per_row], pa.string()),
        "prediction": _arrow_column([prediction for event in events for prediction in event.predictions]),
    }
    names = set().union(*(event.features for event in events)) - RESERVED_COLUMNS
    features = [_with_all_columns(event, names) for event in events]
    for name in sorted(names):
        table[name] = _arrow_column(list(chain.from_iterable(map(itemgetter(name), features))))
    return pa.table(table)


def _with_all_columns(event: Prediction, names: Set[str]) -> Mapping[str, list[FeatureValue]]:
    """The event's columns; those that others have and it has not are empty."""
    if event.features.keys() >= names:
        return event.features
    return {**dict.fromkeys(names, [None] * len(event.predictions)), **event.features}


def _arrow_column(cells: Sequence[FeatureValue | PredictionValue]) -> pa.Array:
    """Versions of a slice may differ in a column's type, and a file has one; several outputs are a text of JSON."""
    kinds = set(map(type, cells)) - {NoneType}
    if list in kinds:
        return pa.array([json.dumps(cell) for cell in cells])
    try:
        if kinds == {int, float}:  # a large integer is no reason for text
            return pa.array(np.array(cells, np.float64), from_pandas=True)
        if len(kinds) <= 1:
            return pa.array(cells, from_pandas=True)
    except OverflowError:  # integers larger than a file can hold
        pass
    return pa.array([None if cell is None else str(cell) for cell in cells])


def outcomes_table(events: Sequence[Outcome]) -> pa.Table:
    """One row an outcome; ``time`` is when it was known."""
    return pa.table(
        {
            "id": pa.array([event.prediction_id for event in events], pa.string()),
            "row": pa.array([event.index for event in events], pa.int64()),
            "time": pa.array([event.time for event in events], TIME),
            "outcome": pa.array([event.outcome for event in events], pa.float64()),
        }
    )


def write_slice(bucket: Bucket, window: Window, rows: pa.Table | pd.DataFrame) -> str:
    """Writes a slice's rows under its name; again is the same file. Returns its address."""
    with metrics.ARCHIVE_WRITE_SECONDS.time():
        bucket.write_parquet(slice_path(window), rows)
    return bucket.url(slice_path(window))


def read_slice(bucket: Bucket, window: Window) -> pd.DataFrame:
    """A slice's rows. Raises :class:`FileNotFoundError`."""
    return bucket.read_parquet(slice_path(window))


def list_slices(bucket: Bucket, topic: str, partition: int) -> list[Window]:
    """The slices of a partition that are in the archive, in order of their offsets."""
    return [Window.parse(name) for name in bucket.names(f"events/{topic}/{topic}-{partition}-")]


def list_slices_between(bucket: Bucket, first: Window, last: Window) -> list[Window]:
    """The slices in the archive that begin between the first offset of one and the last of another, and a few more."""
    ends = (first, last.model_copy(update={"first_offset": last.last_offset}))
    common_prefix = commonprefix([slice_path(window) for window in ends])  # noqa: RUF071  # of characters: names sort as offsets do
    return [Window.parse(name) for name in bucket.names(common_prefix)]


def slice_path(window: Window) -> str:
    """Where a slice lies in the bucket."""
    return f"events/{window.topic}/{window.name}.parquet"

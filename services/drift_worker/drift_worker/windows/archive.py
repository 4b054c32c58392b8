"""The archive: one Parquet file in the bucket for each closed slice of predictions or outcomes."""

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import pandas as pd
import pyarrow as pa

from drift_worker import metrics
from driftloop.archive.file_metadata import DAY_KEY, SUMS_BY_END_KEY, SUMS_KEY
from driftloop.archive.layout import list_files_of, slice_path
from driftloop.archive.rows import read_rows
from driftloop.drift.cumulated import CumulatedState
from driftloop.events import (
    ID_COLUMN,
    MODEL_COLUMN,
    ROW_COLUMN,
    RUN_COLUMN,
    VERSION_COLUMN,
    Window,
)
from driftloop.storage.object_store import ObjectStore


def write_slice(store: ObjectStore, window: Window, rows: pa.Table, day: date) -> str:
    """Write a slice's rows to the file of its name, replacing it if it exists; return its URL.

    Args:
        store: Where the archive is.
        window: The slice.
        rows: Its rows.
        day: The day on which its first message reached the topic, under which it is archived once it is merged.
    """
    metadata = {**(rows.schema.metadata or {}), DAY_KEY: day.isoformat()}
    with metrics.ARCHIVE_WRITE_SECONDS.time():
        store.write_parquet(slice_path(window), rows.replace_schema_metadata(metadata))
    return store.url(slice_path(window))


def read_slice(store: ObjectStore, window: Window) -> pd.DataFrame:
    """Return a slice's rows. Raises :class:`FileNotFoundError` if the archive has no file of the slice."""
    return store.read_parquet(slice_path(window))


def run_ids(rows: pd.DataFrame) -> pd.Series:
    """Return the run of the version that has predicted each row, an empty text if it is not known."""
    if RUN_COLUMN not in rows:
        return pd.Series("", index=rows.index, name=RUN_COLUMN, dtype=object)
    return rows[RUN_COLUMN].astype(object).fillna("")


def with_sums(rows: pa.Table, sums: Mapping[str, CumulatedState]) -> pa.Table:
    """Return a slice's rows with the sums by version in the metadata."""
    texts = {version: state.model_dump() for version, state in sums.items()}
    return rows.replace_schema_metadata({**(rows.schema.metadata or {}), SUMS_KEY: json.dumps(texts)})


def read_slice_with_sums(store: ObjectStore, window: Window) -> tuple[pd.DataFrame, dict[str, CumulatedState]]:
    """Return a slice's rows and the sums by version. Raises :class:`FileNotFoundError` as :func:`read_slice` does."""
    table = store.read_table(slice_path(window))
    sums = json.loads((table.schema.metadata or {}).get(SUMS_KEY, b"{}"))
    return table.to_pandas(), _validated(sums)


def read_sums_at(store: ObjectStore, window: Window) -> dict[str, CumulatedState]:
    """Return the sums by version that are archived with the last slice of a window."""
    for file in reversed(list_files_of(store, window)):
        metadata = store.read_table(file.path, []).schema.metadata or {}
        if not file.is_merged:
            if file.window.last_offset == window.last_offset:
                return _validated(json.loads(metadata.get(SUMS_KEY, b"{}")))
        elif (sums := json.loads(metadata.get(SUMS_BY_END_KEY, b"{}")).get(str(window.last_offset))) is not None:
            return _validated(sums)
    return {}


def _validated(sums: Mapping[str, Any]) -> dict[str, CumulatedState]:
    return {version: CumulatedState.model_validate(state) for version, state in sums.items()}


def read_window(
    store: ObjectStore, window: Window, model: str, version: str, run_id: str | None = None
) -> pd.DataFrame:
    """Return a version's rows of a window in their order, each once: until orphans are deleted, two slices can have it.

    Raises :class:`FileNotFoundError` if the archive has nothing of the window.
    """

    def select(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[
            (rows[MODEL_COLUMN] == model) & (rows[VERSION_COLUMN] == version) & (run_ids(rows) == (run_id or ""))
        ]

    return read_rows(store, window, select).drop_duplicates([ID_COLUMN, ROW_COLUMN])

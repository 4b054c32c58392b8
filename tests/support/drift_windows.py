"""A store in a folder, and a version with a reference and judged windows in it, without Kafka and GCS."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.windows import archive
from driftloop.archive.partition_state import version_digest
from driftloop.drift.calibration import calibrate
from driftloop.drift.cumulated import CumulatedState
from driftloop.drift.distances import ColumnType, DistanceName
from driftloop.drift.settings import WindowSettings
from driftloop.events import DriftVerdict, Window
from driftloop.storage import reference_store
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import Reference
from tests.support.archived_rows import archive_rows
from tests.support.folder_store import folder_store

ROWS = 100
"""Rows of a window."""
COLUMN_TYPES: dict[str, ColumnType] = {
    "temp": "number",
    "visib": "number",
    "carrier": "category",
    "_prediction": "number",
}
BEGIN = datetime(2013, 1, 1, tzinfo=UTC)


def make_days(count: int, seed: int = 0, warmer: float = 0.0) -> pd.DataFrame:
    """Return the rows of ``count`` days, a window each.

    They have no autocorrelation, so that drift detects any shift; ``warmer`` is added to the column ``temp``.
    """
    random = np.random.default_rng(seed)
    size = count * ROWS
    return pd.DataFrame(
        {
            "temp": random.normal(12 + warmer, 8, size).round(1),
            "visib": random.choice([np.nan, 5.0, 10.0], size, p=[0.1, 0.2, 0.7]),
            "carrier": random.choice(["UA", "DL", "B6", "AA"], size, p=[0.4, 0.3, 0.2, 0.1]),
            "_prediction": random.beta(2, 5, size),
        }
    )


def store_reference(
    store: ObjectStore,
    model: str = "m",
    version: str = "1",
    rows: pd.DataFrame | None = None,
    distances: Mapping[str, DistanceName] = {},
    run_id: str = "",
) -> Reference:
    """Store a reference for a version and its run: ``rows``, or rows of 80 days; ``distances`` are by column."""
    rows = make_days(80) if rows is None else rows
    importance = {"temp": 0.04, "visib": 0.01, "carrier": 0.02}
    day_numbers = np.arange(len(rows)) // ROWS
    profile = calibrate(
        rows,
        day_numbers,
        COLUMN_TYPES,
        window_rows=ROWS,
        false_alarm_rate=0.01,
        embargo_days=1,
        importance=importance,
        distances=distances,
    )
    reference = Reference(rows, profile)
    reference_store.save_reference(store, model, version, reference, run_id)
    return reference


def archive_and_judge(
    store: ObjectStore, frames: list[pd.DataFrame], model: str = "m", version: str = "1", begin: datetime = BEGIN
) -> Iterator[DriftVerdict]:
    """Archive each frame as the window of one day, in partition 0, and yield its verdict."""
    settings = WindowSettings.model_construct(
        None, rows=ROWS, min_fraction=0.9, false_alarm_rate=0.01, max_age_seconds=1, idle_timeout_seconds=1
    )
    window_judge = WindowJudge(store, settings)
    preceding: list[pd.DataFrame] = []
    sums: CumulatedState | None = None
    for day, frame in enumerate(frames):
        window = Window(topic="predictions", partition=0, first_offset=day * ROWS, last_offset=(day + 1) * ROWS - 1)
        times = [begin + timedelta(days=day, minutes=row) for row in range(len(frame))]
        ids = [f"{day}-{row}" for row in range(len(frame))]
        rows = frame.assign(_id=ids, _row=0, _time=pd.to_datetime(times), _model=model, _version=version)
        score = window_judge.cumulate(model, version, rows, sums)
        sums = score.state if score else sums
        states = {version_digest(model, version): sums} if sums else {}
        table = archive.with_sums(pa.Table.from_pandas(rows, preserve_index=False), states)
        url = archive_rows(store, window, table)
        yield window_judge.judge(window, model, version, rows, preceding, [url], score)
        preceding = [*preceding, rows][-2:]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """Return an empty store."""
    return folder_store(tmp_path / "store")

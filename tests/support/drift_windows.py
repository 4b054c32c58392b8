"""A bucket in a folder, and a version with a reference and judged windows in it, without Kafka and GCS."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.windows import archive
from drift_worker.windows.partition_state import version_digest
from driftloop.drift.calibration import calibrate
from driftloop.drift.cumulated import CumulatedState
from driftloop.drift.distances import ColumnType, DistanceName
from driftloop.drift.settings import WindowSettings
from driftloop.events import DriftVerdict, Window
from driftloop.storage import reference_store
from driftloop.storage.object_store import ObjectStore, StoredObject
from driftloop.storage.reference_store import Reference
from tests.support.archived_rows import archive_rows

ROWS = 100
"""Rows of a window."""
COLUMN_TYPES: dict[str, ColumnType] = {
    "temp": "number",
    "visib": "number",
    "carrier": "category",
    "_prediction": "number",
}
BEGIN = datetime(2013, 1, 1, tzinfo=UTC)


class FolderStore(ObjectStore):
    """A bucket whose objects are files in a folder."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which does not have to exist."""
        self._folder, self.name = folder, "b"

    def exists(self, path: str) -> bool:
        """Return whether there is an object."""
        return (self._folder / path).is_file()

    def write(self, path: str, content: bytes) -> None:
        """Write an object."""
        (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self._folder / path).write_bytes(content)

    def read(self, path: str) -> bytes:
        """Return an object's content."""
        return (self._folder / path).read_bytes()

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open an object for reading."""
        with (self._folder / path).open("rb") as opened:
            yield opened

    def require_answer(self, _: float = 10) -> Self:
        """Return the bucket, which answers."""
        return self

    def delete(self, path: str) -> None:
        """Delete an object."""
        (self._folder / path).unlink(missing_ok=True)

    def list_paths(self, path: str) -> list[str]:
        """Return the paths that begin with ``path``."""
        return sorted(str(file.relative_to(self._folder)) for file in self._folder.glob(f"{path}*"))

    def list_objects(self, prefix: str) -> list[StoredObject]:
        """Return the objects whose path begins with ``prefix``, after a slash at its end also those deeper."""
        found = (self._folder / prefix).rglob("*") if prefix.endswith("/") else self._folder.glob(f"{prefix}*")
        return sorted(
            StoredObject(
                str(file.relative_to(self._folder)),
                file.stat().st_size,
                datetime.fromtimestamp(file.stat().st_mtime, UTC),
            )
            for file in found
            if file.is_file()
        )

    def list_modified_before(self, path: str, at: datetime) -> list[str]:
        """Return the paths below a folder that were written before a time."""
        files = [file for file in (self._folder / path).rglob("*") if file.is_file()]
        return [str(file.relative_to(self._folder)) for file in files if file.stat().st_mtime < at.timestamp()]


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
    """Return an empty bucket."""
    return FolderStore(tmp_path / "bucket")

"""A bucket in a folder, and a version with a reference and judged windows in it: all real, but for Kafka and GCS."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drift_worker.verdicts.window_judge import WindowJudge
from drift_worker.windows import archive
from drift_worker.windows.committed_slices import CommittedSlices
from drift_worker.windows.recent_windows import RecentWindows
from driftloop.drift.calibration import calibrate
from driftloop.drift.distances import ColumnType, DistanceName
from driftloop.events import DriftVerdict, Window
from driftloop.drift.settings import WindowSettings
from driftloop.storage import reference_store
from driftloop.storage.bucket import Bucket
from driftloop.storage.reference_store import Reference

ROWS = 100
"""Rows of a window."""
KINDS: dict[str, ColumnType] = {"temp": "number", "visib": "number", "carrier": "category", "prediction": "number"}
BEGIN = datetime(2013, 1, 1, tzinfo=UTC)


class Folder(Bucket):
    """Keeps objects in a folder."""

    def __init__(self, folder: Path) -> None:
        """There is nothing in it that is not in the folder."""
        self._folder, self.name = folder, "b"

    def exists(self, path: str) -> bool:
        """Whether there is an object."""
        return (self._folder / path).is_file()

    def write(self, path: str, content: bytes) -> None:
        """Writes an object."""
        (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self._folder / path).write_bytes(content)

    def read(self, path: str) -> bytes:
        """An object's content."""
        return (self._folder / path).read_bytes()

    def delete(self, path: str) -> None:
        """Deletes an object."""
        (self._folder / path).unlink()

    def list_paths(self, path: str) -> list[str]:
        """The paths that begin with ``path``."""
        return sorted(str(file.relative_to(self._folder)) for file in self._folder.glob(f"{path}*"))

    def list_modified_before(self, path: str, at: datetime) -> list[str]:
        """The paths below a folder whose objects were written before a time."""
        files = [file for file in (self._folder / path).rglob("*") if file.is_file()]
        return [str(file.relative_to(self._folder)) for file in files if file.stat().st_mtime < at.timestamp()]


def days(count: int, seed: int = 0, warmer: float = 0.0) -> pd.DataFrame:
    """Rows of so many days of a window's length each; without autocorrelation, so any shift is seen."""
    random = np.random.default_rng(seed)
    size = count * ROWS
    return pd.DataFrame(
        {
            "temp": random.normal(12 + warmer, 8, size).round(1),
            "visib": random.choice([np.nan, 5.0, 10.0], size, p=[0.1, 0.2, 0.7]),
            "carrier": random.choice(["UA", "DL", "B6", "AA"], size, p=[0.4, 0.3, 0.2, 0.1]),
            "prediction": random.beta(2, 5, size),
        }
    )


def give_reference(
    bucket: Bucket,
    model: str = "m",
    version: str = "1",
    rows: pd.DataFrame | None = None,
    methods: Mapping[str, DistanceName] = {},
) -> Reference:
    """Writes the version's reference: 80 days."""
    rows = days(80) if rows is None else rows
    importance = {"temp": 0.04, "visib": 0.01, "carrier": 0.02}
    numbers = np.repeat(np.arange(80), ROWS)
    profile = calibrate(
        rows,
        numbers,
        KINDS,
        window_rows=ROWS,
        false_alarm_rate=0.01,
        embargo_days=1,
        importance=importance,
        distances=methods,
    )
    known = Reference(rows, profile)
    reference_store.save_reference(bucket, model, version, known)
    return known


def judged(
    bucket: Bucket, frames: list[pd.DataFrame], model: str = "m", version: str = "1", begin: datetime = BEGIN
) -> Iterator[DriftVerdict]:
    """Archives each frame as a window of partition 0, a day apart, and judges it."""
    window = WindowSettings.model_construct(
        None, rows=ROWS, min_version_fraction=0.9, false_alarm_rate=0.01, max_age_seconds=1, idle_timeout_seconds=1
    )
    history = RecentWindows(bucket, window.min_rows, CommittedSlices().preceding)
    judging = WindowJudge(bucket, window, history)
    for number, frame in enumerate(frames):
        name = Window(topic="predictions", partition=0, first_offset=number * ROWS, last_offset=(number + 1) * ROWS - 1)
        times = [begin + timedelta(days=number, minutes=row) for row in range(len(frame))]
        ids = [f"{number}-{row}" for row in range(len(frame))]
        rows = frame.assign(id=ids, row=0, time=pd.to_datetime(times), model=model, version=version)
        at = archive.write_slice(bucket, name, rows)
        yield judging.judge(name, model, version, rows, at)
        history.add(name, rows)


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    """An empty one, of each test's own."""
    return Folder(tmp_path / "bucket")

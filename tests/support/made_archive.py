"""An archive in a folder, for tests whose matter is how it is read."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.archive.layout import merged_path, slice_path
from driftloop.events import Window
from tests.support.folder_store import folder_store

BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC)
Row = dict[str, Any]


def at(days: float) -> datetime:
    """Return the time some days after the beginning."""
    return BEGIN + timedelta(days=days)


def prediction(day: float, **changed: Any) -> Row:
    """Return a prediction made on a day, whose id is the day."""
    own = {"_id": f"{day:g}", "_row": 0, "_time": at(day), "_model": "m", "_version": "1", "_run_id": "r"}
    own |= {"_prediction": 0.5, "_classes": None, "_label": None, "_key": None, "_context": None, "_offset": int(day)}
    return {**own, **changed}


def outcome(day: float, value: float | str, known: float, **changed: Any) -> Row:
    """Return the outcome of a day's prediction, known on another day."""
    text = value if isinstance(value, str) else None
    number = None if isinstance(value, str) else float(value)
    named = {"_id": f"{day:g}", "_row": 0, "_time": at(known), "_model": None, "_key": None}
    return {**named, "outcome": number, "outcome_label": text, "_offset": int(known), **changed}


class MadeArchive:
    """An archive in a folder, whose slices and merged files a test writes."""

    def __init__(self, folder: Path) -> None:
        """Create the folder."""
        self.store = folder_store(folder)
        self.url = folder.as_uri()
        self._end = dict.fromkeys(("predictions", "outcomes"), 0)

    def window(self, topic: str) -> Window:
        """Return the window of the next file."""
        first = self._end[topic]
        self._end[topic] += 10
        return Window(topic=topic, partition=0, first_offset=first, last_offset=first + 9)

    def add(self, topic: str, rows: Sequence[Row] | pa.Table, day: date | None = None, **options: Any) -> str:
        """Write the next slice of a topic, or if a day is given the next merged file; return its path."""
        window = self.window(topic)
        path = slice_path(window) if day is None else merged_path(window, day)
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows))
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **options)
        self.store.write(path, sink.getvalue().to_pybytes())
        return path

    def predictions(self, *rows: Row, day: date | None = None) -> str:
        """Write the next file of predictions."""
        return self.add("predictions", rows, day)

    def outcomes(self, *rows: Row, day: date | None = None) -> str:
        """Write the next file of outcomes."""
        return self.add("outcomes", rows, day)

"""Closed slices as Parquet files in the bucket: one a slice, its rows in columns."""

from collections.abc import Sequence

import pandas as pd

from driftloop.events import Outcome, Prediction, Window
from driftloop.storage import Bucket


def prediction_rows(events: Sequence[Prediction]) -> pd.DataFrame:
    """One row an instance: its id, row, time, model, version and prediction, then its features."""
    frames = []
    for event in events:
        frame = pd.DataFrame(event.features)
        frame.insert(0, "id", event.id)
        frame.insert(1, "row", range(len(frame)))
        frame.insert(2, "time", pd.Timestamp(event.time).tz_convert("UTC"))
        frame.insert(3, "model", event.model)
        frame.insert(4, "version", event.version)
        frame.insert(5, "prediction", event.predictions)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


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
    path = f"events/{window.topic}/{window.name}.parquet"
    bucket.write_parquet(path, rows)
    return bucket.url(path)
